"""Annotation files as nobody should send them: made by code, each with what must come out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

Rows = list[tuple[str, int]]


@dataclass(frozen=True)
class CsvCase:
    """Bytes that claim to be `train.csv`."""

    name: str
    make: Callable[[], bytes]
    rows: Rows | None = None
    """Ids and labels; None where there are problems."""
    says: str | None = None
    """How the first problem must read."""
    heavy: bool = False
    """For the campaign alone."""


def csv_cases() -> Iterator[CsvCase]:
    for group in (encodings, line_ends, quotes, cells, ids, columns, huge, noise, found_by_fuzzing):
        for case in group():
            yield CsvCase(f"{group.__name__}/{case.name}", case.make, case.rows, case.says, case.heavy)


def good(name: str, data: bytes | str, *rows: tuple[str, int]) -> CsvCase:
    data = data if isinstance(data, bytes) else data.encode()
    return CsvCase(name, partial(data.__add__, b""), list(rows or AB))


def bad(name: str, data: bytes | str, says: str) -> CsvCase:
    data = data if isinstance(data, bytes) else data.encode()
    return CsvCase(name, partial(data.__add__, b""), says=says)


AB = (("a", 0), ("b", 2))
TEXT = "a,negative smile\nb,NOT smile\n"
MARK = b"\xef\xbb\xbf"


def encodings() -> Iterator[CsvCase]:
    yield good("utf-16", TEXT.encode("utf-16"))
    for name in ("utf-16-le", "utf-16-be", "utf-32", "utf-32-le"):
        yield bad(name, TEXT.encode(name), r"train.csv:1: wrong encoding: neither UTF-8 nor cp1252; save")
    for name, word in {"latin-1": "ü", "cp1252": "€"}.items():
        yield good(f"one line in {name}", b"a,0\n" + f"{word},1\n".encode(name), ("a", 0), (word, 1))
    # What is in none of these is read as cp1252 and said; no image has such a name, and no label either.
    for name, word in {"cp1251": "улыбка", "big5": "微笑"}.items():
        text = word.encode(name)
        yield good(f"one line in {name}", b"a,0\n" + text + b",1\n", ("a", 0), (text.decode("cp1252"), 1))
    yield bad("one line in shift-jis", "a,0\n笑顔,1\n".encode("shift-jis"), r"train.csv:2: wrong encoding")
    yield bad("UTF-8 and Latin-1", "a,0\nü,1\n".encode() + "ö,2\n".encode("latin-1"), r"train.csv:3: wrong encoding")
    yield bad("half a letter", "a,0\nü".encode()[:-1], r"train.csv:2: 1 column where 2")
    yield good("a surrogate", b"a,0\n\xed\xa0\x80,1\n", ("a", 0), ("í\xa0€", 1))
    yield good("too long a letter", b"a,0\n\xc0\xaf,1\n", ("a", 0), ("À¯", 1))
    yield bad("NUL in an id", b"a,0\nb\0,1\n", r"train.csv:2: wrong encoding")
    yield bad("NULs alone", bytes(1000), r"train.csv:1: wrong encoding")
    yield bad("NULs at the end", TEXT.encode() + bytes(512), r"train.csv:3: wrong encoding")
    yield good("a mark", MARK + TEXT.encode())
    yield good("two marks", MARK * 2 + TEXT.encode())
    yield good("a mark and a header", MARK + b"image_id,label\n" + TEXT.encode())
    yield good("a mark and quotes", MARK + b'"a","0"\n"b","2"\n')
    yield good("files put together", b"a,0\n" + MARK + b"b,2\n")
    yield bad("a mark alone", MARK, r"train.csv: empty file")
    yield good("apart and composed", "e\u0301,0\n\u00e8,2\n", ("\u00e9", 0), ("\u00e8", 2))
    yield good("apart and composed, the same", "e\u0301,0\n\u00e9,0\n", ("\u00e9", 0), ("\u00e9", 0))


def line_ends() -> Iterator[CsvCase]:
    for name, end in {"unix": "\n", "windows": "\r\n", "old mac": "\r", "blank lines": "\n\n\r\n\r"}.items():
        yield good(name, TEXT.replace("\n", end))
    yield good("all of them", "a,0\r\nb,2\rc,1\n", ("a", 0), ("b", 2), ("c", 1))
    yield good("none at the end", TEXT.rstrip())
    yield bad(
        "the line of a mistake in an old mac's file", "a,0\rb,2\rc,happy\r", r"train.csv:3: unknown label 'happy'"
    )
    yield bad("wrong bytes in an old mac's file", b"a,0\rb,2\rc\x81,1\r", r"train.csv:3: wrong encoding")
    for name, sign in {
        "form feed": "\f",
        "next line": "\x85",
        "line separator": "\u2028",
        "file separator": "\x1c",
    }.items():
        yield bad(f"{name} for a line end", f"a,0{sign}b,2", r"train.csv:1: 3 columns where 2 are expected")
    yield bad("blanks alone", " \n\t\n , \n", r"train.csv: empty file")


def quotes() -> Iterator[CsvCase]:
    never = "a quotation mark opens here and never closes"
    yield bad("never closed, first", '"a,0\nb,2\n', rf"train.csv:1: not a CSV line: {never}")
    yield bad("never closed, last", 'a,0\n"b,2', rf"train.csv:2: not a CSV line: {never}")
    yield bad(
        "never closed, in a note", 'image_id,label,note\na,0,"x\nb,2,y\n', rf"train.csv:2: not a CSV line: {never}"
    )
    yield bad(
        "never closed, and much behind it", 'a,0\nb,"2\n' + "c,1\n" * 50_000, rf"train.csv:2: not a CSV line: {never}"
    )
    yield bad("one alone", '"', rf"train.csv:1: not a CSV line: {never}")
    yield bad("letters behind one", '"a"b,0\n', r"train.csv:1: not a CSV line")
    yield bad("lines in an id", '"a\nb",0\n', r"train.csv:2: 'a\\nb' can't be the name of a file")
    yield good("doubled", '"a""",0\nb,2\n', ('a"', 0), ("b", 2))
    yield good("inside a cell", 'a 5" wide,0\nb,2\n', ('a 5" wide', 0), ("b", 2))
    yield good("around all", '"a","negative smile"\n"b","NOT smile"\n')
    yield good("lines in a note", 'image_id,label,note\na,0,"two\nlines"\nb,2,\n')
    yield bad("single", "'a','0'\n", r"train.csv:1: unknown label")


