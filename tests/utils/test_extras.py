"""What is said of a package that is not installed."""

import sys

import pytest

from hf_smile.errors import MissingPackageError, SmileError
from hf_smile.utils.extras import needed_by, require


def test_of_nested_blocks_the_outermost_says_who_needs_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    message = r"^hf-smile tune needs optuna, which is not installed: pip install 'hf_smile\[tune\]'$"
    with pytest.raises(SmileError, match=message) as caught, needed_by("hf-smile tune"), needed_by("the search"):
        require("json", "optuna")
    assert isinstance(caught.value, ImportError) and caught.value.name == "optuna"


def test_a_package_that_no_extra_brings_and_other_errors_stay_what_they_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError) as caught, needed_by("hf-smile train"):
        import tensorboard  # noqa: F401
    assert not isinstance(caught.value, MissingPackageError)
    with pytest.raises(ImportError, match="no such name"), needed_by("hf-smile train"):
        raise ImportError("no such name", name="torch")
