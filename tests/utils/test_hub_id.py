"""Hub ids are told apart from mistyped folders."""

import pytest

from hf_smile.utils.hub_id import missing_folder


@pytest.mark.parametrize("text", ["somebody/faces", "timm/resnet50.a1_in1k", "my/faces"])
def test_an_id_on_the_hub_may_be_one(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert missing_folder(text) is None


@pytest.mark.parametrize(
    "text",
    ["faces", "./my/faces", "/my/faces", "my/faces/all", "data/faces", "outputs/model", "backbones/net", "my/faces"],
)
def test_a_path_is_none(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    message = str(missing_folder(text))
    assert message.startswith(f"{text}: no such folder")
    assert ("recipes/face_backbone.py" in message) == text.startswith("backbones/")


def test_a_file_is_not_called_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    assert missing_folder("README.md") == "README.md is a file; name a folder"
