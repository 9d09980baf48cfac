"""Bytes from anywhere -> upright RGB images, or one plain message."""

import io
import os
import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_smile.data import images
from hf_smile.data.images import ImageSource, decode_image, encoded_bytes
from hf_smile.errors import SmileDataError


def encode(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (6, 4), (255, 0, 0))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_every_format_is_decoded_to_rgb(image_format):
    image = decode_image(encode(RED, image_format))
    assert (image.mode, image.size) == ("RGB", (6, 4))
    red, green, blue = image.getpixel((3, 2))
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA"])
def test_every_colour_mode_becomes_rgb_with_the_same_look(mode):
    white = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    image = decode_image(encode(white, "JPEG" if mode == "CMYK" else "PNG"))
    assert image.mode == "RGB"
    assert min(image.getpixel((3, 2))) >= 254


def test_16_bit_greys_are_scaled_not_clipped():
    grey = Image.fromarray(np.full((4, 6), 32768, dtype=np.uint16))
    assert decode_image(encode(grey)).getpixel((3, 2)) == (128, 128, 128)


def test_transparent_pixels_show_white():
    assert decode_image(encode(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (5, 3)), (6, (3, 0)), (8, (0, 5))])
def test_exif_orientation_turns_the_image_upright(orientation, corner):
    image = RED.copy()
    image.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode_image(encode(image, exif=exif))
    assert upright.getpixel(corner) == (0, 0, 255)


def png_header_of(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(SmileDataError, match="pixels"):
        decode_image(png_header_of(side, side))


@pytest.mark.parametrize(
    "data",
    [b"not an image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a" + bytes(20), b"\xff\xd8\xff"],
)
def test_what_is_no_image_is_said_in_words(data):
    with pytest.raises(SmileDataError, match="not a JPEG, PNG, WebP or BMP image"):
        decode_image(data)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_truncated_image_will_not_decode(image_format):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), image_format)
    with pytest.raises(SmileDataError):
        decode_image(data[: len(data) // 2])


@pytest.fixture(params=["folder", "zip"])
def make_source(request, tmp_path):
    """Files by name -> the same `ImageSource` over a folder and over a zip."""

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
    assert {name: source.read(name) for name in "abcde"} == dict(
        zip("abcde", [b"1", b"2", b"3", b"4", b"5"], strict=True)
    )


def test_names_from_old_windows_tools_and_from_macs_are_found(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("happy\\a.jpg", b"1")
        archive.writestr("u\u0308.jpg", b"2")
    source = ImageSource(tmp_path / "images.zip")
    assert source.read("a") == b"1"
    assert source.read("\u00fc") == b"2"


def test_other_files_are_no_images(make_source):
    source = make_source({"a.jpg": b"1", "readme.txt": b"", "b.gif": b"", "._c.jpg": b"", "__pycache__/d.py": b""})
    assert list(source.names) == ["a"]


def test_a_missing_image_and_a_doubled_id_are_said(make_source):
    source = make_source({"x/a.jpg": b"1", "y/a.png": b"2"})
    with pytest.raises(SmileDataError, match="image missing"):
        source.read("b")
    with pytest.raises(SmileDataError, match=r"two files have this id: x/a\.jpg and y/a\.png"):
        source.read("a")


def test_a_file_over_the_size_limit_is_refused(make_source, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    source = make_source({"a.jpg": bytes(101), "b.jpg": bytes(100)})
    assert source.read("b") == bytes(100)
    with pytest.raises(SmileDataError, match="over the limit"):
        source.read("a")


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
    data[central + 8] |= 1  # the flag that says encrypted
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
        ImageSource(path).read("a")


def test_a_path_in_a_data_set_is_read_as_one_in_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    for path, message in (("pipe.png", "not a regular file"), ("gone.png", "can't be read")):
        with pytest.raises(SmileDataError, match=message):
            encoded_bytes({"bytes": None, "path": str(tmp_path / path)})
