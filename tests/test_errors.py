"""Messages about errors that a library raised."""

import pytest

from hf_smile.errors import Problems, SmileDataError, first_line


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


def test_a_problem_is_one_short_line_whatever_it_quotes():
    with pytest.raises(SmileDataError) as caught:
        Problems(["a\n\x1b[31m" + "x" * 100_000]).raise_if_any("here")
    _, line = str(caught.value).splitlines()
    assert line.startswith("  a??[31mxxx") and len(line) < 400
