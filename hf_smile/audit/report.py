"""Write audit.json, audit.md and the CSV lists of the findings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from hf_smile.audit.duplicates import HASH_BITS, THUMBNAIL_CORRELATION
from hf_smile.audit.pictures import plot_audit
from hf_smile.audit.run import Audit
from hf_smile.audit.splits import can_be_listed, clean_tables, link_images, write_annotations
from hf_smile.data.corrections import LEAVE_OUT, Decision, append, now
from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.numbers import markdown_table
from hf_smile.evaluation.predictions import write_predictions
from hf_smile.labels import LabelSet
from hf_smile.utils.csv_cells import guarded
from hf_smile.utils.words import counted

NO_FILES = (
    "the images are rows of a saved data set, which CSV files can't refer to; export them with "
    "hf-smile prepare --export_imagefolder DIR, and audit that folder"
)
SIGNIFICANT = 0.01
"""p-value below which similar images are reported as a leak."""

_ODD_TO_ACT_ON = ("dark", "bright", "low contrast", "blurred", "black or white bars", "not square")


def refuse_data(folder: Path, data_dir: Path) -> None:
    """Check that writing the audit to `folder` does not overwrite the data.

    Raises:
        SmileDataError: if it would.
    """
    if data_dir.resolve() in {(folder / name).resolve() for name in ("", "clean", "group_disjoint")}:
        raise SmileDataError(f"the audit would overwrite the data in {data_dir}; choose another --output_dir")


def write_report(audit: Audit, tables: Mapping[str, pd.DataFrame], images: Images, folder: Path) -> None:
    """Write the report, lists and plots, but no images, to `folder`.

    The files are the report `audit.md`, `audit.json` with all numbers, plots, and the lists `unreadable.csv`,
    `duplicates.csv`, `equal_hashes.csv` and `odd_pictures.csv`. With features, they include `clusters.csv`,
    `nearest_train.csv`, `neighbours.csv`, `suspicious_labels.csv` and `probe_predictions.csv` (out-of-fold predictions
    for every image; from fine-tuned models, `fold_predictions.csv`). Unless the images are rows of a saved data set,
    `group_disjoint/` is a data set of the same images in which no cluster is in both train and test.
    """
    lists = {
        "unreadable.csv": audit.unreadable,
        "duplicates.csv": audit.duplicates.drop(columns="row"),
        "equal_hashes.csv": audit.equal_hashes.drop(columns=["row", "kind"]),
        "odd_pictures.csv": audit.odd,
    }
    if audit.nearest_train is not None and audit.neighbours is not None:
        lists["clusters.csv"] = _list_clusters(audit)
        lists["nearest_train.csv"] = audit.nearest_train.round({"similarity": 4})
        lists["neighbours.csv"] = audit.neighbours.round({"similarity": 4})
    if audit.noise is not None:
        lists["suspicious_labels.csv"] = _suspicious_list(audit)
    for name, table in lists.items():
        _with_label_names(table, audit.labels).map(guarded).to_csv(folder / name, index=False, lineterminator="\n")
    if audit.group_disjoint is not None and can_be_listed(images):
        pooled = pd.concat(tables.values(), ignore_index=True)
        for split, chosen in (("train", ~audit.group_disjoint), ("test", audit.group_disjoint)):
            ids = audit.scan.loc[chosen, "image_id"]
            path = folder / "group_disjoint" / f"{split}.csv"
            write_annotations(pooled[pooled["image_id"].isin(ids)], path, audit.labels)
        link_images(images, folder / "group_disjoint")
    ids, label_ids = audit.scan["image_id"].tolist(), audit.scan["label"].to_numpy()
    for file, said in (("probe_predictions.csv", audit.probabilities), ("fold_predictions.csv", audit.by_models)):
        (folder / file).unlink(missing_ok=True)  # from an earlier audit
        if said is not None:
            write_predictions(folder / file, ids, label_ids, said, labels=audit.labels)
    plots = plot_audit(audit, folder)
    (folder / "audit.json").write_text(json.dumps(audit.summary, indent=2) + "\n", encoding="utf-8")
    (folder / "audit.md").write_text(_render(audit, list(lists), plots, can_be_listed(images)), encoding="utf-8")


def require_files(images: Images, option: str) -> None:
    """Check that CSV files can refer to the images, which an option of the command requires.

    Raises:
        SmileDataError: if the images are rows of a saved data set.
    """
    if not can_be_listed(images):
        raise SmileDataError(f"{images.path}: {option} writes CSV files, but {NO_FILES}")


def write_clean(audit: Audit, tables: Mapping[str, pd.DataFrame], images: Images, folder: Path) -> dict[str, int]:
    """Write a data set without leaks and conflicts (see `clean_tables`) to `folder`.

    Returns:
        Number of images in each file, by name.
    """
    cleaned = clean_tables(tables, audit.duplicates, set(audit.unreadable["image_id"]))
    for name, table in cleaned.items():
        write_annotations(table, folder / f"{name}.csv", audit.labels)
    link_images(images, folder)
    return {name: len(table) for name, table in cleaned.items()}


def write_leave_out(audit: Audit, share: float, path: Path) -> int:
    """Write a corrections file that leaves the images with the most suspicious labels out of train.

    Args:
        audit: result of the audit.
        share: maximum share of train to leave out, 0 to 1.
        path: file to write. An existing file is replaced.

    Returns:
        Number of images in the file.

    Raises:
        SmileDataError: if the audit did not estimate label noise, or the file can't be written.
    """
    if audit.noise is None:
        raise SmileDataError(f"no labels to leave out: {audit.summary['labels']['not_estimated']}")
    doubted = audit.scan.iloc[audit.noise.suspicious["row"]]
    doubted = doubted[doubted["split"] == "train"].head(int(share * (audit.scan["split"] == "train").sum()))
    path.unlink(missing_ok=True)
    for image_id, label in zip(doubted["image_id"], doubted["label"], strict=True):
        append(path, Decision(image_id, audit.labels[label], "", LEAVE_OUT, "hf-smile audit", now()))
    return len(doubted)


def to_act_on(audit: Audit) -> list[str]:
    """The problems that the user should act on, worst first."""
    summary = audit.summary
    duplicates = summary["duplicates"]["all"]
    probe = summary.get("likeness", {}).get("probe")
    found = []
    if count := summary["images"]["unreadable"]:
        found.append(f"{counted(count, 'image')} can't be read (unreadable.csv): fix them or leave them out.")
    if count := duplicates["groups_in_train_and_test"]:
        found.append(
            f"{counted(count, 'picture')} in both train and test (duplicates.csv). `--write_clean` removes them from "
            "train. Test models that were trained on them on clean/test_without_leaks.csv."
        )
    if count := duplicates["groups_with_differing_labels"]:
        found.append(
            f"{counted(count, 'picture')} with more than one label (duplicates.csv): decide on one. "
            "`--write_clean` leaves them out."
        )
    if probe and probe["p_value"] < SIGNIFICANT:
        apart, together = (probe[name]["accuracy"] for name in ("clusters_divided", "clusters_kept_together"))
        found.append(
            f"Images similar to a training image are easier: a probe trained on similar images is right on {apart:.1%} "
            f"of them, one without on {together:.1%}. Also report the score on the split in group_disjoint/."
        )
    if count := summary.get("labels", {}).get("suspicious"):
        found.append(f"{counted(count, 'label')} to review (suspicious_labels.csv), most suspicious first.")
    if odd := [f"{n:,} {what}" for what, n in summary["pictures"]["odd"].items() if what in _ODD_TO_ACT_ON]:
        found.append(f"Unusual images (odd_pictures.csv): {', '.join(odd)}.")
    return found


def _render(audit: Audit, lists: list[str], plots: list[str], has_files: bool) -> str:
    """Render the template `audit.md`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": "{:,}".format, "share": "{:.1%}".format, "interval": _interval}
    environment.filters["paragraph"] = lambda text: " ".join(text.split()) + "\n"
    return environment.get_template("audit.md").render(
        **audit.summary,
        actions=to_act_on(audit),
        same_picture=(HASH_BITS, THUMBNAIL_CORRELATION),
        groups=_group_row,
        class_table=_class_table,
        measure_table=_measure_table,
        has_files=has_files,
        no_files=NO_FILES,
        files=["audit.json", *lists, *plots],
    )


