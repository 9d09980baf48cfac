"""The layouts of docs/data.md, built from drawn faces, with their commands and what these print.

`python tests/end_to_end/layouts.py` prints the section for docs/data.md.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hf_smile.data.sample import draw_face
from hf_smile.labels import LABEL_NAMES

Row = tuple[str, int, bytes]
"""Number of the face, label id, content of the JPEG file."""


class Layout(NamedTuple):
    """A way to arrange the files of a data set."""

    title: str
    build: Callable[[Path], None]
    options: str
    """Options of `hf-smile train` in addition to `--data_dir`."""
    prints: str
    data: str = ""
    """Path inside the folder that `--data_dir` points to; empty for the folder itself."""


@cache
def faces() -> list[Row]:
    """Return 30 faces: ten per label, five per person."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(30):
        file = io.BytesIO()
        draw_face(number % 3, rng, size=48).save(file, "JPEG")
        rows.append((f"{number:03}", number % 3, file.getvalue()))
    return rows


def train() -> list[Row]:
    return faces()[:24]


def test() -> list[Row]:
    return faces()[24:]


def person(row: Row) -> str:
    return f"person{int(row[0]) // 5}"


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_csv(
    path: Path, rows: Iterable[Row], header: str = "", cells: Callable[[Row], list[str]] | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(f"{header}\n" * bool(header))
        csv.writer(file).writerows(cells(row) if cells else [row[0], LABEL_NAMES[row[1]]] for row in rows)


def write_images(folder: Path, rows: Iterable[Row], name: Callable[[Row], str] = lambda row: f"{row[0]}.jpg") -> None:
    for row in rows:
        write(folder / name(row), row[2])


def write_zip(path: Path, rows: Iterable[Row], name: Callable[[Row], str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for row in rows:
            archive.writestr(name(row), row[2])


def in_class_folder(row: Row) -> str:
    return f"{LABEL_NAMES[row[1]]}/{row[0]}.jpg"


def in_person_folder(row: Row) -> str:
    return f"{person(row)}/{int(row[0]) % 5:03}.jpg"


def two_csvs(folder: Path) -> None:
    write_csv(folder / "train.csv", train())
    write_csv(folder / "test.csv", test())
    write_zip(folder / "happy_images.zip", faces(), lambda row: f"happy_images/{row[0]}.jpg")


def beside(folder: Path) -> None:
    for name, rows in (("train", train()), ("test", test())):
        write_csv(folder / f"{name}.csv", rows, "filename,class", lambda row: [f"{row[0]}.jpg", str(row[1])])
    write_images(folder, faces())


def one_csv(folder: Path) -> None:
    write_csv(folder / "train.csv", faces())
    write_images(folder / "images", faces())


def of_people(folder: Path) -> None:
    def cells(row: Row) -> list[str]:
        return [in_person_folder(row), LABEL_NAMES[row[1]], person(row)]

    write_csv(folder / "train.csv", faces(), "image_id,label,person", cells)
    write_images(folder, faces(), in_person_folder)


def excel(folder: Path) -> None:
    rows = "".join(f'{row[0]};"{LABEL_NAMES[row[1]]}";0,5\r\n' for row in faces())
    write(folder / "faces.csv", f"Image_ID;Label;Größe\r\n{rows}".encode("cp1252"))
    write_images(folder / "images", faces())


def other_names(folder: Path) -> None:
    names = ("fake", "genuine", "none")
    write_csv(folder / "train.csv", faces(), "nr,picture,emotion", lambda row: [row[0], f"{row[0]}.jpg", names[row[1]]])
    write_images(folder / "images", faces())


def own_folders(folder: Path) -> None:
    write_images(folder, faces(), lambda row: f"{('grin', 'laugh', 'neutral')[row[1]]}/{row[0]}.jpg")


def two_labels(folder: Path) -> None:
    write_csv(folder / "train.csv", faces(), "", lambda row: [row[0], "smile" if row[1] < 2 else "NOT smile"])
    write_images(folder, faces())


def class_folders(folder: Path) -> None:
    write_images(folder, faces(), in_class_folder)


def split_folders(folder: Path) -> None:
    write_images(folder / "Train", train(), in_class_folder)
    write_images(folder / "Test", test(), in_class_folder)


def no_test_folder(folder: Path) -> None:
    write_images(folder / "train", train(), in_class_folder)
    write_images(folder / "val", test(), in_class_folder)


def zip_of_folders(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_zip(folder / "faces.zip", faces(), lambda row: f"faces/{in_class_folder(row)}")


def metadata_csv(folder: Path) -> None:
    for name, rows in (("train", train()), ("test", test())):
        cells = lambda row: [f"{row[0]}.jpg", LABEL_NAMES[row[1]]]  # noqa: E731
        write_csv(folder / name / "metadata.csv", rows, "file_name,label", cells)
        write_images(folder / name, rows)


def metadata_jsonl(folder: Path) -> None:
    lines = [json.dumps({"file_name": f"{row[0]}.jpg", "label": row[1]}) for row in faces()]
    write(folder / "metadata.jsonl", "\n".join(lines))
    write_images(folder, faces())


def metadata_parquet(folder: Path) -> None:
    import pandas as pd

    write_images(folder, faces())
    table = pd.DataFrame({"file_name": [f"{row[0]}.jpg" for row in faces()], "label": [row[1] for row in faces()]})
    table.to_parquet(folder / "metadata.parquet")


def parquet(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    for name, rows in (("train", train()), ("test", test())):
        dataset(rows).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")


def dataset(rows: list[Row]):
    import datasets

    features = datasets.Features(img=datasets.Image(), labels=datasets.ClassLabel(names=list(LABEL_NAMES)))
    images = [{"bytes": row[2], "path": None} for row in rows]
    return datasets.Dataset.from_dict({"img": images, "labels": [row[1] for row in rows]}, features=features)


def saved_dict(folder: Path) -> None:
    import datasets

    datasets.DatasetDict(train=dataset(faces())).save_to_disk(folder)


def saved(folder: Path) -> None:
    dataset(faces()).save_to_disk(folder)


def prepared(folder: Path) -> None:
    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.data.prepare import save_prepared

    with tempfile.TemporaryDirectory() as collected:
        two_csvs(Path(collected))
        save_prepared(load_smile_dataset(collected), folder)


def shards(folder: Path) -> None:
    from hf_smile.shards.write import Sharding, write_shards

    with tempfile.TemporaryDirectory() as collected:
        two_csvs(Path(collected))
        write_shards(collected, folder, Sharding(images_per_shard=10, divisible_by=1))


def formats(folder: Path) -> None:
    from PIL import Image
    from pillow_heif import from_pillow

    write_csv(folder / "train.csv", train())
    write_csv(folder / "test.csv", test())
    (folder / "images").mkdir()
    for number, row in enumerate(faces()):
        picture = Image.open(io.BytesIO(row[2]))
        if number % 3 == 1:
            from_pillow(picture).save(folder / "images" / f"{row[0]}.heic")
        else:
            picture.save(folder / "images" / f"{row[0]}.{'gif' if number % 3 else 'avif'}", quality=90)


def tabs(folder: Path) -> None:
    for name, rows in (("train", train()), ("test", test())):
        lines = "".join(f"{row[0]}\t{LABEL_NAMES[row[1]].replace(' ', '_')}\n" for row in rows)
        write(folder / f"{name}.tsv", f"id\tclass\n{lines}".encode("utf-8-sig"))
    write_images(folder / "images", faces())


def three_csvs(folder: Path) -> None:
    for name, rows in (("train", train()[:18]), ("val", train()[18:]), ("test", test())):
        write_csv(folder / f"{name}.csv", rows)
    write_images(folder / "images", faces())


def one_metadata(folder: Path) -> None:
    rows = [("train", row) for row in train()] + [("test", row) for row in test()]
    lines = "".join(f"{split}/{row[0]}.jpg,{row[1]}\n" for split, row in rows)
    write(folder / "metadata.csv", f"file_name,label\n{lines}")
    for split, row in rows:
        write(folder / split / f"{row[0]}.jpg", row[2])


_ALL = "train: 21 images, validation: 3 images, test: 6 images"
_NO_TEST = "train: 19 images, validation: 6 images, test: 5 images"
_OWN = "labels are those of the data: grin, laugh, neutral"
_GROUPS = (
    "train: 20 images of 4 groups by person, validation: 5 images of 1 group by person, "
    "test: 5 images of 1 group by person"
)

LAYOUTS = (
    Layout("Two CSV files and a zip", two_csvs, "", _ALL),
    Layout("CSV files beside the images", beside, "", _ALL),
    Layout("Three CSV files", three_csvs, "", "train: 18 images, validation: 6 images, test: 6 images"),
    Layout(
        "Tabs between the cells, and a byte order mark", tabs, "", "Note: train.tsv is read as UTF-8 text with tabs"
    ),
    Layout("One CSV file", one_csv, "--test_size 0.2", _ALL),
    Layout("Paths, with a split by person", of_people, "--test_size 0.2 --group_by person", _GROUPS),
    Layout("A CSV file from Excel", excel, "--test_size 0.2", "Note: faces.csv is read as cp1252 text with semicolons"),
    Layout(
        "Other names of columns and labels",
        other_names,
        "--test_size 0.2 --image_column picture --label_column emotion --id_column nr "
        "--label_map 'fake=negative smile,genuine=positive smile,none=NOT smile'",
        _ALL,
    ),
    Layout("Two labels of your own", two_labels, "--test_size 0.2 --labels smile 'NOT smile'", _ALL),
    Layout("One folder per class", class_folders, "--test_size 0.2", _ALL),
    Layout("Class folders of your own", own_folders, "--test_size 0.2", _OWN),
    Layout("Class folders inside split folders", split_folders, "", _ALL),
    Layout("The same without a test split", no_test_folder, "--test_size 0.2", _NO_TEST),
    Layout("A zip of class folders", zip_of_folders, "--test_size 0.2", _ALL, "faces.zip"),
    Layout("A folder with a zip of class folders", zip_of_folders, "--test_size 0.2", _ALL),
    Layout("metadata.csv beside the images", metadata_csv, "", _ALL),
    Layout("One metadata.csv for all splits", one_metadata, "", _ALL),
    Layout("metadata.jsonl", metadata_jsonl, "--test_size 0.2", _ALL),
    Layout("metadata.parquet", metadata_parquet, "--test_size 0.2", _ALL),
    Layout("Parquet files, as the Hub stores them", parquet, "", _ALL),
    Layout("A saved `DatasetDict` with train alone", saved_dict, "--test_size 0.2", _ALL),
    Layout("A saved `Dataset`", saved, "--test_size 0.2", _ALL),
    Layout("What `hf-smile prepare` writes", prepared, "", _ALL),
    Layout("What `hf-smile shard` writes", shards, "", "The images of train are streamed from 3 shards"),
    Layout("Pictures in newer and older formats (AVIF, GIF; HEIC with the extra `heif`)", formats, "", _ALL),
)


def tree(folder: Path, indent: str = "  ") -> list[str]:
    """Draw the folder as a tree, with `...` in place of most images."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    alike = [
        path for path in paths if path.suffix in (".jpg", ".avif", ".gif", ".heic") or path.name.startswith("person")
    ]
    left_out = set(alike[2:] if len(alike) > 3 else ())
    lines = []
    for path in paths:
        if path in left_out:
            lines += [f"{indent}..."] * (path is alike[2])
        elif path.is_dir():
            lines += [f"{indent}{path.name}/", *tree(path, indent + "  ")]
        else:
            lines.append(f"{indent}{path.name}")
    return lines


def command(layout: Layout, data_dir: str = "DATA") -> str:
    """Return the command as a user types it."""
    data = f"{data_dir}/{layout.data}" if layout.data else data_dir
    return f"hf-smile train --data_dir {data} {layout.options}".strip()


def document() -> str:
    """Return the part of docs/data.md about the layouts: an overview and a section for each."""
    overview, sections = ["| data | add to the command |", "| --- | --- |"], []
    for layout in LAYOUTS:
        anchor = re.sub(r"[^a-z0-9_ -]", "", layout.title.lower()).replace(" ", "-")
        options = re.sub(r"(--label_map) .*", r"\1 ...", layout.options)
        overview.append(f"| [{layout.title}](#{anchor}) | {f'`{options}`' if options else ''} |")
        with tempfile.TemporaryDirectory() as temporary:
            layout.build(Path(temporary, "DATA"))
            drawn = "\n".join(["DATA/", *tree(Path(temporary, "DATA"))])
        words = (
            command(layout)
            .replace(" --label_map", " \\\n    --label_map")
            .replace(" --image_column", " \\\n    --image_column")
        )
        blocks = (f"```\n{drawn}\n```", f"```bash\n{words}\n```", f"```\n{layout.prints}\n```")
        sections.append("\n\n".join([f"### {layout.title}", *blocks]))
    return "\n".join(overview) + "\n\n" + "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    print(document())
