"""One source of images, folder or zip alike. The only place that decodes untrusted bytes."""

from __future__ import annotations

import io
import os
import re
import stat
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from hf_smile.errors import SmileDataError, first_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 100_000_000

# The limit above is stricter than the size at which Pillow warns.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What Pillow finds odd in an EXIF or an animation is overlooked here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_RUN_LENGTH_BMP = (1, 2)
_JPEG_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")

# Small files that keep a decoder busy for minutes. Each limit is far above what cameras and programs write.
_MAX_READS = 200_000  # from the file, while one image is decoded: Pillow reads a part (segment, chunk) at a time
_MAX_JPEG_SCANS = 50  # of a progressive JPEG, each of which goes over the whole picture
_MAX_JPEG_SEGMENTS = 10_000
_MAX_PNG_TEXTS = 100  # compressed chunks, each of which may unpack to a megabyte


def decode_image(data: bytes) -> Image.Image:
    """Decode the bytes of a JPEG, PNG, WebP or BMP file to an upright 8-bit RGB image.

    The EXIF orientation is applied. Palette, grey, CMYK and 16-bit images become RGB, and transparent ones are laid
    on white. Of an animation the first frame is taken.

    Raises:
        SmileDataError: the bytes are no such image, are broken, or hold more than `MAX_PIXELS` pixels (checked
            before decoding, against decompression bombs).

    >>> decode_image(open("face.jpg", "rb").read()).mode  # doctest: +SKIP
    'RGB'
    """
    if not data:
        raise SmileDataError("the file is empty; copy or download it again")
    try:
        _check_parts(data)
        with Image.open(_CountingReader(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise SmileDataError(
                    f"{width} x {height} pixels are more than the limit of {MAX_PIXELS:,}; make the picture smaller"
                )
            if image.info.get("compression") in _RUN_LENGTH_BMP:  # four bytes of it can fill the memory
                raise SmileDataError("run-length encoded BMP files are not read; save it as PNG or JPEG")
            image.load()
            rgb, turn = to_rgb(image), exif_turn(image)
        del image  # and with it what its decoder holds
        return rgb if turn is None else rgb.transpose(turn)
    except SmileDataError:
        raise
    except Image.UnidentifiedImageError:
        raise SmileDataError(
            "not a JPEG, PNG, WebP or BMP image, whatever its name says, or a damaged one; save it as one of these"
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
    return SmileDataError(f"made of too many {what}, as no camera or program makes them; open it and save it again")


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
        _check_size(status.st_size)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise SmileDataError(f"can't be read: {getattr(error, 'strerror', None) or error}") from None


class ImageSource:
    """The images of a folder or a zip, by image id: the file name without folder and suffix.

    A zip is read in place. Threads may share one source.

    Args:
        path: folder (searched with its subfolders) or zip file.

    Raises:
        SmileDataError: nothing is there, the zip is broken or encrypted, or one of its members has an absolute
            path, a `..`, or is a symbolic link.

    >>> source = ImageSource("data/happy_images/happy_images.zip")  # doctest: +SKIP
    >>> decode_image(source.read("05684c70-113d-4894-920e-140edf323528")).size  # doctest: +SKIP
    (167, 167)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        if self.path.is_dir():
            names: Iterator[str] = _folder_files(self.path)
        elif self.path.is_file():
            self._zip = _open_zip(self.path)
            names = _zip_members(self._zip, self.path)
        else:
            raise SmileDataError(f"{self.path}: no such folder or zip file")
        self.names: dict[str, list[str]] = {}
        self._inner_zips: list[str] = []
        for name in names:
            # Old Windows tools write backslashes into zips, and Macs write letters and accents apart.
            plain = name if name.isascii() else unicodedata.normalize("NFC", _as_utf8(name))
            stem, _, suffix = plain.replace("\\", "/").rpartition("/")[2].rpartition(".")
            if stem and f".{suffix.lower()}" in IMAGE_SUFFIXES and not stem.startswith("._"):
                self.names.setdefault(stem, []).append(name)
            elif suffix.lower() == "zip":
                self._inner_zips.append(name)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self.names

    @property
    def why_empty(self) -> str:
        """What to say of a source without images.

        >>> ImageSource("empty.zip").why_empty  # doctest: +SKIP
        'empty.zip: no image in there (.jpg, .jpeg, .png, .webp, .bmp)'
        """
        if self._inner_zips:
            return f"{self.path}: no image in there, but another zip ({self._inner_zips[0]}); unpack that one first"
        return f"{self.path}: no image in there ({', '.join(IMAGE_SUFFIXES)})"

    def size(self, image_id: str) -> int:
        """The bytes of an image's file; 0 where it can't be looked at."""
        name = self.names[image_id][0]
        if self._zip is not None:
            return self._zip.getinfo(name).file_size
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return 0

    def read(self, image_id: str) -> bytes:
        """The encoded bytes of an image.

        Raises:
            SmileDataError: there is no such image, two files share its id, or the file is too large or unreadable.
        """
        names = self.names.get(image_id, [])
        if not names:
            raise SmileDataError(f"image missing in {self.path.name}; add it, or remove its line")
        if len(names) > 1:
            raise SmileDataError(f"two files have this id: {names[0]} and {names[1]}; rename or remove one")
        if self._zip is None:
            return read_file(self.path / names[0])
        info = self._zip.getinfo(names[0])
        _check_size(info.file_size)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Python unpacks the others without a limit, however little they claim to hold.
            raise SmileDataError("packed by an unusual method; pack the images again as an ordinary zip (deflate)")
        try:
            with self._zip.open(info) as member:
                return member.read(info.file_size)
        except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
        except Exception:  # zlib.error, struct.error and their like have no common base
            reason = "the archive is damaged here"
        raise SmileDataError(f"can't be unpacked: {reason}; make or download the zip again")


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise SmileDataError(
            f"file of {size:,} bytes is over the limit of {MAX_FILE_BYTES:,}; make the picture smaller"
        )


def _folder_files(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield Path(parent, name).relative_to(folder).as_posix()


def _as_utf8(name: str) -> str:
    """Macs write UTF-8 names into zips without saying so, and `zipfile` takes them for the letters of MS-DOS."""
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises struct.error, IndexError and others on broken bytes
        raise SmileDataError(
            f"{path}: not a readable zip file ({first_line(error)}); make or download it again"
        ) from None


def _zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[str]:
    if sum(info.compress_size for info in archive.infolist()) > path.stat().st_size:
        raise SmileDataError(f"{path}: its members lie over one another, as in a zip bomb; make the zip again")
    for info in archive.infolist():
        parts = info.filename.replace("\\", "/").split("/")
        if ".." in parts or (len(parts) > 1 and (not parts[0] or parts[0].endswith(":"))):
            raise SmileDataError(f"{path}: member {info.filename!r} points outside the archive; refused as unsafe")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise SmileDataError(f"{path}: member {info.filename!r} is a symbolic link; refused as unsafe")
        if info.flag_bits & 0x1:
            raise SmileDataError(f"{path}: member {info.filename!r} is encrypted; pack the images without a password")
        if parts[-1] and "__MACOSX" not in parts:  # a folder's name ends in a slash
            yield info.filename
