"""Images in folders and zips: which file a name refers to, and what is refused."""

import stat
import zipfile

import pytest

from hf_smile.data import images
from hf_smile.data.sources import ImageSource
from hf_smile.errors import SmileDataError


@pytest.fixture(params=["folder", "zip"])
def make_source(request, tmp_path):
    """Make an `ImageSource` of these files, once as a folder and once as a zip."""

    def make(files: dict[str, bytes]) -> ImageSource:
        if request.param == "folder":
            for name, data in files.items():
                (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "images" / name).write_bytes(data)
            return ImageSource(tmp_path / "images")
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return ImageSource(tmp_path / "images.zip")

    return make


def test_images_are_found_by_id_in_subfolders_and_by_any_suffix(make_source):
    source = make_source({"happy/a.jpg": b"1", "b.PNG": b"2", "c.webp": b"3", "d.bmp": b"4", "e.JPEG": b"5"})
    assert [source.read(source.find(name)) for name in "abcde"] == [b"1", b"2", b"3", b"4", b"5"]


def test_names_from_old_windows_tools_and_from_macs_are_found(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("happy\\a.jpg", b"1")
        archive.writestr("u\u0308.jpg", b"2")
    source = ImageSource(tmp_path / "images.zip")
    assert source.read(source.find("happy/a")) == b"1"
    assert source.read(source.find("\u00fc.jpg")) == b"2"


def test_other_files_are_no_images(make_source):
    source = make_source({"a.jpg": b"1", "readme.txt": b"", "b.tif": b"", "._c.jpg": b"", "__pycache__/d.py": b""})
    assert list(source.names) == ["a.jpg"]


FILES = {
    "000.jpg": b"root",
    "person0/000.jpg": b"0",
    "person1/000.jpg": b"1",
    "person1/000.png": b"1png",
    "backup/person0/000.jpg": b"old",
    "one.JPG": b"one",
    "deep/er/two.jpg": b"two",
}


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("person0/000.jpg", b"0"),
        ("person0/000", b"0"),  # the exact path; backup/ has another
        ("./person0/000.jpg", b"0"),
        ("images/person0/000.jpg", b"0"),  # relative to the parent folder
        ("000.jpg", b"root"),
        ("person1/000.jpg", b"1"),
        ("person1/000.png", b"1png"),
        ("000.png", b"1png"),
        ("one", b"one"),
        ("one.jpg", b"one"),
        ("two", b"two"),
    ],
)
def test_what_is_read_is_what_is_named(make_source, text, content):
    source = make_source(FILES)
    assert source.read(source.find(text)) == content


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("000", "two files have this name: "),
        ("person1/000", r"two files have this name: person1/000\.jpg and person1/000\.png"),
        ("elsewhere/000.jpg", "image missing"),
        ("er/two.jpg", "image missing"),  # a path must be complete
        ("n0/000.jpg", "image missing"),  # the end of a folder name is not enough
        ("one.png", r"image missing in images.*; did you mean one\.JPG\?"),
        ("nobody", "image missing"),
        ("../images/one.jpg", "leaves the folder"),
        ("/etc/passwd", "leaves the folder"),
        ("C:/one.jpg", "leaves the folder"),
        ("http://host/one.jpg", "leaves the folder"),
    ],
)
def test_what_is_missing_or_could_be_two_is_refused(make_source, text, problem):
    with pytest.raises(SmileDataError, match=problem):
        make_source(FILES).find(text)


def test_a_path_is_not_looked_for_in_another_folder(make_source):
    source = make_source({"backup/person0/0.jpg": b"old", "person1/0.jpg": b"1"})
    with pytest.raises(SmileDataError, match="image missing"):
        source.find("person0/0.jpg")


def test_a_folder_that_all_images_are_in_may_be_left_out(make_source):
    source = make_source({"faces/person0/0.jpg": b"0", "faces/person1/0.jpg": b"1"})
    assert source.read(source.find("person0/0.jpg")) == source.read(source.find("faces/person0/0")) == b"0"


def test_links_to_folders_are_followed_once_and_hidden_folders_never(tmp_path):
    (tmp_path / "images" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "images" / ".ipynb_checkpoints" / "a.jpg").write_bytes(b"copy")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"1")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "images")
    assert list(ImageSource(tmp_path / "images").names) == ["linked/a.jpg"]


def test_a_file_name_of_metadata_is_a_path_and_nothing_else(make_source, tmp_path):
    source = make_source(FILES)
    assert source.read(source.exact("person0/000.jpg")) == b"0"
    for text, problem in (("000", "missing"), ("two.jpg", "missing"), ("../x.jpg", "unsafe"), ("/x.jpg", "unsafe")):
        with pytest.raises(SmileDataError, match=problem):
            source.exact(text)
    if source.path.is_dir():
        (tmp_path / "secret.jpg").write_bytes(b"secret")
        (source.path / "link.jpg").symlink_to(tmp_path / "secret.jpg")
        with pytest.raises(SmileDataError, match="a link that leaves the folder"):
            ImageSource(source.path).exact("link.jpg")


def test_a_file_over_the_size_limit_is_refused(make_source, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    source = make_source({"a.jpg": bytes(101), "b.jpg": bytes(100)})
    assert source.read("b.jpg") == bytes(100)
    with pytest.raises(SmileDataError, match="over the limit"):
        source.read("a.jpg")


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "happy/../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:/evil.jpg"]
)
def test_a_zip_member_that_points_outside_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(name, b"1")
    with pytest.raises(SmileDataError, match="points outside the archive"):
        ImageSource(tmp_path / "images.zip")


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("a.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(SmileDataError, match="symbolic link"):
        ImageSource(tmp_path / "images.zip")


def test_an_encrypted_zip_is_refused(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"1")
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1  # the encryption flag
    path.write_bytes(data)
    with pytest.raises(SmileDataError, match="without a password"):
        ImageSource(path)


def test_a_zip_that_is_none_or_is_cut_off_is_said(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SmileDataError, match="not a readable zip file"):
        ImageSource(tmp_path / "images.zip")
    with pytest.raises(SmileDataError, match="no such folder or zip file"):
        ImageSource(tmp_path / "nothing.zip")


def test_a_damaged_zip_member_is_said_when_it_is_read(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(range(256)) * 20)
    data = bytearray(path.read_bytes())
    data[60:80] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(SmileDataError, match="can't be"):
        ImageSource(path).read("a.jpg")
