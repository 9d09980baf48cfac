"""Sources of encoded images: a folder, or a zip file that is read in place."""

from __future__ import annotations

import os
import sqlite3
import stat
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from hf_smile.data.images import IMAGE_SUFFIXES, check_size, read_file
from hf_smile.errors import SmileDataError, first_line

_OTHER_PICTURES = (".tif", ".tiff", ".jp2", ".jxl", ".dng", ".heics", ".jfif")
_TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".ods", ".txt", ".json", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


class Images(Protocol):
    """The images that the column `file` of an annotation table refers to."""

    path: Path

    def read(self, file: str) -> bytes:
        """The encoded bytes of an image. Raises SmileDataError if it can't be read."""

    def stamp(self, file: str) -> str | None:
        """A string that changes when the file changes; None if the file can't be accessed."""


class ImageSource:
    """The images of a folder (with its subfolders) or a zip file, by their path inside it.

    The list of names is kept on disk, so memory use does not grow with it. Reading is thread-safe.

    Args:
        path: folder or zip file.

    Attributes:
        tables: up to 10 files that may contain annotations.
        unread: number of images in unsupported formats, by suffix.
        metadata: files `metadata.csv`, `.jsonl` or `.parquet`.
        inner_zips: zip files inside the source, which are not read.
        wrapper: the folder that contains all images, as is common in archives; otherwise empty.

    Raises:
        SmileDataError: if the path does not exist, the zip is damaged or encrypted, or one of its members has an
            absolute path, contains `..`, or is a symbolic link.

    >>> source = ImageSource("data/happy_images/happy_images.zip")  # doctest: +SKIP
    >>> source.find("05684c70-113d-4894-920e-140edf323528")  # doctest: +SKIP
    'happy_images/05684c70-113d-4894-920e-140edf323528.jpg'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._doubled: set[str] = set()
        if self.path.is_dir():
            names = _folder_files(self.path)
        elif self.path.is_file():
            self._zip = _open_zip(self.path)
            names = _zip_members(self._zip, self.path)
            self._doubled = {name for name, count in Counter(self._zip.namelist()).items() if count > 1}
            self._zip_stamp = stamp_of(self.path.stat())
        else:
            raise SmileDataError(f"{self.path}: no such folder or zip file")
        self.tables: list[str] = []
        self.unread: Counter[str] = Counter()
        self.metadata: list[str] = []
        self.inner_zips: list[str] = []
        self._root = f"{self.path.stem if self._zip else self.path.resolve().name}/"
        # Without a name, SQLite keeps the database in a temporary file of its own.
        self._index = sqlite3.connect("", check_same_thread=False)
        self._index.execute("CREATE TABLE images (tail BLOB, name BLOB)")
        rows = ((self._tail(name), _to_bytes(name)) for name in names if self._is_image(name))
        self._index.executemany("INSERT INTO images VALUES (?, ?)", rows)
        self._index.execute("CREATE INDEX by_tail ON images (tail)")
        self.wrapper = self._common_folder()

    def __len__(self) -> int:
        return self._index.execute("SELECT count(*) FROM images").fetchone()[0]

    @property
    def names(self) -> Iterator[str]:
        """The paths of all images, in the order of the folder or zip."""
        for (name,) in self._index.execute("SELECT name FROM images ORDER BY rowid"):
            yield _from_bytes(name)

    @property
    def why_empty(self) -> str:
        """The error message for a source without images.

        >>> ImageSource("empty.zip").why_empty  # doctest: +SKIP
        'empty.zip contains no images (.jpg, .jpeg, .png, .webp, .bmp, .gif, .avif, .heic, .heif)'
        """
        if self.inner_zips:
            instead = "another zip ({}); unpack that one first" if self._zip else "a zip ({}); name or unpack that one"
            return f"{self.path} contains no images, but {instead.format(self.inner_zips[0])}"
        return f"{self.path} contains no images ({', '.join(IMAGE_SUFFIXES)})"

    def find(self, text: str) -> str:
        """Find the one image that a cell of the annotations names.

        Args:
            text: path inside the folder or zip, `person0/000.jpg`, or a file name in any of its folders, `000.jpg`.
                The suffix may be omitted. A path may be relative to the folder or zip, to its parent, or to the folder
                that contains all images. A file name must be unique, unless the file is at the top level.

        Raises:
            SmileDataError: if no image or more than one matches, or the path leaves the folder.

        >>> ImageSource("faces").find("person0/000")  # doctest: +SKIP
        'person0/000.jpg'
        """
        text = text.removeprefix("./")
        if leaves_folder(text):
            raise SmileDataError("the path leaves the folder of the images; use a path inside it")
        stem, suffix = _split_suffix(text)
        tail = _reversed(f"/{stem}")
        rows = self._index.execute("SELECT name FROM images WHERE tail >= ? AND tail < ?", (tail, tail[:-1] + b"0"))
        found = [_from_bytes(name) for (name,) in rows]
        same_suffix = [name for name in found if not suffix or name.lower().endswith(suffix.lower())]
        exact = [name for name in same_suffix if _plain(name) in self._seen_from_all_sides(text)]
        if not exact and ("/" in text or suffix):
            whole = self._seen_from_all_sides(stem)
            exact = [name for name in same_suffix if _split_suffix(_plain(name))[0] in whole]
        matches = exact or ([] if "/" in text else same_suffix)
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise SmileDataError(f"two files have this name: {matches[0]} and {matches[1]}; write the path of one")
        instead = f"did you mean {found[0]}?" if found else "add it, or remove its line"
        raise SmileDataError(f"image missing in {self.path.name}; {instead}")

    def exact(self, path: str) -> str:
        """Like `find`, but only accepts the exact path of a file inside the folder, for untrusted annotations.

        Raises:
            SmileDataError: if there is no such image, or the path or a link leaves the folder.
        """
        if leaves_folder(path):
            raise SmileDataError("the path leaves the folder; refused as unsafe")
        tail = self._tail(path)
        for (row,) in self._index.execute("SELECT name FROM images WHERE tail = ?", (tail,)):
            name = _from_bytes(row)
            if _plain(name) != path.removeprefix("./"):
                continue
            if self._zip is None and not (self.path / name).resolve().is_relative_to(self.path.resolve()):
                raise SmileDataError("a link that leaves the folder; refused as unsafe")
            return name
        raise SmileDataError(f"image missing in {self.path.name}; add it, or remove its line")

    def stamp(self, file: str) -> str | None:
        """Size and times of the image, or of the zip file that contains it."""
        if self._zip is not None:
            return self._zip_stamp
        try:
            return stamp_of((self.path / file).stat())
        except OSError:
            return None

    def size(self, file: str) -> int:
        """The size of an image file in bytes; 0 if it can't be accessed."""
        if self._zip is not None:
            return self._zip.getinfo(file).file_size
        try:
            return (self.path / file).stat().st_size
        except OSError:
            return 0

    def read(self, file: str) -> bytes:
        """The encoded bytes of an image.

        Raises:
            SmileDataError: if the zip contains two files with this name, or the file is too large or unreadable.
        """
        if self._zip is None:
            return read_file(self.path / file)
        if file in self._doubled:
            raise SmileDataError(f"the zip contains two files named {file}; rename or remove one")
        info = self._zip.getinfo(file)
        check_size(info.file_size)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Python decompresses other methods without a size limit, whatever size they declare.
            raise SmileDataError("unusual compression method; pack the images again as an ordinary zip (deflate)")
        try:
            with self._zip.open(info) as member:
                return member.read(info.file_size)
        except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
        except Exception:  # zlib.error, struct.error and others have no common base class
            reason = "the zip is damaged here"
        raise SmileDataError(f"can't be unpacked: {reason}; create or download the zip again")

    def _seen_from_all_sides(self, path: str) -> tuple[str, ...]:
        return path, path.removeprefix(self._root), self.wrapper + path

    def _common_folder(self) -> str:
        common: list[str] | None = None
        for name in self.names:
            folders = _plain(name).split("/")[:-1]
            common = folders if common is None else [a for a, b in zip(common, folders, strict=False) if a == b]
            if not common:
                return ""
        return "/".join([*(common or []), ""])

    def _is_image(self, name: str) -> bool:
        base = _plain(name).rpartition("/")[2]
        stem, suffix = _split_suffix(base)
        if base in METADATA:
            self.metadata.append(name)
        elif base.lower().endswith(".zip"):
            self.inner_zips.append(name)
        elif base.lower().endswith(_TABLES) and len(self.tables) < 10:
            self.tables.append(name)
        elif base.lower().endswith(_OTHER_PICTURES):
            self.unread[base.lower().rpartition(".")[2]] += 1
        return bool(stem and suffix) and not base.startswith("._")

    def _tail(self, name: str) -> bytes:
        """The path without its suffix, reversed, so that the index groups paths with the same ending."""
        return _reversed(f"/{self._root}{_split_suffix(_plain(name.removeprefix('./')))[0]}")


