"""The load test on a small scale."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cv2")
pytest.importorskip("gradio")

SCRIPT = Path(__file__).parents[2] / "scripts" / "load_test.py"


@pytest.fixture
def load_test(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the script in this process; returns the exit code, the output and the errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["load_test.py", *map(str, words)])
        capsys.readouterr()
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


def test_two_users_get_their_own_answers(load_test, demo_model):
    code, out, errors = load_test("--model", demo_model, "--users", 2, "--requests", 2)
    assert code == 0, errors
    assert "4 requests of 2 concurrent users, all answers correct" in out and "latency: median" in out


@pytest.mark.parametrize("setting", ["--users", "--requests"])
def test_nobody_and_nothing_is_no_load(load_test, setting):
    code, _, errors = load_test(setting, 0)
    assert code == 2 and f"argument {setting}: must be at least 1" in errors


def test_a_demo_that_ends_at_once_is_said_with_its_last_words(load_test, demo_model, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "no.such.host.invalid")
    code, _, errors = load_test("--model", demo_model, "--users", 2)
    assert code == 2 and "the demo ended at once with exit code 2" in errors
    assert "error: the demo can't be served at no.such.host.invalid" in errors and "Traceback" not in errors
