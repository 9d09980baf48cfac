"""One source of images, folder or zip alike. The only place that decodes untrusted bytes."""

from __future__ import annotations

import io
import os
import stat
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from hf_smile.errors import SmileDataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 100_000_000

# The limit above is stricter than the size at which Pillow warns.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


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
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise SmileDataError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS:,}")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except SmileDataError:
        raise
    except Image.UnidentifiedImageError:
        raise SmileDataError("not a JPEG, PNG, WebP or BMP image") from None
    except Image.DecompressionBombError:
        raise SmileDataError(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    except Exception as error:  # Pillow's decoders raise many types on broken bytes, struct.error and SyntaxError too
        raise SmileDataError(f"will not decode: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image of any mode: 16-bit values are scaled, transparent ones are laid on white."""
    if image.mode in _SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255 instead of scaling.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def encoded_bytes(image: dict[str, Any]) -> bytes:
    """The file of an undecoded `datasets.Image`: its bytes, or what its path holds (as in a Hub image folder).

    Raises:
        SmileDataError: the file can't be read.
    """
    if image["bytes"] is not None:
        return image["bytes"]
    try:
        return Path(image["path"]).read_bytes()
    except OSError as error:
        raise SmileDataError(f"can't be read: {error}") from None


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
            pure = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
            if pure.suffix.lower() in IMAGE_SUFFIXES and not pure.name.startswith("._"):
                self.names.setdefault(pure.stem, []).append(name)
            elif pure.suffix.lower() == ".zip":
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

    def read(self, image_id: str) -> bytes:
        """The encoded bytes of an image.

        Raises:
            SmileDataError: there is no such image, two files share its id, or the file is too large or unreadable.
        """
        names = self.names.get(image_id, [])
        if not names:
            raise SmileDataError(f"image missing in {self.path.name}")
        if len(names) > 1:
            raise SmileDataError(f"two files have this id: {names[0]} and {names[1]}")
        try:
            if self._zip is None:
                file = self.path / names[0]
                status = file.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise SmileDataError("not a regular file")
                _check_size(status.st_size)
                return file.read_bytes()
            info = self._zip.getinfo(names[0])
            _check_size(info.file_size)
            return self._zip.read(info)
        except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
            raise SmileDataError(f"can't be read: {error}") from None
        except Exception as error:  # zlib.error, lzma.LZMAError and their like have no common base
            raise SmileDataError(f"can't be unpacked: {error}") from None


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise SmileDataError(f"file of {size:,} bytes is over the limit of {MAX_FILE_BYTES:,}")


def _folder_files(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield Path(parent, name).relative_to(folder).as_posix()


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise SmileDataError(f"{path}: not a readable zip file ({error}); make or download it again") from None


def _zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[str]:
    for info in archive.infolist():
        pure = PurePosixPath(info.filename.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or (pure.parts[:1] and pure.parts[0].endswith(":")):
            raise SmileDataError(f"{path}: member {info.filename!r} points outside the archive; refused as unsafe")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise SmileDataError(f"{path}: member {info.filename!r} is a symbolic link; refused as unsafe")
        if info.flag_bits & 0x1:
            raise SmileDataError(f"{path}: member {info.filename!r} is encrypted; pack the images without a password")
        if not info.is_dir() and "__MACOSX" not in pure.parts:
            yield info.filename
