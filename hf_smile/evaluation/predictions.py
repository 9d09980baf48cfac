"""The predictions file: a CSV file with one row per image, its true label, predicted label and probabilities.

Text that a spreadsheet would run as a formula is written with an apostrophe in front (OWASP, "CSV Injection"), which is
removed when the file is read.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_smile.errors import Problems, SmileDataError
from hf_smile.evaluation.metrics import SUM_TOLERANCE, FloatArray, IntArray, check_inputs
from hf_smile.evaluation.schema import OWN_COLUMNS, prediction_columns, probability_columns
from hf_smile.labels import SMILE_LABELS, LabelSet, label_slug
from hf_smile.utils.csv_cells import guarded, unguarded
from hf_smile.utils.words import counted

_WRITTEN_BY = "test_predictions.csv from hf-smile train, or predictions.csv from hf-smile evaluate"
_EARLIER_COLUMNS = {"label": "true_label", "prediction": "predicted_label"}
"""Column names in files of earlier versions, and the current ones."""


@dataclass(frozen=True)
class Predictions:
    """The contents of a predictions file as arrays, in the order of the file."""

    image_ids: list[str]
    label_ids: IntArray
    """(N,) true label ids."""
    probabilities: FloatArray
    """(N, K), each row summing to one."""
    further_columns: dict[str, list[str]] = field(default_factory=dict)
    """(N,) values of additional columns, by name."""
    labels: LabelSet = SMILE_LABELS
    """The K labels."""

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def predicted_ids(self) -> IntArray:
        """(N,) label id of the highest probability, the first one in a tie."""
        return self.probabilities.argmax(axis=1)

    def take(self, rows: Sequence[int]) -> Predictions:
        """The predictions of these rows, in this order."""
        return Predictions(
            [self.image_ids[row] for row in rows],
            self.label_ids[rows],
            self.probabilities[rows],
            {name: [values[row] for row in rows] for name, values in self.further_columns.items()},
            self.labels,
        )


def write_predictions(
    path: str | Path,
    image_ids: Sequence[str],
    label_ids: ArrayLike,
    probabilities: ArrayLike,
    further_columns: Mapping[str, Sequence[Any]] | None = None,
    labels: LabelSet = SMILE_LABELS,
) -> None:
    """Write a predictions file. `read_predictions` returns exactly the same numbers.

    Args:
        path: CSV file to write; its folder is created if needed.
        image_ids: (N,) image ids, any text.
        label_ids: (N,) true label ids.
        probabilities: (N, K), each row summing to one.
        further_columns: (N,) values by column name, for example annotation columns to group the report by.
        labels: the K labels.

    Raises:
        SmileDataError: if the inputs differ in length, are not probabilities and label ids, or an additional column
            has the name of a standard column.

    >>> write_predictions("predictions.csv", ["1.jpg"], [1], [[0.2, 0.7, 0.1]])  # doctest: +SKIP
    """
    probabilities, label_ids = check_inputs(probabilities, label_ids, len(labels))
    columns = prediction_columns(labels)
    further_columns = dict(further_columns or {})
    if twice := [name for name in further_columns if name in columns]:
        raise SmileDataError(f"{twice[0]!r} is a column of every predictions file; rename the additional column")
    for name, column in {"image_id": image_ids, **further_columns}.items():
        if len(column) != len(label_ids):
            raise SmileDataError(
                f"column {name!r} has {counted(len(column), 'value')} for {counted(len(label_ids), 'prediction')}"
            )

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *map(guarded, further_columns)])
        rows = zip(image_ids, label_ids, probabilities, *further_columns.values(), strict=True)
        for image_id, label_id, row, *further in rows:
            names = labels[label_id], labels[row.argmax()]
            writer.writerow([guarded(image_id), *names, *row.tolist(), *map(guarded, further)])


def read_predictions(path: str | Path) -> Predictions:
    """Read a predictions file, from hf_smile or any other program.

    Args:
        path: UTF-8 CSV file with the columns `image_id`, `true_label`, `predicted_label` and one `p_<label>` per label,
            in any order. Additional columns are kept as text. If the file has none of the default labels, its own
            labels are used, in their order. In files of earlier versions, with a column `prediction`, the column
            `label` is the true label.

    Raises:
        SmileDataError: if the file can't be read, lacks a column or has no true labels, or if rows are invalid. Lists
            all invalid rows by file and line: unknown labels, duplicate ids, probabilities that are not numbers or do
            not sum to one, and predicted labels without the highest probability.

    >>> predictions = read_predictions("predictions.csv")  # doctest: +SKIP
    >>> predictions.probabilities.shape  # doctest: +SKIP
    (1611, 3)
    """
    path = Path(path)
    header, lines, labels = _read_lines(path)
    problems = Problems()
    ids: dict[str, int] = {}
    label_ids: list[int] = []
    rows: list[list[float]] = []
    further: dict[str, list[str]] = {name: [] for name in header if name not in prediction_columns(labels)}
    for line, cells in lines:
        where = f"{path.name}:{line}"
        if len(cells) != len(header):
            problems.append(f"{where}: {counted(len(cells), 'cell')}, but the header has {len(header)}")
            continue
        row = dict(zip(header, cells, strict=True))
        image_id = unguarded(row["image_id"])
        if not image_id:
            problems.append(f"{where}: empty image_id")
        elif image_id in ids:
            problems.append(f"{where}: image_id {image_id!r} appears twice, first in line {ids[image_id]}")
        ids.setdefault(image_id, line)
        try:
            label_id, prediction = labels.parse(row["true_label"]), labels.parse(row["predicted_label"])
            probabilities = _parse_probabilities(row, prediction, labels)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        label_ids.append(label_id)
        rows.append(probabilities)
        for name, values in further.items():
            values.append(unguarded(row[name]))
    problems.raise_if_any(str(path))
    return Predictions(list(ids), np.array(label_ids), np.array(rows), further, labels)


def align(a: Predictions, b: Predictions, name_a: str = "A", name_b: str = "B") -> Predictions:
    """Reorder `b` like `a`, so that row i of both is the same image.

    Raises:
        SmileDataError: if an image is in only one of them, or its true label differs. Lists all such images.

    >>> a = Predictions(["1", "2"], np.array([0, 1]), np.eye(3)[:2])
    >>> align(a, a.take([1, 0])).image_ids
    ['1', '2']
    """
    if a.labels.slugs != b.labels.slugs:
        raise SmileDataError(f"{name_a} has the labels {a.labels}, but {name_b} has {b.labels}; they must be the same")
    row_of = {image_id: row for row, image_id in enumerate(b.image_ids)}
    known = set(a.image_ids)
    if known.isdisjoint(row_of):
        raise SmileDataError(
            f"{name_a} and {name_b} have no image in common; use predictions for the same split of the same data"
        )
    problems = Problems(
        f"image_id {image_id!r} is missing in {name_b}" for image_id in a.image_ids if image_id not in row_of
    )
    problems += (f"image_id {image_id!r} is missing in {name_a}" for image_id in b.image_ids if image_id not in known)
    for image_id, label_id in zip(a.image_ids, a.label_ids, strict=True):
        if image_id in row_of and label_id != (other := b.label_ids[row_of[image_id]]):
            labels = f"{a.labels[label_id]!r} in {name_a} and {a.labels[other]!r} in {name_b}"
            problems.append(f"image_id {image_id!r} has the label {labels}")
    problems.raise_if_any(f"{name_a} and {name_b}, which must be predictions for the same images")
    return b.take([row_of[image_id] for image_id in a.image_ids])


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], LabelSet]:
    """The column names, the lines that are not blank as (line number, cells), and the labels."""
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        lines = [(reader.line_num, cells) for cells in reader if any(cells)]
    except OSError as error:
        raise SmileDataError(f"{path} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SmileDataError(f"{path} is not a CSV file in UTF-8: {error}") from None
    if len(lines) < 2:
        raise SmileDataError(
            f"{path} is empty: it needs a header ({','.join(prediction_columns(SMILE_LABELS))}) and one row per image"
        )
    header = [unguarded(name) for name in lines.pop(0)[1]]
    if "prediction" in header and not {"true_label", "predicted_label"} & set(header):
        header = [_EARLIER_COLUMNS.get(name, name) for name in header]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise SmileDataError(f"{path}: the cells are not separated by commas; save it as comma-separated CSV")
    labels = _labels_of(header, lines)
    columns = prediction_columns(labels)
    problems = Problems(
        f"no column {name!r}; the header has {', '.join(header)}" for name in columns if name not in header
    )
    problems += (f"column {name!r} appears twice" for name in dict.fromkeys(header) if header.count(name) > 1)
    problems.raise_if_any(path, f"Use {_WRITTEN_BY}.")
    column = header.index("true_label")
    if not any(cells[column].strip() for _, cells in lines if len(cells) == len(header)):
        raise SmileDataError(
            f"{path} has no true labels to compare the predictions with; fill in its column true_label, or use "
            f"{_WRITTEN_BY}"
        )
    return header, lines, labels


def _labels_of(header: list[str], lines: list[tuple[int, list[str]]]) -> LabelSet:
    """The default labels, unless the file only has probabilities of others, which are spelled as in its cells."""
    if "predicted_label" not in header or {"p_negative_smile", "p_positive_smile"} & {*header}:
        return SMILE_LABELS
    following = takewhile(lambda name: name.startswith("p_"), header[header.index("predicted_label") + 1 :])
    slugs = [name.removeprefix("p_") for name in following]
    at = [header.index(name) for name in OWN_COLUMNS[1:] if name in header]
    names = {cells[column] for _, cells in lines if len(cells) == len(header) for column in at}
    spelled = {label_slug(name): name for name in sorted(names)}
    if len(slugs) > 2 and slugs[-1] == "smile" and "smile" not in spelled:  # the summed probability of all smiles
        slugs.pop()
    try:
        return LabelSet(tuple(spelled.get(slug, slug) for slug in slugs))
    except ValueError:
        return SMILE_LABELS


def _parse_probabilities(row: Mapping[str, str], prediction: int, labels: LabelSet) -> list[float]:
    """The probabilities of a row. Raises ValueError with a readable message."""
    cells = [row[name] for name in probability_columns(labels).values()]
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        raise ValueError(f"probabilities must be numbers; got {', '.join(cells)}") from None
    if not all(0 <= value <= 1 + SUM_TOLERANCE for value in values):  # NaN fails this too
        raise ValueError(f"probabilities must lie between 0 and 1; got {', '.join(cells)}")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise ValueError(f"probabilities must sum to 1; {', '.join(cells)} sum to {sum(values):.4g}")
    if values[prediction] < max(values) - SUM_TOLERANCE:
        highest = labels[values.index(max(values))]
        raise ValueError(f"predicted_label is {labels[prediction]!r}, but {highest!r} has the highest probability")
    return values


def images_digest(image_ids: Iterable[str]) -> str:
    """A digest of image ids that does not depend on their order.

    >>> images_digest(["a", "b"]) == images_digest(["b", "a"])
    True
    """
    return hashlib.sha256("\n".join(sorted(image_ids)).encode()).hexdigest()[:16]
