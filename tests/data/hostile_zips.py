"""Archives as nobody should send them: made by code, each with what must come out of it."""

from __future__ import annotations

import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from hostile_images import PNG

FACE = PNG()
Members = list[tuple[str | zipfile.ZipInfo, bytes]]


@dataclass(frozen=True)
class ZipCase:
    """A file that claims to be a zip of images."""

    name: str
    write: Callable[[Path], None]
    images: dict[str, bytes | str] = field(default_factory=dict)
    """By id: its bytes, or what must be said of it."""
    says: str | None = None
    """What must be said of the whole; None where it must open."""
    total: int | None = None
    """How many images there are, where `images` does not name them all."""


def zip_cases() -> Iterator[ZipCase]:
    for group in (paths, names, sealed, doubled, bombs, lies, broken, found_by_fuzzing):
        for case in group():
            yield ZipCase(f"{group.__name__}/{case.name}", case.write, case.images, case.says, case.total)


def pack(members: Members, path: Path, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)


def of(*names: str) -> Callable[[Path], None]:
    return partial(pack, [(name, FACE) for name in names])


def paths() -> Iterator[ZipCase]:
    for name in (
        *(
            "../evil.jpg",
            "a/../../evil.jpg",
            "a/..",
            "../",
            "..",
            "..\\evil.jpg",
            "a\\..\\..\\evil.jpg",
            "a/../evil.jpg",
        ),
        *("/evil.jpg", "//host/evil.jpg", "\\evil.jpg", "\\\\host\\share\\evil.jpg", "C:/evil.jpg", "c:\\evil.jpg"),
    ):
        yield ZipCase(f"{name!r}", of("a.jpg", name), says="points outside the archive")
    for name, image_id in {
        "..evil.jpg": "..evil",
        "a..b/evil..jpg": "evil.",
        "./a.jpg": "a",
        "a//b.jpg": "b",
        "C:evil.jpg": "C:evil",
        "~/a.jpg": "a",
        "$(id).jpg": "$(id)",
        "a;id;.jpg": "a;id;",
        "=1+1.jpg": "=1+1",
        "CON.jpg": "CON",
        "-rf.jpg": "-rf",
        "a.jpg.exe.jpg": "a.jpg.exe",
        "%2e%2e%2fa.jpg": "%2e%2e%2fa",
        "a\n\x1b[31m.jpg": "a\n\x1b[31m",
    }.items():
        yield ZipCase(f"harmless {name!r}", of(name), {image_id: FACE})
    for name in ("a.jpg/", ".jpg", "a.jpg.exe", "__MACOSX/a.jpg", "._a.jpg", "a.gif", "jpg", "a.jpg\0.exe"):
        images = {"a": FACE} if "\0" in name else {}
        yield ZipCase(f"no image {name!r}", of(name, "b.jpg"), {**images, "b": FACE})
    for kind in (stat.S_IFLNK, stat.S_IFLNK | 0o777):
        link = zipfile.ZipInfo("a.jpg")
        link.external_attr = kind << 16
        yield ZipCase(f"symbolic link {kind:o}", partial(pack, [(link, b"/etc/passwd")]), says="is a symbolic link")


def names() -> Iterator[ZipCase]:
    for name in (
        "улыбка",
        "笑顔",
        "ابتسامة",
        "חיוך",
        "😀",
        "ยิ้ม",
        "e\u0301t\u00e9",
        "ｆｕｌｌ",
        "a\u200db",
        "写真　1",
        "\u202egpj.a",
    ):
        composed = {"e\u0301t\u00e9": "\u00e9t\u00e9"}.get(name, name)
        yield ZipCase(f"{name!a}", of(f"{name}.jpg"), {composed: FACE})
        yield ZipCase(f"{name!a} as Macs write it", partial(pack_unsaid, f"{name}.jpg"), {composed: FACE})
    yield ZipCase("composed and not", of("\u00fc.jpg", "u\u0308.jpg"), {"\u00fc": "two files have this name"})
    yield ZipCase("letters of MS-DOS", of("\u251c.jpg"), {"\u251c": FACE})
    for length in (255, 1_000, 65_000):
        yield ZipCase(f"{length} letters", of("x" * length + ".jpg"), {"x" * length: FACE})
    yield ZipCase("a thousand folders", of("a/" * 1_000 + "b.jpg"), {"b": FACE})
    yield ZipCase(
        "not the letters it says",
        partial(patched, b"\xd1\x83.jpg", b"\xd1\xff.jpg", of("\u0443.jpg")),
        says="not a readable zip",
    )


