"""Checkpoints on disk: complete, truncated, changed; and a full disk."""

import errno
import json
import resource

import pytest
import torch
from safetensors.torch import save_file

from hf_smile.errors import SmileError
from hf_smile.training.checkpoints import (
    CHECKSUMS,
    UNFINISHED,
    clear_of_disk_errors,
    damage,
    last_whole_checkpoint,
    move_into_place,
    seal,
)

FILES = ("model.safetensors", "raw_weights.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


def add_checkpoint(folder, step: int, best: int | None = None):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in FILES:
        (checkpoint / name).write_bytes(bytes(range(256)) * 4)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    seal(checkpoint)
    return checkpoint


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [flip_a_bit, cut, lambda path: path.unlink()], ids=["flipped", "cut", "gone"])
@pytest.mark.parametrize("name", [*FILES, "trainer_state.json", CHECKSUMS])
def test_a_damaged_checkpoint_is_passed_over_and_it_is_said(tmp_path, caplog, name, harm):
    before, newest = add_checkpoint(tmp_path, 9), add_checkpoint(tmp_path, 10)
    assert last_whole_checkpoint(tmp_path) == newest
    assert not caplog.text
    harm(newest / name)
    assert last_whole_checkpoint(tmp_path) == before
    said = caplog.text
    assert said.count("\n") == 1 and "checkpoint-10 is damaged and is skipped: " in said


def test_a_checkpoint_whose_best_one_is_damaged_is_passed_over(tmp_path, caplog):
    first = add_checkpoint(tmp_path, 5)
    best = add_checkpoint(tmp_path, 10, best=10)
    newest = add_checkpoint(tmp_path, 15, best=10)
    assert last_whole_checkpoint(tmp_path) == newest
    flip_a_bit(best / "model.safetensors")
    assert last_whole_checkpoint(tmp_path) == first
    assert "checkpoint-15 is damaged and is skipped: it needs checkpoint-10" in caplog.text


def test_what_is_added_to_a_checkpoint_later_does_not_matter(tmp_path):
    checkpoint = add_checkpoint(tmp_path, 1)
    (checkpoint / "onnx").mkdir()
    (checkpoint / "notes.txt").write_text("mine")
    assert damage(checkpoint) is None


def test_folders_in_a_checkpoint_are_sealed_too(tmp_path):
    checkpoint = add_checkpoint(tmp_path, 1)
    (checkpoint / "part").mkdir()
    (checkpoint / "part" / "0.bin").write_bytes(b"1234")
    seal(checkpoint)
    assert damage(checkpoint) is None
    flip_a_bit(checkpoint / "part" / "0.bin")
    assert damage(checkpoint) == "part/0.bin has changed since it was written"


def test_a_checkpoint_that_was_about_to_take_its_place_is_found(tmp_path):
    for name in ("replaced", "checkpoint-5"):
        add_checkpoint(tmp_path / UNFINISHED, 5).replace(tmp_path / UNFINISHED / name)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-5"


def test_checksums_that_name_nothing_do_not_pass(tmp_path):
    checkpoint = add_checkpoint(tmp_path, 1)
    needed = ["model.safetensors", "trainer_state.json"]
    for text in ("{}", "[]", "3", json.dumps(needed), json.dumps(dict.fromkeys(needed, 1)), "\x00", 10_000 * "["):
        (checkpoint / CHECKSUMS).write_text(text)
        assert damage(checkpoint)


def test_a_state_that_is_none_is_damage_even_if_sealed(tmp_path, caplog):
    checkpoint = add_checkpoint(tmp_path, 1)
    (checkpoint / "trainer_state.json").write_text("[1]")
    seal(checkpoint)
    assert last_whole_checkpoint(tmp_path) is None
    assert "trainer_state.json is not a JSON object" in caplog.text


def test_a_checkpoint_saved_again_takes_the_place_of_the_first(tmp_path):
    add_checkpoint(tmp_path, 1)
    again = add_checkpoint(tmp_path / UNFINISHED, 1)
    (again / "new").write_text("")
    move_into_place(again, tmp_path / "checkpoint-1")
    assert (tmp_path / "checkpoint-1" / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


@pytest.fixture
def room_for_64_kb():
    """Limit the file size of this process, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: torch.save(torch.rand(100_000), file),
        lambda file: save_file({"weight": torch.rand(100_000)}, file),
        lambda file: file.write_bytes(bytes(400_000)),
    ],
    ids=["torch", "safetensors", "python"],
)
def test_a_full_disk_is_said_in_words_and_the_half_written_goes(room_for_64_kb, tmp_path, write):
    (tmp_path / UNFINISHED).mkdir()
    message = r"can't be written to, with [\d,.]+ MB free there .*\nEarlier checkpoints are complete"
    with pytest.raises(SmileError, match=message), clear_of_disk_errors(tmp_path):
        write(tmp_path / UNFINISHED / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2"), OSError(errno.ENOENT, "no such file")])
def test_other_errors_are_left_alone(tmp_path, error):
    with pytest.raises(type(error)) as raised, clear_of_disk_errors(tmp_path):
        raise error
    assert raised.value is error
