"""Which extra of hf_smile brings a package, and what is said where the package is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from hf_smile.errors import MissingPackageError

BROUGHT_BY = {
    "hf_smile": ("PIL", "cv2", "huggingface_hub", "matplotlib", "numpy", "onnxruntime", "pandas", "tqdm", "yaml"),
    "hf_smile[train]": (
        *(
            "accelerate",
            "captum",
            "datasets",
            "evaluate",
            "jinja2",
            "onnx",
            "psutil",
            "pyarrow",
            "safetensors",
        ),
        *("scipy", "sklearn", "threadpoolctl", "timm", "torch", "torchvision", "transformers"),
    ),
    "hf_smile[audit]": ("cleanlab", "imagehash"),
    "hf_smile[demo]": ("gradio", "starlette"),
    "hf_smile[heif]": ("pillow_heif",),
    "hf_smile[tune]": ("optuna",),
}
"""The packages that the code imports, under the names it imports them by, by what to install."""

_TO_INSTALL = {package: extra for extra, packages in BROUGHT_BY.items() for package in packages}


@contextmanager
def needed_by(who: str) -> Iterator[None]:
    """Say who needs a package that is not installed, and how to install it.

    Args:
        who: a command, or a name that users import. Of nested blocks the outermost is named.

    Raises:
        MissingPackageError: instead of the `ModuleNotFoundError` that a package of `BROUGHT_BY` raised in the block.

    >>> with needed_by("it"):
    ...     raise ModuleNotFoundError(name="optuna")
    Traceback (most recent call last):
    hf_smile.errors.MissingPackageError: it needs optuna, which is not installed: pip install 'hf_smile[tune]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _TO_INSTALL:
            raise
        fix = f"pip install '{_TO_INSTALL[error.name]}'"
        message = f"{who} needs {error.name}, which is not installed: {fix}"
        raise MissingPackageError(message, name=error.name) from None


def require(*packages: str) -> None:
    """See that packages are installed, before the work begins at the end of which they are imported.

    Raises:
        ModuleNotFoundError: one is not.

    >>> require("json")
    """
    for package in packages:
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