def _group_row(words: str, counts: Mapping[str, int]) -> str:
    columns = ("groups", "images", "groups_in_train_and_test", "groups_with_differing_labels")
    return f"| {words} | {' | '.join(f'{counts[column]:,}' for column in columns)} |"


def _class_table(classes: Mapping[str, Mapping[str, int]]) -> str:
    table = pd.DataFrame(classes).T
    cells = table.map("{:,}".format) + table.div(table.sum(axis=1).clip(lower=1), axis=0).map(" ({:.1%})".format)
    rows = [[split, f"{table.loc[split].sum():,}", *cells.loc[split]] for split in table.index]
    return markdown_table(["split", "images", *table.columns], rows)


def _measure_table(measures: Mapping[str, Mapping[str, float]]) -> str:
    """A table with a row for each key and a column for each of its measurements."""

    def cell(name: str, value: float) -> str:
        return f"{value:.1%}" if name == "grey" else f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"

    rows = [
        [row.replace("_", " "), *(cell(name, value) for name, value in values.items())]
        for row, values in measures.items()
    ]
    return markdown_table(["", *(name.replace("_", " ") for name in next(iter(measures.values())))], rows)


def _list_clusters(audit: Audit) -> pd.DataFrame:
    """The images in clusters of at least two. `cluster` counts from 1, largest cluster first."""
    table = audit.scan[["image_id", "split", "label"]].assign(size=np.bincount(audit.cluster)[audit.cluster])
    table.insert(0, "cluster", audit.cluster)
    table = table[table["size"] > 1].sort_values(["size", "cluster"], ascending=[False, True], kind="stable")
    return table.assign(cluster=pd.factorize(table["cluster"])[0] + 1).drop(columns="size")


def _suspicious_list(audit: Audit) -> pd.DataFrame:
    assert audit.noise is not None
    table = audit.noise.suspicious
    images = audit.scan.iloc[table["row"]][["image_id", "split"]].reset_index(drop=True)
    return pd.concat([images, table.drop(columns="row").round(4)], axis=1)


def _with_label_names(table: pd.DataFrame, labels: LabelSet) -> pd.DataFrame:
    columns = table.columns.intersection(["label", "likely_label", "train_label"])
    return table.assign(**{column: table[column].map(labels.id2label) for column in columns})


def _interval(part: Mapping[str, float]) -> str:
    if not part["images"]:
        return "none"
    return f"{part['accuracy']:.1%} ({part['low']:.1%} to {part['high']:.1%})"
