"""Folders for results: one process at a time writes to each."""

import os
import subprocess
import sys

import pytest

from hf_smile.errors import SmileDataError, SmileError
from hf_smile.utils.files import held_folder, make_folder

HOLD = """
import sys
from hf_smile.utils.files import held_folder
with held_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    folder = tmp_path / "run"
    words = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(SmileError, match=r"another run is writing to .*run; wait until it ends"),
            held_folder(folder),
        ):
            pass
        assert folder.is_dir()  # though it is empty
        with pytest.raises(SmileError, match="another run"), held_folder(folder):
            pass
        other.kill()
        other.wait()
    with held_folder(folder):
        (folder / "weights").touch()
    with held_folder(folder):
        assert [path.name for path in folder.iterdir()] == ["weights"]


def test_a_folder_that_was_created_and_stays_empty_is_removed(tmp_path):
    with pytest.raises(SmileError, match="no data"), held_folder(tmp_path / "a" / "b"):
        raise SmileError("no data")
    assert not (tmp_path / "a" / "b").exists()
    (tmp_path / "mine").mkdir()
    with held_folder(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_child_does_not_hold_the_folder_of_its_parent(tmp_path):
    (from_child, to_parent), (from_parent, to_child) = os.pipe(), os.pipe()
    with held_folder(tmp_path):
        if (child := os.fork()) == 0:
            os.write(to_parent, b"1")
            os.read(from_parent, 1)
            os._exit(0)
        os.read(from_child, 1)
    with held_folder(tmp_path):  # the child still runs
        os.write(to_child, b"1")
        assert os.waitpid(child, 0)[1] == 0
    for pipe in (from_child, to_parent, from_parent, to_child):
        os.close(pipe)


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "report").touch()
    with pytest.raises(SmileDataError, match="report is a file; name a folder"):
        make_folder(tmp_path / "report")
