"""Prediction for very many images, in parts that are written atomically, so that it can be resumed and shared."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from hf_smile.data.images import encoded_bytes
from hf_smile.data.sources import ImageSource
from hf_smile.errors import SmileDataError, first_line
from hf_smile.evaluation.schema import OWN_COLUMNS, probability_columns
from hf_smile.inference.classifier import NamedImage, SmileClassifier
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.shards.folder import is_sharded, rows_of
from hf_smile.utils.files import make_folder, write_text, written_whole

SETTINGS = "predictions.json"

_ROW_GROUP = 10_000


def schema_of(labels: LabelSet) -> pa.Schema:
    """Schema of a part. Predictions are null for rows with an `error`; `true_label` is null if it is unknown."""
    text, numbers = [(name, pa.string()) for name in OWN_COLUMNS], probability_columns(labels).values()
    return pa.schema([*text, *((name, pa.float32()) for name in numbers), ("error", pa.string())])


@dataclass(frozen=True)
class Part:
    """Some of the images: those of one shard, or a slice of a folder or zip."""

    name: str
    """Path of the file with their predictions, relative to the output folder."""
    images: int
    content: str
    """Identifies the images: the file size of a shard, otherwise a digest of the images' names and sizes."""
    rows: Callable[[], Iterator[tuple[NamedImage, str | None]]]
    """Returns the images, each with its true label if known."""


def find_parts(data: str | Path, part_size: int = 2000) -> list[Part]:
    """Divide a folder of Parquet shards (with its subfolders), a folder of images, or a zip into parts.

    Only the footers of shards are read. The list of names of a folder or zip is read and kept in memory.

    Raises:
        SmileDataError: there is nothing to predict, or a shard is missing, damaged or has no images.

    >>> [part.name for part in find_parts("data/shards")]  # doctest: +SKIP
    ['test/00000-of-00001.parquet', 'train/00000-of-00008.parquet', ...]
    """
    path = Path(data)
    is_sharded(path)  # raises if shards are missing
    files = [path] if path.suffix == ".parquet" and path.is_file() else sorted(path.rglob("*.parquet"))
    if files:
        return [_shard(file, file.name if file == path else str(file.relative_to(path))) for file in files]
    source = ImageSource(path)
    if not len(source):
        raise SmileDataError(source.why_empty)
    names = list(source.names)
    count = -(-len(names) // part_size)
    parts = []
    for number in range(count):
        some = names[number * part_size : (number + 1) * part_size]
        content = _digest([(name, source.size(name)) for name in some])
        name = f"{number:05d}-of-{count:05d}.parquet"
        parts.append(Part(name, len(some), content, partial(_images, source, some)))
    return parts


def predict_part(
    classifier: SmileClassifier, part: Part, path: Path, batch_size: int, progress: Callable[[int], object]
) -> None:
    """Write the predictions for one part atomically. An image that fails gets a row with an `error`.

    Memory holds a batch of images, a row group of the shard and `_ROW_GROUP` rows of predictions.

    Args:
        classifier: the classifier.
        part: the part to predict.
        path: Parquet file to write.
        batch_size: images per batch.
        progress: called with the number of images done since the last call.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    true_labels: list[str | None] = []

    def images() -> Iterator[NamedImage]:
        for image, true_label in part.rows():
            true_labels.append(true_label)
            yield image

    predictions = classifier.predict(images(), batch_size)
    verdicts: Counter[str] = Counter()
    schema = schema_of(classifier.labels)
    with written_whole(path) as unfinished, pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        while group := list(itertools.islice(predictions, _ROW_GROUP)):
            rows: list[dict[str, Any]] = []
            for prediction in group:
                rows.append(replace(prediction, true_label=true_labels.pop(0)).to_dict())
                verdicts[prediction.label or "error"] += 1
                progress(1)
            writer.write_table(pa.Table.from_pylist(rows, schema))
        writer.add_key_value_metadata({"hf_smile.verdicts": json.dumps(verdicts)})


def verdicts_of(path: Path) -> Counter[str]:
    """Count the images of a finished part by predicted label or `error`.

    Raises:
        SmileDataError: the file was not written by `predict_part`.
    """
    try:
        return Counter(json.loads((pq.read_metadata(path).metadata or {})[b"hf_smile.verdicts"]))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise SmileDataError(
            f"{path}: not a readable file of predictions ({first_line(error)}); delete it and run the same command "
            "again"
        ) from None


def open_predictions(output_dir: str | Path, settings: dict[str, Any], labels: LabelSet = SMILE_LABELS) -> None:
    """Create the output folder, or check that its predictions have the same settings.

    Raises:
        SmileDataError: the folder has predictions of other data, another model or other columns, or its settings
            can't be read.
    """
    folder = Path(output_dir)
    make_folder(folder)
    path = folder / SETTINGS
    settings = {**settings, "columns": schema_of(labels).names}
    if not path.exists():
        write_text(path, json.dumps(settings, indent=2) + "\n", shared=True)
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise SmileDataError(
            f"{path} can't be read ({first_line(error)}), so the settings of the predictions in this folder are "
            "unknown; delete the folder, or name another --output_dir"
        ) from None
    if changed := [name for name in settings if earlier.get(name) != settings[name]]:
        raise SmileDataError(
            f"{folder} holds predictions with other settings ({', '.join(changed)}); name another --output_dir"
        )


def parts_digest(parts: list[Part]) -> str:
    """Digest that identifies the images and their division into parts."""
    return _digest([(part.name, part.images, part.content) for part in parts])


def _digest(what: list[Any]) -> str:
    return hashlib.blake2b(repr(what).encode(), digest_size=8).hexdigest()


def _shard(file: Path, name: str) -> Part:
    images = rows_of(file)
    features = Features.from_arrow_schema(pq.read_schema(file))
    if "image" not in features:
        raise SmileDataError(f"{file}: no column 'image'; it has {', '.join(features)}")
    columns = [column for column in ("image", "image_id", "label") if column in features]
    names = getattr(features.get("label"), "names", None)
    return Part(name, images, str(file.stat().st_size), partial(_rows, file, name, columns, names or []))


def _rows(file: Path, name: str, columns: list[str], names: list[str]) -> Iterator[tuple[NamedImage, str | None]]:
    number = itertools.count()
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=100, columns=columns):
            for row in batch.to_pylist():
                known = row.get("image_id")
                image_id = f"{name}:{next(number)}" if known in (None, "") else str(known)
                label = row["label"] if names else None
                true_label = names[label] if label is not None and 0 <= label < len(names) else None  # -1 is unknown
                yield NamedImage(image_id, partial(encoded_bytes, row["image"])), true_label
    except (pa.ArrowException, OSError) as error:
        raise SmileDataError(f"{file}: can't be read to its end ({first_line(error)}); write it again") from None


def _images(source: ImageSource, names: list[str]) -> Iterator[tuple[NamedImage, str | None]]:
    for name in names:
        yield NamedImage(name, partial(source.read, name)), None
