"""Image files are decoded to upright RGB images, or refused with one clear message."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_smile.data import images
from hf_smile.data.images import decode_image, encoded_bytes, upright_rgb
from hf_smile.errors import SmileDataError


def encode(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (6, 4), (255, 0, 0))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF"])
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
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    for image_format in ("PNG", "GIF"):
        assert decode_image(encode(clear, image_format)).getpixel((0, 0)) == (255, 255, 255)


def test_of_an_animation_the_first_frame_is_taken():
    for image_format in ("PNG", "WEBP", "GIF"):
        film = encode(RED, image_format, save_all=True, append_images=[Image.new("RGB", RED.size, "blue")])
        assert decode_image(film).getpixel((3, 2))[0] > 240


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (5, 3)), (6, (3, 0)), (8, (0, 5))])
def test_exif_orientation_turns_the_image_upright(orientation, corner):
    image = RED.copy()
    image.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode_image(encode(image, exif=exif))
    assert upright.getpixel(corner) == (0, 0, 255)


def test_a_picture_that_was_turned_is_not_turned_again():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode_image(encode(RED, "JPEG", exif=exif))
    assert upright.size == (4, 6) and upright.info == {}
    assert upright_rgb(upright).size == upright_rgb(upright.crop((0, 0, 4, 6))).size == (4, 6)


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_of_the_caller_and_its_upright_copy_do_not_share_pixels(orientation):
    image = RED.copy()
    image.getexif()[0x0112] = orientation
    upright_rgb(image).paste("white", (0, 0, 6, 6))
    assert image.getcolors() == [(24, (255, 0, 0))]


def test_a_decoded_image_has_nothing_of_its_file():
    exif = Image.Exif()
    exif[0x010E] = "secret"
    image = decode_image(encode(RED, "JPEG", exif=exif, comment="secret"))
    assert type(image) is Image.Image and image.info == {} and not image.getexif()
    assert b"secret" not in encode(image, "JPEG")


@pytest.fixture
def heic() -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (255, 0, 0))).save(file)
    return file.getvalue()


def test_heic_is_decoded_within_the_same_limits(heic, monkeypatch):
    image = decode_image(heic)
    assert (image.mode, image.size) == ("RGB", (64, 48)) and image.getpixel((3, 2))[0] > 240
    with pytest.raises(SmileDataError):
        decode_image(heic[: len(heic) // 2])
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(SmileDataError, match="64 x 48 pixels are more than the limit"):
        decode_image(heic)


def test_without_its_package_heic_names_it(monkeypatch):
    monkeypatch.setattr(images, "_can_read_heif", lambda: False)
    with pytest.raises(SmileDataError, match=r"HEIC image, which needs pillow-heif: pip install 'hf_smile\[heif\]'"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


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
    [b"not an image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"II*\0" + bytes(20), b"\xff\xd8\xff"],
)
def test_what_is_no_image_is_said_in_words(data):
    with pytest.raises(SmileDataError, match="not a JPEG, PNG, WebP, BMP, GIF, AVIF or HEIC image"):
        decode_image(data)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_a_truncated_image_will_not_decode(image_format):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), image_format)
    with pytest.raises(SmileDataError):
        decode_image(data[: len(data) // 2])


def test_a_path_in_a_data_set_is_read_as_one_in_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # opening it would block forever
    for path, message in (("pipe.png", "not a regular file"), ("gone.png", "can't be read")):
        with pytest.raises(SmileDataError, match=message):
            encoded_bytes({"bytes": None, "path": str(tmp_path / path)})
