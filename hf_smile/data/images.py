"""Decode image files to upright RGB images. The only module that decodes untrusted bytes."""

from __future__ import annotations

import io
import re
import stat
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from hf_smile.errors import SmileDataError, first_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".avif", ".heic", ".heif")
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 100_000_000

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_RUN_LENGTH_BMP = (1, 2)
_JPEG_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")

# Limits against small files that keep a decoder busy for minutes, far above what cameras and programs write.
_MAX_READS = 200_000  # reads per image: Pillow reads one part (segment, chunk) at a time
_MAX_GIF_READS = 10_000  # Pillow joins the parts of a comment, each time with a copy of all earlier ones
_MAX_JPEG_SCANS = 50  # each scan of a progressive JPEG covers the whole image
_MAX_JPEG_SEGMENTS = 10_000
_MAX_PNG_TEXTS = 100  # each compressed chunk may expand to a megabyte


def decode_image(data: bytes) -> Image.Image:
    """Decode the bytes of a JPEG, PNG, WebP, BMP, GIF, AVIF or HEIC file to an upright 8-bit RGB image.

    The EXIF or XMP orientation is applied and removed. Palette, grey, CMYK and 16-bit images are converted to RGB, and
    transparent ones are put on a white background. Only the first frame of an animation is used. HEIC needs the package
    pillow-heif (`pip install 'hf_smile[heif]'`).

    Raises:
        TypeError: if `data` is not bytes.
        SmileDataError: if the bytes are not such an image, are damaged, or have more than `MAX_PIXELS` pixels (checked
            before decoding, against decompression bombs).

    >>> decode_image(open("face.jpg", "rb").read()).mode  # doctest: +SKIP
    'RGB'
    """
    if not isinstance(data, bytes):
        raise TypeError(f"an encoded image must be bytes, not {type(data).__name__}")
    if not data:
        raise SmileDataError("the file is empty; copy or download it again")
    try:
        _check_parts(data)
        with Image.open(_CountingReader(data), formats=_formats_of(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise SmileDataError(
                    f"{width} x {height} pixels are more than the limit of {MAX_PIXELS:,}; make the image smaller"
                )
            if image.info.get("compression") in _RUN_LENGTH_BMP:  # four such bytes can fill the memory
                raise SmileDataError("run-length encoded BMP files are not supported; save it as PNG or JPEG")
            image.load()
            if image.mode == "P" and image.palette is None:
                raise ValueError("no palette")
            pixels = _sharing_pixels(image)
        del image  # frees the decoder, whose buffers can be twice as large as the image
        return upright_rgb(pixels, keep=False)
    except SmileDataError:
        raise
    except Image.UnidentifiedImageError:
        raise SmileDataError(
            "not a JPEG, PNG, WebP, BMP, GIF, AVIF or HEIC image (whatever its name says), or damaged; "
            "save it in one of these formats"
        ) from None
    except Image.DecompressionBombError:
        raise SmileDataError(f"more pixels than the limit of {MAX_PIXELS:,}; make the image smaller") from None
    except Exception as error:  # Pillow's decoders raise many types on broken bytes, even struct.error and SyntaxError
        raise SmileDataError(f"can't be decoded: {decoding_problem(error)}") from None


def decoding_problem(error: Exception) -> str:
    """Pillow's own message; for low-level errors such as struct.error, only that the file is damaged."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    reason = first_line(error) if isinstance(error, OSError) and str(error) else "its data are invalid"
    return f"{reason}; the file is damaged, copy or export it again"


def _formats_of(data: bytes) -> tuple[str, ...]:
    """The formats Pillow may try. HEIC files are recognized by their brand; pillow-heif is loaded for them.

    Raises:
        SmileDataError: if it is a HEIC file and pillow-heif is not installed.
    """
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 100)] if data[4:8] == b"ftyp" else b""
    if b"avif" in brands or b"avis" in brands or not any(brand in brands for brand in _HEIF_BRANDS):
        return _FORMATS
    if not _can_read_heif():
        raise SmileDataError("a HEIC image, which needs pillow-heif: pip install 'hf_smile[heif]'")
    return ("HEIF",)


@cache
def _can_read_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def upright_rgb(image: Image.Image, keep: bool = True) -> Image.Image:
    """Convert to 8-bit RGB and apply the EXIF or XMP orientation. Metadata is removed, so it is not applied twice.

    Args:
        image: any image.
        keep: whether the caller still needs `image`. If not, the result may share its pixels in memory. Copying a photo
            of 12 megapixels takes longer than finding its faces.

    >>> sideways = Image.new("RGB", (4, 6))
    >>> sideways.getexif()[ExifTags.Base.Orientation] = 6
    >>> upright_rgb(sideways).size, upright_rgb(upright_rgb(sideways)).size
    ((6, 4), (6, 4))
    """
    turn = exif_turn(image)
    upright = to_rgb(image)
    if turn is not None:
        upright = upright.transpose(turn)
    elif upright is image:
        upright = image.copy() if keep else _sharing_pixels(image)
    upright.info = {}
    return upright


def _sharing_pixels(image: Image.Image) -> Image.Image:
    """An image with the same pixels in memory, and the same metadata. Pillow has no public call for this."""
    return image._new(image.im)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB: 16-bit values are scaled, transparent pixels are put on white. No copy of RGB."""
    if image.mode in _SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255 instead of scaling.
        pixels = np.asarray(image)
        grey = (pixels.clip(0, 65535) >> 8).astype(np.uint8)
        if "transparency" in image.info:
            grey[pixels == image.info["transparency"]] = 255
        image = Image.fromarray(grey)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_turn(image: Image.Image) -> Image.Transpose | None:
    """The transpose that turns an image upright, by its EXIF orientation (CIPA DC-008, tag 0x0112); None for no change.

    `ImageOps.exif_transpose` fails on damaged EXIF data, which viewers ignore, and needs memory for another copy.

    >>> exif_turn(Image.new("RGB", (4, 4))) is None
    True
    """
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as above: struct.error, SyntaxError and others
        return None


class _CountingReader(io.BytesIO):
    """A byte stream that limits the number of reads."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.left = _MAX_GIF_READS if data.startswith(b"GIF") else _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise _too_many_parts("pieces")
        return super().read(size)


def _check_parts(data: bytes) -> None:
    """Refuse PNG files with a wrong checksum, and files with so many parts that decoding takes minutes."""
    if data.startswith(b"\x89PNG"):
        if sum(map(data.count, (b"iCCP", b"iTXt", b"zTXt"))) > _MAX_PNG_TEXTS:
            raise _too_many_parts("texts and profiles")
        # Pillow checks the checksums of the pixels only in `verify`. Without it, wrong pixels may go unnoticed.
        with Image.open(_CountingReader(data), formats=("PNG",)) as image:
            image.verify()
    elif data.startswith(b"\xff\xd8"):
        place = scans = segments = 0
        while match := _JPEG_SEGMENT.search(data, place):
            if match[1] == b"\xd9":  # the end; phones may append a video
                break
            scans += match[1] == b"\xda"
            segments += 1
            if scans > _MAX_JPEG_SCANS or segments > _MAX_JPEG_SEGMENTS:
                raise _too_many_parts("scans" if scans > _MAX_JPEG_SCANS else "segments")
            # Skip the segment by its length, because its content may look like a marker.
            place = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")


def _too_many_parts(what: str) -> SmileDataError:
    return SmileDataError(f"it has too many {what}, unlike files from a camera or program; open and save it again")


def encoded_bytes(image: dict[str, Any] | bytes | None) -> bytes:
    """The encoded bytes of an undecoded `datasets.Image`, which may store a path instead (as in a Hub image folder).

    Parquet files of other origin may have the bytes alone, or nothing.

    Raises:
        SmileDataError: the row has no image, or its file can't be read; see `read_file`.
    """
    content, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
    if isinstance(content, bytes):
        return content
    if isinstance(path, str):
        return read_file(Path(path))
    raise SmileDataError("this row has no image")


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        SmileDataError: if the file can't be read, is too large, or is not a regular file (reading a pipe would block).
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SmileDataError("not a regular file; put a copy of the image there")
        check_size(status.st_size)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise SmileDataError(f"can't be read: {getattr(error, 'strerror', None) or error}") from None


def check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise SmileDataError(f"its {size:,} bytes are over the limit of {MAX_FILE_BYTES:,}; make the image smaller")
