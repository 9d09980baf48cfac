"""Images as nobody should send them: made by code, each with the answer that is right."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageOps

ANY_PICTURE = "any picture"
"""Some damage can't be seen in the bytes; what comes out must be a whole RGB image all the same."""


@dataclass(frozen=True)
class ImageCase:
    """Bytes that claim to be an image."""

    name: str
    make: Callable[[], bytes]
    looks: Image.Image | str | None = None
    """The right picture, or `ANY_PICTURE`; None where there is none."""
    says: str | None = None
    """What a refusal must say; None where the image must not be refused."""
    heavy: bool = False
    """For the campaign alone."""


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def draw(width: int = 40, height: int = 30) -> Image.Image:
    """A smooth picture of which every corner is another."""
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
    channels = [200 * x + 0 * y, 0 * x + 200 * y, 255 * (1 - x) * (1 - y)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


PICTURE = draw()
WHITE = Image.new("RGB", PICTURE.size, "white")
JPEG = partial(encode, PICTURE, "JPEG", quality=95, subsampling=0)
PNG = partial(encode, PICTURE, "PNG")
WEBP = partial(encode, PICTURE, "WEBP", lossless=True)
BMP = partial(encode, PICTURE, "BMP")
ENCODERS = {"jpeg": JPEG, "png": PNG, "webp": WEBP, "bmp": BMP}
REFUSED = "damaged|empty"


def image_cases() -> Iterator[ImageCase]:
    for group in (
        *(truncated, noise, flipped, bombs, at_the_limit, odd_sizes, odd_modes, animated),
        *(exif_orientations, exif_damaged, foreign, polyglots, found_by_fuzzing),
    ):
        for case in group():
            yield ImageCase(f"{group.__name__}/{case.name}", case.make, case.looks, case.says, case.heavy)


def truncated() -> Iterator[ImageCase]:
    exif = Image.Exif()
    exif[0x0112] = 1
    rich = {"exif": exif, "icc_profile": bytes(range(256)), "dpi": (72, 72)}
    files = {
        "jpeg": (jpeg_places, JPEG(**rich, comment=b"smile", restart_marker_rows=1)),
        "progressive": (jpeg_places, JPEG(**rich, progressive=True)),
        "png": (png_places, PNG(**rich)),
        "webp": (riff_places, WEBP(exif=exif, icc_profile=bytes(256))),
        "webp lossy": (riff_places, encode(PICTURE, "WEBP")),
        "bmp": (lambda data: [2, 14, 54, len(data) // 2], BMP()),
    }
    for name, (places, data) in files.items():
        for place in sorted({cut for start in [*places(data), len(data) - 1] for cut in (start, start + 3)}):
            if place < len(data):
                # What is cut off may be no more than the end mark.
                yield ImageCase(f"{name} at {place}", partial(data[:place].__add__, b""), PICTURE, says=REFUSED)


def jpeg_places(data: bytes) -> list[int]:
    places, place = [0], 2
    while place < len(data) - 2 and data[place] == 0xFF:
        places.append(place)
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[places[-1] + 1] == 0xDA:
            places += [place, place + 10]
            place += 1
            while place < len(data) - 2 and not (data[place] == 0xFF and data[place + 1] not in (0, *range(208, 216))):
                place += 1
    return places


def png_places(data: bytes) -> list[int]:
    places = [0, 8]
    while places[-1] < len(data) - 12:
        places.append(places[-1] + 12 + int.from_bytes(data[places[-1] : places[-1] + 4], "big"))
    return [place + more for place in places for more in (0, 7, 10)]


def riff_places(data: bytes) -> list[int]:
    places = [0, 8, 12]
    while places[-1] < len(data) - 8:
        places.append(places[-1] + 8 + (int.from_bytes(data[places[-1] + 4 : places[-1] + 8], "little") + 1) // 2 * 2)
    return [place + more for place in places for more in (0, 6, 10)]


def noise() -> Iterator[ImageCase]:
    starts = {"nothing": b"", "jpeg": b"\xff\xd8\xff\xe0", "png": PNG()[:8], "webp": WEBP()[:16], "bmp": b"BM"}
    for name, start in starts.items():
        for seed in range(6):
            data = start + np.random.default_rng(seed).bytes(10 ** (seed % 5))
            yield ImageCase(f"{name} {seed}", partial(data.__add__, b""), says=REFUSED)
    yield ImageCase("an empty file", bytes, says="the file is empty")
    yield ImageCase("zeros", partial(bytes, 1000), says=REFUSED)


def flipped() -> Iterator[ImageCase]:
    for name, make in {**ENCODERS, "webp lossy": partial(encode, PICTURE, "WEBP")}.items():
        data = make()
        rng = np.random.default_rng(0)
        for _ in range(20):
            broken = bytearray(data)
            place, bit = int(rng.integers(len(data))), int(rng.integers(8))
            broken[place] ^= 1 << bit
            # The sums inside a PNG see every flip.
            looks = PICTURE if name == "png" else ANY_PICTURE
            yield ImageCase(f"{name} bit {8 * place + bit}", partial(bytes, broken), looks, says="damaged|limit|BMP")


def bombs() -> Iterator[ImageCase]:
    limit = "more than the limit|more pixels than the limit"
    for side in (7_072, 10_000, 60_000, 2**31 - 1):
        yield ImageCase(f"png {side}", partial(png_of, side, side), says=limit)
        yield ImageCase(f"png 1 bit {side}", partial(png_of, side, side, depth=1, color=0), says=limit)
        yield ImageCase(f"bmp {side}", partial(bmp_of, side, side), says=limit)
        yield ImageCase(f"bmp {side} upside down", partial(bmp_of, side, -side), says=limit)
    for size in ((65_500, 65_500), (65_500, 1_000)):
        yield ImageCase(f"jpeg {size}", partial(jpeg_of, *size), says=limit)
    yield ImageCase("webp", partial(webp_of, 16_383, 16_383), says=limit)
    yield ImageCase("png promises pixels it has not", partial(png_of, 7_000, 7_000), says="damaged", heavy=True)
    yield ImageCase("bmp promises pixels it has not", partial(bmp_of, 7_000, 7_000), says="damaged", heavy=True)

    parts = "too many"
    yield ImageCase("jpeg of scans", partial(jpeg_with, b"", scans=100_000), says=parts)
    yield ImageCase("jpeg of segments", partial(jpeg_with, b"\xff\xe5\0\2" * 100_000), says=parts)
    yield ImageCase("jpeg of comments", partial(jpeg_with, b"\xff\xfe\0\2" * 9_000), PICTURE)
    yield ImageCase("jpeg of fill bytes", partial(jpeg_with, b"\xff" * 250_000), says=parts)
    yield ImageCase("png of chunks", partial(png_with, chunk(b"teSt", b"") * 120_000), says=parts)
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20)))
    yield ImageCase("png of profiles", partial(png_with, profile * 5_000), says=parts)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24)))
    yield ImageCase("png with a text that unpacks to 16 MB", partial(png_with, text), says="damaged")
    # Four bytes that say: leave out 255 lines. Pillow fills them with 12 GB of zeros.
    delta = partial(bmp_of, 50_000_000, 1, depth=8, compression=1, pixels=b"\0\2\xff\xff")
    yield ImageCase("bmp of skipped lines", delta, says="run-length encoded BMP")
    rle = partial(bmp_of, 4, 4, depth=4, compression=2, pixels=b"\4\0\0\0" * 4 + b"\0\1")
    yield ImageCase("bmp with run lengths", rle, says="run-length encoded BMP")


