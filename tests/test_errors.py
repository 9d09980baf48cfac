"""What is told of an error that a library raised."""

import pytest

from hf_smile.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such layer\nSee the documentation"), "no such layer"),
        (OSError("\n  offline  \nTraceback"), "offline  "),
        (RuntimeError(), "RuntimeError"),
        (AssertionError("  \n"), "AssertionError"),
    ],
)
def test_an_error_is_told_in_one_line_even_if_it_says_nothing(error, line):
    assert first_line(error) == line
