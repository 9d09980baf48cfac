"""Encoded bytes -> upright RGB images. The only place that decodes bytes that come from outside."""

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

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif", ".heic", ".heif")
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 100_000_000

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_RUN_LENGTH_BMP = (1, 2)
_JPEG_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")

# Small files that keep a decoder busy for minutes. Each limit is far above what cameras and programs write.
_MAX_READS = 200_000  # from the file, while one image is decoded: Pillow reads a part (segment, chunk) at a time
_MAX_JPEG_SCANS = 50  # of a progressive JPEG, each of which goes over the whole picture
_MAX_JPEG_SEGMENTS = 10_000
_MAX_PNG_TEXTS = 100  # compressed chunks, each of which may unpack to a megabyte


def decode_image(data: bytes) -> Image.Image:
    """Decode the bytes of a JPEG, PNG, WebP, BMP, AVIF or HEIC file to an upright 8-bit RGB image.

    The orientation that EXIF or XMP gives is applied, and gone from the result. Palette, grey, CMYK and 16-bit images
    become RGB, and transparent ones are laid on white. Of an animation the first frame is taken. HEIC needs the package
    pillow-heif (`pip install 'hf_smile[heif]'`).

    Raises:
        TypeError: they are not bytes.
        SmileDataError: the bytes are no such image, are broken, or hold more than `MAX_PIXELS` pixels (checked
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
                    f"{width} x {height} pixels are more than the limit of {MAX_PIXELS:,}; make the picture smaller"
                )
            if image.info.get("compression") in _RUN_LENGTH_BMP:  # four bytes of it can fill the memory
                raise SmileDataError("run-length encoded BMP files are not read; save it as PNG or JPEG")
            image.load()
            upright = upright_rgb(image)
        del image  # and with it what its decoder holds
        return upright
    except SmileDataError:
        raise
    except Image.UnidentifiedImageError:
        raise SmileDataError(
            "not a JPEG, PNG, WebP, BMP, AVIF or HEIC image, whatever its name says, or a damaged one; "
            "save it as one of these"
        ) from None
    except Image.DecompressionBombError:
        raise SmileDataError(f"more pixels than the limit of {MAX_PIXELS:,}; make the picture smaller") from None
    except Exception as error:  # Pillow's decoders raise many types on broken bytes, struct.error and SyntaxError too
        raise SmileDataError(f"will not decode: {decoding_problem(error)}") from None


def decoding_problem(error: Exception) -> str:
    """What Pillow says in words of its own; of the rest (struct.error and the like) only that the file is damaged."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    reason = first_line(error) if isinstance(error, OSError) and str(error) else "its data are not what they should be"
    return f"{reason}; the file is damaged, copy or export it again"


def _formats_of(data: bytes) -> tuple[str, ...]:
    """What Pillow may try. HEIC files say by their brand what they are; for them pillow-heif is loaded.

    Raises:
        SmileDataError: it is one, and pillow-heif is not installed.
    """
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 100)] if data[4:8] == b"ftyp" else b""
    if b"avif" in brands or b"avis" in brands or not any(brand in brands for brand in _HEIF_BRANDS):
        return _FORMATS
    if not _can_read_heif():
        raise SmileDataError("a HEIC picture, which needs pillow-heif: pip install 'hf_smile[heif]'")
    return ("HEIF",)


@cache
def _can_read_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def upright_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a decoded image, turned as its EXIF or XMP says, without metadata: nothing turns it a second time.

    >>> sideways = Image.new("RGB", (4, 6))
    >>> sideways.getexif()[ExifTags.Base.Orientation] = 6
    >>> upright_rgb(sideways).size, upright_rgb(upright_rgb(sideways)).size
    ((6, 4), (6, 4))
    """
    turn = exif_turn(image)
    upright = to_rgb(image)
    upright = upright if turn is None else upright.transpose(turn)
    upright.info = {}
    return upright


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image of any mode: 16-bit values are scaled, transparent ones are laid on white."""
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
    return image.convert("RGB")


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
    """What puts an image upright, by its EXIF orientation (CIPA DC-008, tag 0x0112). A damaged EXIF asks for nothing.

    `ImageOps.exif_transpose` gives up on a damaged EXIF, which viewers overlook, and holds one more copy in memory.

    >>> exif_turn(Image.new("RGB", (4, 4))) is None
    True
    """
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as above: struct.error, SyntaxError and others
        return None


class _CountingReader(io.BytesIO):
    """Bytes that can be read so many times and no more."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise _too_many_parts("pieces")
        return super().read(size)


def _check_parts(data: bytes) -> None:
    """Refuse a PNG with a wrong checksum, and files whose parts, each of them harmless, would take minutes together."""
    if data.startswith(b"\x89PNG"):
        if sum(map(data.count, (b"iCCP", b"iTXt", b"zTXt"))) > _MAX_PNG_TEXTS:
            raise _too_many_parts("texts and profiles")
        # Pillow compares the checksums of the pixels here alone; else a picture with wrong pixels may come out.
        with Image.open(_CountingReader(data), formats=("PNG",)) as image:
            image.verify()
    elif data.startswith(b"\xff\xd8"):
        place = scans = segments = 0
        while match := _JPEG_SEGMENT.search(data, place):
            if match[1] == b"\xd9":  # the end; phones put a clip behind it
                break
            scans += match[1] == b"\xda"
            segments += 1
            if scans > _MAX_JPEG_SCANS or segments > _MAX_JPEG_SEGMENTS:
                raise _too_many_parts("scans" if scans > _MAX_JPEG_SCANS else "segments")
            # A segment says how long it is, so that what looks like a marker inside of it is passed over.
            place = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")


def _too_many_parts(what: str) -> SmileDataError:
    return SmileDataError(f"made of too many {what}, no camera or program writes such a file; open and save it again")


def encoded_bytes(image: dict[str, Any]) -> bytes:
    """The file of an undecoded `datasets.Image`: its bytes, or what its path holds (as in a Hub image folder).

    Raises:
        SmileDataError: as `read_file`.
    """
    if image["bytes"] is not None:
        return image["bytes"]
    return read_file(Path(image["path"]))


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        SmileDataError: it can't be read, is too large, or is no regular file (a pipe would be waited for).
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
        raise SmileDataError(f"its {size:,} bytes are over the limit of {MAX_FILE_BYTES:,}; make the picture smaller")