def pack_unsaid(name: str, path: Path) -> None:
    """UTF-8 without the flag that says so."""
    stand_in = "x" * len(name.encode())
    patched(stand_in.encode(), name.encode(), of(stand_in), path)


def patched(old: bytes, new: bytes, write: Callable[[Path], None], path: Path) -> None:
    write(path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def header_patched(offset: int, new: bytes, path: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> None:
    """Bytes from `offset` in the last header of the directory."""
    pack(members, path, method)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\1\2") + offset
    data[place : place + len(new)] = new
    path.write_bytes(data)


def sealed() -> Iterator[ZipCase]:
    yield ZipCase(
        "encrypted", partial(header_patched, 8, b"\1\0", members=[("a.jpg", FACE)]), says="without a password"
    )
    strong = partial(header_patched, 8, b"\x41\0", members=[("a.jpg", FACE)])
    yield ZipCase("strongly encrypted", strong, says="without a password")
    for method, name in {12: "bzip2", 14: "lzma"}.items():
        yield ZipCase(name, partial(pack, [("a.jpg", FACE)], method=method), {"a": "unusual method"})
    for method in (1, 6, 9, 93, 95, 97, 98, 99, 65535):
        write = partial(header_patched, 10, struct.pack("<H", method), members=[("a.jpg", FACE)])
        yield ZipCase(f"method {method}", write, {"a": "unusual method"})
    for version in (63, 255):
        write = partial(header_patched, 6, bytes([version, 0]), members=[("a.jpg", FACE)])
        yield ZipCase(
            f"version {version}",
            write,
            {"a": FACE} if version == 63 else {},
            says=None if version == 63 else "not a readable zip",
        )


def doubled() -> Iterator[ZipCase]:
    yield ZipCase("twice", partial(twice, [FACE, FACE[:9]]), {"a": "two files have this name"})
    yield ZipCase("three times", partial(twice, [FACE] * 3), {"a": "two files have this name"})
    yield ZipCase("in two folders", of("x/a.jpg", "y/a.jpg", "b.jpg"), {"a": "two files have this name", "b": FACE})
    yield ZipCase("by two suffixes", of("a.jpg", "a.PNG"), {"a": "two files have this name"})
    yield ZipCase("by either slash", of("x/a.jpg", "x\\a.jpg"), {"a": "two files have this name"})
    yield ZipCase("but for the case", of("a.jpg", "A.jpg"), {"a": FACE, "A": FACE})


def twice(contents: list[bytes], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, which sees it
        pack([("a.jpg", data) for data in contents], path)


def bombs() -> Iterator[ZipCase]:
    limit = "over the limit"
    yield ZipCase("of zeros", partial(zeros, 1 << 30), {"a": limit})
    yield ZipCase("of zeros that claim to be ten", partial(zeros, 1 << 30, claimed=10), {"a": "can't be unpacked"})
    yield ZipCase(
        "of zeros by bzip2", partial(zeros, 1 << 22, claimed=10, method=zipfile.ZIP_BZIP2), {"a": "unusual method"}
    )
    yield ZipCase(
        "of zeros by lzma", partial(zeros, 1 << 22, claimed=10, method=zipfile.ZIP_LZMA), {"a": "unusual method"}
    )
    yield ZipCase("a zip in a zip", nested, total=0)
    yield ZipCase("members that overlap", overlapping, says="overlap")
    yield ZipCase("100,000 members", many, total=100_000)


def zeros(size: int, path: Path, claimed: int | None = None, method: int = zipfile.ZIP_DEFLATED) -> None:
    """A member of `size` zeros. Written by hand, as a gigabyte takes seconds to compress."""
    if method == zipfile.ZIP_DEFLATED:
        # 4 MB compressed once, with the window flushed, is a piece that may come any number of times.
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        piece = packer.compress(bytes(1 << 22)) + packer.flush(zlib.Z_FULL_FLUSH)
        packed = piece * (size >> 22) + packer.flush()
        info = zipfile.ZipInfo("a.jpg")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(info, packed)
        data = bytearray(path.read_bytes())
        for mark, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
            start = data.rindex(mark) if mark == b"PK\1\2" else 0
            data[start + place : start + place + 2] = struct.pack("<H", method)
            data[start + place + 14 : start + place + 18] = struct.pack("<I", size if claimed is None else claimed)
        path.write_bytes(data)
    else:
        header_patched(24, struct.pack("<I", claimed or size), path, [("a.jpg", bytes(size))], method)


def nested(path: Path) -> None:
    inner = FACE
    for depth in range(5):
        pack([(f"{depth}.zip", inner)], path)
        inner = path.read_bytes()


def overlapping(path: Path) -> None:
    """A thousand names for one member (D. Fifield, "A better zip bomb", 2019)."""
    pack([("a.jpg", FACE * 10)], path)
    data = path.read_bytes()
    place = data.index(b"PK\1\2")
    entry, end = data[place:-22], bytearray(data[-22:])
    entries = b"".join(entry.replace(b"a.jpg", b"%05d" % number) for number in range(1_000))
    struct.pack_into("<HHI", end, 8, 1_000, 1_000, len(entries))
    path.write_bytes(data[:place] + entries + end)


def many(path: Path, count: int = 100_000) -> None:
    """By hand, which takes a tenth of the time of `zipfile`."""
    crc = zlib.crc32(b"1")
    local = struct.Struct("<4s5H3I2H")
    central = struct.Struct("<4s6H3I5H2I")
    body, directory, offset = [], [], 0
    for number in range(count):
        name = b"f/%06d.jpg" % number
        body.append(local.pack(b"PK\3\4", 20, 0, 0, 0, 33, crc, 1, 1, len(name), 0) + name + b"1")
        directory.append(
            central.pack(b"PK\1\2", 20, 20, 0, 0, 0, 33, crc, 1, 1, len(name), 0, 0, 0, 0, 0, offset) + name
        )
        offset += len(body[-1])
    size = sum(map(len, directory))
    zip64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, offset + size, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65_535, 65_535, size, offset, 0)
    path.write_bytes(b"".join([*body, *directory, zip64, locator, end]))


def lies() -> Iterator[ZipCase]:
    face = [("b.jpg", FACE), ("a.jpg", FACE)]
    damaged = "can't be unpacked"
    for name, offset, new, answer in (
        ("smaller than it is", 24, struct.pack("<I", 10), damaged),
        ("larger than it is", 24, struct.pack("<I", 10_000), FACE),
        ("of nothing", 24, struct.pack("<I", 0), b""),
        ("over the limit", 24, struct.pack("<I", 2**31), "over the limit"),
        ("another checksum", 16, b"\0\0\0\0", damaged),
        ("packed smaller than it is", 20, struct.pack("<I", 3), damaged),
        ("begins elsewhere", 42, struct.pack("<I", 7), damaged),
        ("begins behind the end", 42, struct.pack("<I", 2**30), damaged),
        ("stored, it says", 10, b"\0\0", damaged),
        ("another name", 46, b"c.jpg", {"c": damaged}),
        ("of the year 2107, month 15", 14, b"\xff\xff", FACE),
    ):
        images = answer if isinstance(answer, dict) else {"a": answer}
        yield ZipCase(name, partial(header_patched, offset, new, members=face), {"b": FACE, **images})
    packed = partial(header_patched, 20, struct.pack("<I", 2**31), members=face)
    yield ZipCase("packed larger than the file", packed, says="overlap")


def broken() -> Iterator[ZipCase]:
    for name, data in {
        "nothing": b"",
        "text": b"no archive",
        "an image": FACE,
        "rar": b"Rar!\x1a\7\1\0" + bytes(100),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
        "tar.gz": b"\x1f\x8b\x08" + bytes(100),
        "html": b"<html>Sign in to download</html>",
        "an end and no more": b"PK\5\6" + bytes(18),
        "an end with lies": b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2),
    }.items():
        empty = name == "an end and no more"
        yield ZipCase(
            name, partial(put, data), says=None if empty else "not a readable zip", total=0 if empty else None
        )
    for seed in range(40):
        yield ZipCase(f"bits {seed}", partial(flipped, seed), says="any")
    for share in (0.1, 0.5, 0.9, 0.999):
        yield ZipCase(f"cut at {share}", partial(cut, share), says="not a readable zip")


def put(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def flipped(seed: int, path: Path) -> None:
    pack([("a.jpg", FACE), ("b/c.png", FACE), ("\u00fc.jpg", FACE)], path, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    start = data.index(b"PK\1\2") if seed % 2 else 0
    for place in rng.integers(start, len(data), 1 + seed % 3):
        data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def cut(share: float, path: Path) -> None:
    pack([("a.jpg", FACE), ("b.jpg", FACE)], path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def found_by_fuzzing() -> Iterator[ZipCase]:
    yield ZipCase("a name that is empty", partial(patched, b"zz", b"\0z", of("a.jpg", "zz")), {"a": FACE})