def cells() -> Iterator[CsvCase]:
    yield good("formulas are text", "=1+1,0\n@x,1\n+a,2\n-b,0\n", ("=1+1", 0), ("@x", 1), ("+a", 2), ("-b", 0))
    yield good("a formula in a note", 'image_id,label,note\na,0,"=HYPERLINK(""http://x"")"\nb,2,=cmd|\' /C calc\'!A0\n')
    for label in (
        "3",
        "-1",
        "1.0",
        "01",
        "null",
        "None",
        "nan",
        "NaN",
        "true",
        "１",
        "smile",
        "0;1",
        "=1",
        "[0]",
        "0 1",
    ):
        yield bad(f"label {label!r}", f"a,0\nb,{label}\n", r"train.csv:2: unknown label")
    yield bad("no label", "a,0\nb,\n", r"train.csv:2: the label is empty")
    yield good("blanks around", " a , 0 \n\tb\t,\tNOT SMILE\t\n")
    yield bad("a label nobody can read", "a," + "x" * 100_000 + "\n", r"train.csv:1: unknown label")
    yield bad("one cell", "a\n", r"train.csv:1: 1 column where 2")
    yield bad("three cells", "a,0,1\n", r"train.csv:1: 3 columns where 2")
    yield good("semicolons", "a;0\nb;2\n")
    yield good("tabs", "a\t0\nb\t2\n")
    yield good("semicolons in cells", 'image_id,label,note\na,0,"x;y;z"\nb,2,;;;;\n')
    yield bad("pipes", "a|0\nb|1\n", r"train.csv:1: 1 column where 2")
    yield bad("the columns are swapped", "0,a\n1,b\n", r"train.csv: the labels stand where the ids should")
    yield bad("no table", "<html>404</html>\n", r"train.csv:1: 1 column where 2")
    yield bad("json", '{"a": 0, "b": 1}\n', r"train.csv:1: ")
    yield bad("an image", b"\x89PNG\r\n\x1a\n" + bytes(100), r"train.csv:3: wrong encoding")
    yield bad("a zip", b"PK\3\4" + bytes(100), r"train.csv:1: wrong encoding")