def leaves_folder(path: str) -> bool:
    """Whether a path from an annotation file is absolute, starts with a drive or a URL scheme, or contains `..`.

    >>> leaves_folder("../a.jpg"), leaves_folder("C:/a.jpg"), leaves_folder("person0/a.jpg")
    (True, True, False)
    """
    parts = path.split("/")
    return ".." in parts or (len(parts) > 1 and (not parts[0] or parts[0].endswith(":")))


def plain_path(text: str) -> str:
    """Normalize a path for comparison: Unicode NFC, and slashes instead of the backslashes of old Windows tools.

    >>> plain_path(" person0\\\\000.jpg")
    'person0/000.jpg'
    """
    return unicodedata.normalize("NFC", text.strip()).replace("\\", "/").rstrip("/")


def _plain(name: str) -> str:
    return name.replace("\\", "/") if name.isascii() else plain_path(_as_utf8(name))


def _split_suffix(path: str) -> tuple[str, str]:
    stem, dot, suffix = path.rpartition(".")
    return (stem, dot + suffix) if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else (path, "")


def _reversed(path: str) -> bytes:
    return _to_bytes(path)[::-1]


def _to_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")  # a file name may not be valid text


def _from_bytes(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def stamp_of(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"  # tools may restore mtime, but not ctime


def _folder_files(folder: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to one of its parent folders
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            yield Path(parent, name).relative_to(folder).as_posix()


def _as_utf8(name: str) -> str:
    """Undo a wrong decoding: macOS writes UTF-8 names into zips without the flag, and `zipfile` reads them as cp437."""
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises struct.error, IndexError and others on broken bytes
        raise SmileDataError(
            f"{path}: not a readable zip file ({first_line(error)}); create or download it again"
        ) from None


def _zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[str]:
    if sum(info.compress_size for info in archive.infolist()) > path.stat().st_size:
        raise SmileDataError(f"{path}: its entries overlap, as in a zip bomb; create the zip again")
    for info in archive.infolist():
        parts = info.filename.replace("\\", "/").split("/")
        if leaves_folder("/".join(parts)):
            raise SmileDataError(f"{path}: member {info.filename!r} points outside the archive; refused as unsafe")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise SmileDataError(f"{path}: member {info.filename!r} is a symbolic link; refused as unsafe")
        if info.flag_bits & 0x1:
            raise SmileDataError(f"{path}: member {info.filename!r} is encrypted; pack the images without a password")
        if parts[-1] and "__MACOSX" not in parts:  # a folder's name ends in a slash
            yield info.filename