def at_the_limit() -> Iterator[ImageCase]:
    """As many pixels as are allowed: right, and within memory and time. `looks` is eight times smaller."""
    turned = Image.Exif()
    turned[0x0112] = 6
    fast = {"method": 0, "lossless": True, "quality": 0, "exact": True}
    for name, mode, color, shown, image_format, options in (
        ("jpeg", "RGB", "teal", "teal", "JPEG", {"exif": turned}),
        ("progressive jpeg", "RGB", "teal", "teal", "JPEG", {"progressive": True, "exif": turned}),
        ("cmyk jpeg", "CMYK", (0, 255, 255, 0), "red", "JPEG", {"exif": turned}),
        ("png", "RGB", "teal", "teal", "PNG", {"compress_level": 1}),
        ("png with alpha", "RGBA", (0, 0, 0, 0), "white", "PNG", {"compress_level": 1, "exif": turned}),
        ("png 16 bit", "I;16", 128 << 8, "#808080", "PNG", {"compress_level": 1, "exif": turned}),
        ("bmp", "L", 128, "#808080", "BMP", {}),
        ("webp", "RGB", "teal", "teal", "WEBP", {"method": 0, "exif": turned}),
        ("lossless webp", "RGB", "teal", "teal", "WEBP", {**fast, "exif": turned}),
        ("webp with alpha", "RGBA", (0, 0, 0, 0), "white", "WEBP", {**fast, "exif": turned}),
    ):
        looks = Image.new("RGB", (LARGE // 8, LARGE // 8), shown)
        yield ImageCase(name, partial(plain, mode, color, image_format, options), looks, heavy=True)
    for progressive in (False, True):
        yield ImageCase(f"photo, progressive {progressive}", partial(photo, progressive), ANY_PICTURE, heavy=True)


LARGE = 7_064


def plain(mode: str, color: object, image_format: str, options: dict[str, object]) -> bytes:
    return encode(Image.new(mode, (LARGE, LARGE), color), image_format, **options)


def photo(progressive: bool) -> bytes:
    rough = np.random.default_rng(0).integers(0, 255, (LARGE // 8, LARGE // 8, 3), dtype=np.uint8)
    image = Image.fromarray(rough).resize((LARGE, LARGE))
    return encode(image, "JPEG", quality=92, subsampling=0, progressive=progressive)


def odd_sizes() -> Iterator[ImageCase]:
    for name, empty in {
        "png": partial(png_of, 0, 0),
        "png 0 x 5": partial(png_of, 0, 5),
        "bmp": partial(bmp_of, 0, 0),
        "jpeg": partial(jpeg_of, 0, 0),
        "jpeg 5 x 0": partial(jpeg_of, 5, 0),
    }.items():
        yield ImageCase(f"nothing by nothing {name}", empty, says="damaged")
    for name, options in {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}, "BMP": {}}.items():
        longest = 16_000 if name == "WEBP" else 20_000
        for size in ((1, 1), (1, longest), (longest, 1), (2, 3)):
            image = Image.new("RGB", size, (60, 120, 180))
            yield ImageCase(f"{size[0]} x {size[1]} {name}", partial(encode, image, name, **options), image)


def odd_modes() -> Iterator[ImageCase]:
    grey = PICTURE.convert("L")
    few = PICTURE.quantize(16, dither=Image.Dither.NONE)
    black = Image.new("RGB", PICTURE.size)
    half = Image.new("RGB", PICTURE.size, (128, 128, 128))
    pixels16 = np.asarray(grey).astype(np.uint16)
    yield ImageCase("cmyk", partial(encode, PICTURE.convert("CMYK"), "JPEG", quality=95), PICTURE)
    yield ImageCase("grey jpeg", partial(encode, grey, "JPEG"), grey.convert("RGB"))
    for mode in ("1", "L", "LA", "RGBA", "P"):
        image = PICTURE.convert(mode)
        yield ImageCase(f"png {mode}", partial(encode, image, "PNG"), image.convert("RGB"))
    yield ImageCase("png 4 bit palette", partial(encode, few, "PNG", bits=4), few.convert("RGB"))
    yield ImageCase("png 16 bit", partial(encode, Image.fromarray(pixels16 * 257), "PNG"), grey.convert("RGB"))
    for color, channels in ((2, 3), (6, 4), (4, 2)):
        pixel = b"\x80\x42" * (channels - (color != 2)) + (b"\xff\xff" if color != 2 else b"")
        make = partial(png_of, *PICTURE.size, depth=16, color=color, row=b"\0" + pixel * PICTURE.width)
        yield ImageCase(f"png 16 bit, {channels} channels", make, half)
    # Pixels that are left out show white.
    yield ImageCase("png nothing to see", partial(encode, Image.new("RGBA", PICTURE.size, (9, 9, 9, 0)), "PNG"), WHITE)
    yield ImageCase("png half seen", partial(encode, Image.new("RGBA", PICTURE.size, (0, 0, 0, 127)), "PNG"), half)
    yield ImageCase(
        "webp half seen",
        partial(encode, Image.new("RGBA", PICTURE.size, (0, 0, 0, 127)), "WEBP", lossless=True, exact=True),
        half,
    )
    yield ImageCase("png palette with alpha", partial(encode, few, "PNG", transparency=bytes(256)), WHITE)
    yield ImageCase(
        "png one clear colour of a palette",
        partial(encode, Image.new("P", PICTURE.size, 0), "PNG", transparency=0),
        WHITE,
    )
    yield ImageCase("png clear grey", partial(encode, Image.new("L", PICTURE.size, 7), "PNG", transparency=7), WHITE)
    yield ImageCase("png clear colour", partial(encode, black, "PNG", transparency=(0, 0, 0)), WHITE)
    sixteen = partial(
        png_of, *PICTURE.size, depth=16, color=0, row=b"\0" + b"\x12\x34" * 40, extra=chunk(b"tRNS", b"\x12\x34")
    )
    yield ImageCase("png clear 16-bit grey", sixteen, WHITE)
    yield ImageCase("png interlaced nonsense", partial(png_of, 4, 4, interlace=1), says="damaged")
    yield ImageCase("png depth 7", partial(png_of, 4, 4, depth=7), says="damaged")
    yield ImageCase(
        "png palette without palette", partial(png_of, 40, 30, color=3, row=bytes(41)), ANY_PICTURE, says="damaged"
    )
    for bits in (1, 8, 32):
        image = PICTURE.convert({1: "1", 8: "P", 32: "RGBA"}[bits])
        yield ImageCase(f"bmp {bits} bit", partial(encode, image, "BMP"), image.convert("RGB"))


def animated() -> Iterator[ImageCase]:
    frames = {"save_all": True, "append_images": [WHITE, ImageOps.invert(PICTURE)], "duration": 100}
    yield ImageCase("png", partial(PNG, **frames), PICTURE)
    yield ImageCase("png with a still of its own", partial(PNG, **frames, default_image=True), PICTURE)
    yield ImageCase("webp", partial(WEBP, **frames), PICTURE)
    yield ImageCase(
        "gif", partial(encode, PICTURE, "GIF", **frames), says="not a JPEG, PNG, WebP, BMP, AVIF or HEIC image"
    )
    data = encode(PICTURE, "GIF", **frames)
    for place in (5, 6, 13, 100, 800, len(data) // 2, len(data) - 1):
        yield ImageCase(
            f"gif cut at {place}",
            partial(data[:place].__add__, b""),
            says="not a JPEG, PNG, WebP, BMP, AVIF or HEIC image",
        )
    data = WEBP(**frames)
    for place in (12, 30, 44, 60, len(data) // 2, len(data) - 1):
        yield ImageCase(f"webp cut at {place}", partial(data[:place].__add__, b""), PICTURE, says="damaged")


TURNS = (
    *(None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM),
    *(Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270),
)
"""What a camera held that way does to the picture, by orientation from 1 (CIPA DC-008, table 6)."""


def exif_orientations() -> Iterator[ImageCase]:
    for orientation, turn in enumerate(TURNS, 1):
        stored = PICTURE if turn is None else PICTURE.transpose(turn)
        for order in "<>":
            exif = tiff(order, (0x0112, 3, 1, orientation))
            for name, options in {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}.items():
                make = partial(encode, stored, name, exif=exif, **options)
                yield ImageCase(f"{name} {orientation}{order}", make, PICTURE)
        xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'.encode()
        yield ImageCase(f"JPEG {orientation} in XMP", partial(encode, stored, "JPEG", quality=95, xmp=xmp), PICTURE)


def exif_damaged() -> Iterator[ImageCase]:
    """Viewers overlook it, and show the picture as it is stored, or turned where that much can be read."""
    good = tiff("<", (0x0112, 3, 1, 1))
    exifs = {
        "nothing": b"Exif\0\0",
        "a header and no more": good[:14],
        "another header": b"Exif\0\0" + b"XX\x2a\0" + good[10:],
        "noise": b"Exif\0\0" + np.random.default_rng(0).bytes(200),
        "cut off": good[:-5],
        "begins beyond its end": b"Exif\0\0II\x2a\0\xff\xff\xff\x7f",
        "begins in itself": b"Exif\0\0II\x2a\0\0\0\0\0" + bytes(20),
        "65,535 entries": b"Exif\0\0II\x2a\0\x08\0\0\0\xff\xff" + bytes(50),
        "orientation 0": tiff("<", (0x0112, 3, 1, 0)),
        "orientation 9": tiff("<", (0x0112, 3, 1, 9)),
        "orientation of text": tiff("<", (0x0112, 2, 4, 0x36363636)),
        "orientation of another type": tiff("<", (0x0112, 12, 1, 6)),
        "a type there is not": tiff("<", (0x0112, 99, 1, 6)),
        "two billion orientations": tiff("<", (0x0112, 3, 2**31 - 1, 1)),
        "a folder that holds itself": tiff("<", (0x8769, 4, 1, 8)),
    }
    for name, exif in exifs.items():
        for image_format, options in {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}.items():
            yield ImageCase(
                f"{name} {image_format}", partial(encode, PICTURE, image_format, exif=exif, **options), PICTURE
            )
    stored = PICTURE.transpose(Image.Transpose.ROTATE_90)
    rest = tiff("<", (0x0112, 3, 1, 6), (0x9286, 99, 2**30, 2**30), (0x8769, 4, 1, 2**31))
    yield ImageCase("orientation among nonsense", partial(encode, stored, "JPEG", quality=95, exif=rest), PICTURE)
    raw = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 10\nzz not hexadecimal")
    yield ImageCase("PNG text that is no number", partial(png_with, raw), PICTURE)


def foreign() -> Iterator[ImageCase]:
    """Other things under the name of an image. Gradio and `ImageSource` look at the name alone."""
    others = {
        "svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "svg of laughs": b"<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><svg>&b;</svg>",
        "svg of files": b"<!DOCTYPE l [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><svg>&a;</svg>",
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF",
        "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30, 40, 8, 3) + bytes(400),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n(id) (w) file\n%%EOF",
        "html": b"<html><body>404 Not Found</body></html>",
        "json": b'{"error": "no such file"}',
        "program": b"MZ" + bytes(200),
        "elf": b"\x7fELF" + bytes(200),
        "clip": b"\0\0\0\x20ftypisom" + bytes(200),
        "pickle": b"\x80\4\x8c\5posix\x94\x8c\6system\x94\x93\x94\x8c\4true\x94\x85\x94R\x94.",
        "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "text": "no picture: ünïcödé".encode(),
    }
    for name, data in others.items():
        yield ImageCase(name, partial(data.__add__, b""), says="not a JPEG, PNG, WebP, BMP, AVIF or HEIC image")
    for name in ("GIF", "TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "PDF", "EPS", "SGI", "DDS", "QOI"):
        yield ImageCase(
            f"a real {name}", partial(encode, PICTURE, name), says="not a JPEG, PNG, WebP, BMP, AVIF or HEIC image"
        )
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)
    says = "pillow-heif|not a JPEG|will not decode"  # with its package and without
    yield ImageCase("heic", partial(heic.__add__, b""), says=says)
    bomb = struct.pack("<2sHIH", b"II", 42, 8, 2) + struct.pack("<HHIIHHII", 256, 4, 1, 60_000, 257, 4, 1, 60_000)
    yield ImageCase("tiff bomb", partial(bomb.__add__, bytes(4)), says="not a JPEG, PNG, WebP, BMP, AVIF or HEIC image")


def polyglots() -> Iterator[ImageCase]:
    """An image, and something else in the same file."""
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("evil.py", "print('no')")
        other = buffer.getvalue()
    for name, make in ENCODERS.items():
        yield ImageCase(f"{name} and a zip behind it", lambda make=make: make() + other, PICTURE)
        yield ImageCase(
            f"a zip and {name} behind it",
            lambda make=make: other + make(),
            says="not a JPEG, PNG, WebP, BMP, AVIF or HEIC image",
        )
    clip = np.random.default_rng(0).bytes(1_000_000) + b"\xff\xda\0\2" * 200
    yield ImageCase("jpeg and a clip behind it", lambda: JPEG() + clip, PICTURE)
    yield ImageCase(
        "jpeg with a program in its comment", partial(JPEG, comment=b"<?php system($_GET['c']); ?>"), PICTURE
    )
    yield ImageCase("jpeg with a jpeg in its comment", lambda: JPEG(comment=JPEG()), PICTURE)
    yield ImageCase(
        "several jpegs in one",
        partial(encode, PICTURE, "MPO", quality=95, save_all=True, append_images=[WHITE]),
        PICTURE,
    )
    yield ImageCase("gif that is a script", partial(b"GIF89a=1;alert(1)//".__add__, PNG()), says="not a JPEG")
    yield ImageCase("line ends changed on the way", lambda: PNG().replace(b"\r\n", b"\n"), says=REFUSED)
    yield ImageCase("taken for text on the way", lambda: JPEG().decode("utf-8", "replace").encode(), says=REFUSED)


def found_by_fuzzing() -> Iterator[ImageCase]:
    return iter(())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(
    width: int, height: int, depth: int = 8, color: int = 2, row: bytes = b"\0", extra: bytes = b"", interlace: int = 0
) -> bytes:
    """A PNG that says how large it is, and holds its rows only where one is given."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))
    rows = zlib.compress(row * (height if len(row) > 1 else 1))
    return PNG()[:8] + header + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png_with(chunks: bytes) -> bytes:
    data = PNG()
    return data[:33] + chunks + data[33:]


def bmp_of(width: int, height: int, depth: int = 24, compression: int = 0, pixels: bytes = b"") -> bytes:
    colors = 0 if depth > 8 else 1 << depth
    start = 54 + 4 * colors
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, len(pixels), 0, 0, colors, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + bytes(4 * colors) + pixels


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(JPEG())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_with(segments: bytes, scans: int = 0) -> bytes:
    data = JPEG(progressive=bool(scans))
    last = data.rindex(b"\xff\xda")
    again = data[last : last + 2 + int.from_bytes(data[last + 2 : last + 4], "big")]
    return data[:2] + segments + data[2:-2] + again * scans + data[-2:]


def webp_of(width: int, height: int) -> bytes:
    body = b"VP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def tiff(order: str, *entries: tuple[int, int, int, int]) -> bytes:
    """EXIF of (tag, type, count, value) entries."""
    body = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        body += struct.pack(f"{order}HHI", tag, kind, count)
        body += struct.pack(f"{order}HH" if short else f"{order}I", *((value, 0) if short else (value,)))
    return b"Exif\0\0" + {"<": b"II\x2a\0\x08\0\0\0", ">": b"MM\0\x2a\0\0\0\x08"}[order] + body + bytes(4)