def ids() -> Iterator[CsvCase]:
    # Paths that leave the folder are refused when the image is looked for, and nothing is taken off them before.
    for name, image_id in {
        "../../etc/passwd": "../../etc/passwd",
        "..\\..\\windows\\system.ini": "../../windows/system.ini",
        "/etc/passwd": "/etc/passwd",
        "C:\\a.jpg": "C:/a.jpg",
        "http://host/a.jpg": "http://host/a.jpg",
        "a.jpg/": "a.jpg",
        "a/b/c.png": "a/b/c.png",
        "a.tar.jpg": "a.tar.jpg",
        "...jpg": "...jpg",
        "%2e%2e": "%2e%2e",
        "$(id)": "$(id)",
        "a;rm -rf": "a;rm -rf",
        "улыбка": "улыбка",
        "笑顔.jpg": "笑顔.jpg",
        "😀": "😀",
    }.items():
        yield good(f"{name!a}", f"{name},0\nb,2\n", (image_id, 0), ("b", 2))
    for name in ("..", "x/..", "a\x1b[31m", "a\tb", "x" * 201, "笑" * 70, ".jpg", "x/.jpg"):
        yield bad(f"{name[:20]!a} of {len(name)}", f"{name},0\n", r"train.csv:1: '.*' can't be the name of a file")
    for name in ("", " ", "/", "//", "\\"):
        yield bad(f"empty {name!a}", f"{name},0\n", r"train.csv:1: empty id")


def columns() -> Iterator[CsvCase]:
    yield bad("no id", "person,label\na,0\n", r"train.csv: no column 'image_id'")
    yield bad("no label", "image_id,emotion\na,0\n", r"train.csv: no column 'label'")
    yield bad("twice", "image_id,label,label\na,0,1\n", r"train.csv: column 'label' appears twice")
    yield bad("without a name, twice", "image_id,label,,\na,0,,\n", r"train.csv: column '' appears twice")
    for name in ("where", "digest", "problem"):
        yield good(f"named {name}", f"image_id,label,{name}\na,0,x\nb,2,y\n")
    yield bad("a header and no rows", "image_id,label\n", r"train.csv: empty file: it has a header")
    yield bad("the header again", "image_id,label\na,0\nimage_id,label\n", r"train.csv:3: unknown label 'label'")
    yield good("names that are code", "image_id,label,__class__,self,1\na,0,x,y,z\nb,2,,,\n")
    wide = ",".join(f"c{number}" for number in range(50_000))
    yield bad("50,000, and no id", f"label,{wide}\n", r"train.csv: empty file: it has a header")
    yield bad("50,000, and one twice", f"image_id,label,{wide},c7\na\n", r"train.csv: column 'c7' appears twice")


def huge() -> Iterator[CsvCase]:
    hint = "is this an annotation file?"
    long = rf"train.csv:1: not a CSV line: it has more than 1,000,000 characters; {hint}"
    limit = rf"train.csv: 100,000,000 bytes are over the limit of 50,000,000; {hint}"
    lines = rf"train.csv:1000001: not a CSV line: the file has more than 1,000,000 lines; {hint}"
    for size, heavy in ((2_000_000, False), (49_000_000, True)):
        yield CsvCase(f"{size:,} bytes in a line", partial(b"x".__mul__, size), None, long, heavy)
        yield CsvCase(f"{size:,} bytes in cells", partial(b"x,".__mul__, size // 2), None, long, heavy)
        yield CsvCase(f"{size:,} blank lines", partial(b"\n".__mul__, size), None, lines, heavy)
    wide = "😀".encode()
    yield CsvCase("49 MB in a line with a wide letter", lambda: wide + b"x" * 49_000_000, None, long, True)
    yield CsvCase("100 MB in a line", partial(b"x".__mul__, 100_000_000), None, limit, True)
    yield bad(
        "a field of 200,000",
        "a,0\n" + "x" * 200_000 + ",1\n",
        r"train.csv:2: not a CSV line: field larger than field limit",
    )
    yield bad("200,000 cells", "a,0" + ",x" * 200_000, r"train.csv:1: 200002 columns where 2 are expected")
    yield good("a note of 100,000", "image_id,label,note\na,0," + "x" * 100_000 + "\nb,2,\n")
    many = "".join(f"{number:08},1\n" for number in range(20_000))
    yield CsvCase("20,000 rows", many.encode, [(f"{number:08}", 1) for number in range(20_000)])


def noise() -> Iterator[CsvCase]:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        yield CsvCase(f"bytes {seed}", partial(rng.bytes, 10 ** (1 + seed % 4)), says=r"train.csv")
    letters = np.array(list('a,0"\n\r;\t 2é\ufeff\0'))
    for seed in range(40):
        text = "".join(np.random.default_rng(seed).choice(letters, 60))
        yield CsvCase(f"letters {seed}", text.encode, says=r"train.csv")


def found_by_fuzzing() -> Iterator[CsvCase]:
    return iter(())
