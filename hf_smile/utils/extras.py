"""The extra of hf_smile that installs a package, and the error message if the package is missing."""

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
"""Import names of the required packages, by the name to install."""

_TO_INSTALL = {package: extra for extra, packages in BROUGHT_BY.items() for package in packages}


@contextmanager
def needed_by(who: str) -> Iterator[None]:
    """Context that converts a missing package to an error which says who needs it and how to install it.

    Args:
        who: a command, or a name that users import. In nested blocks, the message names the outermost.

    Raises:
        MissingPackageError: replaces the `ModuleNotFoundError` of a package in `BROUGHT_BY`.

    >>> with needed_by("it"):
    ...     raise ModuleNotFoundError(name="optuna")
    Traceback (most recent call last):
    hf_smile.errors.MissingPackageError: it needs optuna, which is not installed: pip install 'hf_smile[tune]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = str(error.name).split()
        if not {*missing} <= {*_TO_INSTALL}:
            raise
        extras = " ".join(dict.fromkeys(f"'{_TO_INSTALL[package]}'" for package in missing))
        are = "is" if len(missing) == 1 else "are"
        message = f"{who} needs {', '.join(missing)}, which {are} not installed: pip install {extras}"
        raise MissingPackageError(message, name=error.name) from None


def require(*packages: str) -> None:
    """Check early that packages are installed which are only imported after long work, or come with several extras.

    Raises:
        ModuleNotFoundError: packages are not installed; its `name` has all of them, separated by spaces.

    >>> require("json")
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ModuleNotFoundError(f"No module named {', '.join(missing)}", name=" ".join(missing))
