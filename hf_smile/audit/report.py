"""audit.json, audit.md and the CSV lists: what was found, what to act on first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hf_smile.audit.duplicates import HASH_BITS, THUMBNAIL_CORRELATION
from hf_smile.audit.leakage import BINS
from hf_smile.audit.pictures import plot_audit
from hf_smile.audit.run import Audit
from hf_smile.audit.splits import can_be_listed, clean_tables, link_images, write_annotations
from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.predictions import write_predictions
from hf_smile.labels import LabelSet
from hf_smile.utils.csv_cells import guarded

NO_FILES = (
    "the images are rows of a saved data set, which CSV files can't name; write them to a folder with "
    "hf-smile prepare --export_imagefolder DIR, and audit that one"
)
SIGNIFICANT = 0.01
"""p-value below which images that are alike count as a leak."""

_ODD_TO_ACT_ON = ("dark", "bright", "low contrast", "blurred", "black or white bars", "not square")


def refuse_data(folder: Path, data_dir: Path) -> None:
    """See that what the audit writes into `folder` does not replace the data themselves.

    Raises:
        SmileDataError: it would.
    """
    if data_dir.resolve() in {(folder / name).resolve() for name in ("", "clean", "group_disjoint")}:
        raise SmileDataError(f"the audit would write over the data in {data_dir}; name another --output_dir")


def write_report(audit: Audit, tables: Mapping[str, pd.DataFrame], images: Images, folder: Path) -> None:
    """Write everything but images into `folder`.

    `audit.md` to read, `audit.json` with all numbers, plots, the lists `unreadable.csv`, `duplicates.csv`,
    `equal_hashes.csv`, `odd_pictures.csv`, and with features `clusters.csv`, `nearest_train.csv`, `neighbours.csv`,
    `suspicious_labels.csv` and `probe_predictions.csv` (out of fold, of every image); and `group_disjoint/`, a data set
    of its own with the same images in a split that no cluster straddles, unless the images are rows of a saved data
    set.
    """
    lists = {
        "unreadable.csv": audit.unreadable,
        "duplicates.csv": audit.duplicates.drop(columns="row"),
        "equal_hashes.csv": audit.equal_hashes.drop(columns=["row", "kind"]),
        "odd_pictures.csv": audit.odd,
    }
    if audit.nearest_train is not None and audit.neighbours is not None:
        lists["clusters.csv"] = list_clusters(audit)
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
    if audit.probabilities is not None:
        ids, label_ids = audit.scan["image_id"].tolist(), audit.scan["label"].to_numpy()
        write_predictions(folder / "probe_predictions.csv", ids, label_ids, audit.probabilities, labels=audit.labels)
    plots = plot_audit(audit, folder)
    (folder / "audit.json").write_text(json.dumps(audit.summary, indent=2) + "\n", encoding="utf-8")
    (folder / "audit.md").write_text(_render(audit, list(lists), plots, can_be_listed(images)), encoding="utf-8")


def require_files(images: Images) -> None:
    """See that CSV files can name the images.

    Raises:
        SmileDataError: they are rows of a saved data set.
    """
    if not can_be_listed(images):
        raise SmileDataError(f"{images.path}: --write_clean writes CSV files, and {NO_FILES}")


def write_clean(audit: Audit, tables: Mapping[str, pd.DataFrame], images: Images, folder: Path) -> dict[str, int]:
    """Write the splits without leaks and conflicts (see `clean_tables`) into `folder`, a data set of its own.

    Returns:
        Images left in each file, by its name.

    Raises:
        SmileDataError: the images are rows of a saved data set.
    """
    require_files(images)
    cleaned = clean_tables(tables, audit.duplicates, set(audit.unreadable["image_id"]))
    for name, table in cleaned.items():
        write_annotations(table, folder / f"{name}.csv", audit.labels)
    link_images(images, folder)
    return {name: len(table) for name, table in cleaned.items()}


def to_act_on(audit: Audit) -> list[str]:
    """What the data's owner should do something about, the worst first, a sentence each."""
    summary = audit.summary
    duplicates, labels = summary["duplicates"]["all"], summary.get("labels", {})
    found = []
    if count := summary["images"]["unreadable"]:
        found.append(f"{_count(count, 'image')} can't be read (unreadable.csv): mend them or leave them out.")
    if count := duplicates["groups_in_train_and_test"]:
        found.append(
            f"{_count(count, 'picture')} in train and test at once (duplicates.csv). `--write_clean` leaves them out "
            "of train; a model that has seen them is to be tested on clean/test_without_leaks.csv."
        )
    if count := duplicates["groups_with_differing_labels"]:
        found.append(
            f"{_count(count, 'picture')} with more than one label (duplicates.csv): decide on one; "
            "`--write_clean` leaves them out."
        )
    probe = summary.get("likeness", {}).get("probe")
    if probe and probe["p_value"] < SIGNIFICANT:
        found.append(
            f"Images like a train image are easier: a probe that knows images like them is right on "
            f"{probe['clusters_divided']['accuracy']:.1%} of them, one that does not on "
            f"{probe['clusters_kept_together']['accuracy']:.1%}. Report the score on a split that no cluster straddles "
            "beside the one on the given split."
        )
    if count := labels.get("suspicious"):
        found.append(f"{_count(count, 'label')} to look at (suspicious_labels.csv), the most suspicious first.")
    odd = {what: n for what, n in summary["pictures"]["odd"].items() if what in _ODD_TO_ACT_ON}
    if odd:
        found.append(f"Odd pictures (odd_pictures.csv): {', '.join(f'{n:,} {what}' for what, n in odd.items())}.")
    return found


def _render(audit: Audit, lists: list[str], plots: list[str], has_files: bool) -> str:
    summary = audit.summary
    images = summary["images"]
    actions = to_act_on(audit) or ["Nothing was found."]
    sections = [
        f"# Audit of {summary.get('data', 'the data set')}",
        f"{images['all']:,} images, {images['unreadable']:,} of them can't be read.",
        "## To act on",
        "\n".join(f"{number}. {words}" for number, words in enumerate(actions, 1)),
        "## Classes",
        _class_lines(summary["classes"]),
        "## Duplicates",
        _duplicate_lines(summary["duplicates"]),
    ]
    if "likeness" in summary or "accuracy" in summary:
        sections += ["## Likeness of train and test", _likeness_lines(summary, plots)]
    sections += ["## A split that no cluster straddles", _split_lines(summary, plots, has_files)]
    if "labels" in summary:
        sections += ["## Labels", _label_lines(summary["labels"])]
    sections += ["## Pictures", _picture_lines(summary["pictures"])]
    if "likeness" not in summary:
        sections.append("Likeness of train and test and suspicious labels were not looked for: they need `--backbone`.")
    sections += ["## Files", ", ".join(["audit.json", *lists, *plots])]
    return "\n\n".join(sections) + "\n"


def _class_lines(classes: Mapping[str, Mapping[str, int]]) -> str:
    rows = []
    for split, counts in classes.items():
        total = sum(counts.values())
        rows.append([split, f"{total:,}", *(f"{n:,} ({n / max(total, 1):.1%})" for n in counts.values())])
    return _table(["split", "images", *next(iter(classes.values()))], rows)


def _duplicate_lines(duplicates: Mapping[str, Any]) -> str:
    names = {
        "same_bytes": "same bytes",
        "same_picture": f"same picture (difference hash within {HASH_BITS} bits, thumbnails correlate to "
        f"{THUMBNAIL_CORRELATION})",
        "similar": f"similar features (cosine {duplicates.get('similarity_threshold')} or more)",
        "all": "**all together**",
        "equal_hash": "for comparison: equal 64-bit difference hash, of either kind",
    }
    columns = ("groups", "images", "groups_in_train_and_test", "groups_with_differing_labels")
    if "similarity_threshold" not in duplicates:  # there were no features
        del names["similar"]
    rows = [[words, *(f"{duplicates[name][column]:,}" for column in columns)] for name, words in names.items()]
    return (
        _table(["", "groups", "images", "in train and test", "labels differ"], rows)
        + "\n\nAn equal hash alone does not make a duplicate: faces fill their crops alike, and some hashes are equal "
        "by chance. The groups are in duplicates.csv, those of equal hash in equal_hashes.csv."
    )


def _likeness_lines(summary: Mapping[str, Any], plots: list[str]) -> str:
    lines = []
    if likeness := summary.get("likeness"):
        quantiles = likeness["quantiles"]
        lines.append(
            f"Cosine similarity of each test image to the nearest train image: median {quantiles['0.50']:.2f}, "
            f"95 % of them below {quantiles['0.95']:.2f}. {likeness['test_images_like_a_train_image']:,} reach "
            f"{summary['clusters']['similarity']:.2f}, from which images are kept together. The nearest train image "
            f"has the same label for {likeness['nearest_has_same_label']:.1%}.\n\n![similarity](similarity.png)"
        )
        if probe := likeness.get("probe"):
            lines.append(
                "Does knowing such images help? A linear probe is right on "
                f"{_interval(probe['clusters_divided'])} of the images in clusters when its folds divide the clusters, "
                f"and on {_interval(probe['clusters_kept_together'])} when they keep them together "
                f"(p = {probe['p_value']:.2g})."
            )
    if accuracy := summary.get("accuracy"):
        rows = [
            [name.replace("_", " "), f"{part['images']:,}", _interval(part)]
            for name, part in accuracy.items()
            if name != "by_similarity"
        ]
        lines.append(_table(["test images", "images", "accuracy (95 % interval)"], rows))
    if "accuracy_by_similarity.png" in plots:
        rows = [
            [f"{part['similarity_from']:.2f} to {part['similarity_to']:.2f}", f"{part['images']:,}", _interval(part)]
            for part in summary["accuracy"]["by_similarity"]
        ]
        lines.append(f"In {BINS} parts of equal size, from the least to the most like a train image:")
        lines.append(_table(["similarity", "images", "accuracy (95 % interval)"], rows))
        lines.append("![accuracy by similarity](accuracy_by_similarity.png)")
    return "\n\n".join(lines)


def _split_lines(summary: Mapping[str, Any], plots: list[str], has_files: bool) -> str:
    clusters, split = summary["clusters"], summary["group_disjoint"]
    reason, alike = "duplicates", ""
    if clusters["similarity"] is not None:
        reason = f"duplicates and images of similarity {clusters['similarity']:.2f} or more"
        alike = (
            " They are alike in what the backbone sees: with one that was trained on faces a cluster is mostly one "
            "person, with others a scene. The clusters of several are in clusters.csv."
        )
    lines = [
        f"Linking {reason}, {clusters['images_in_them']:,} images fall into {clusters['clusters_of_several']:,} "
        f"clusters of several, the largest of {clusters['largest']:,}; {clusters['in_train_and_test']:,} of the "
        "clusters are in train and test. Clusters by size: "
        + ", ".join(f"{n:,} of {size}" for size, n in clusters["clusters_by_size"].items())
        + "."
        + alike
    ]
    if "clusters.png" in plots:
        lines.append("![clusters](clusters.png)")
    if split is None:
        lines.append("They can't be divided into train and test.")
    else:
        written = "group_disjoint/train.csv and group_disjoint/test.csv keep each cluster on one side"
        lines.append(f"{written if has_files else f'A split that keeps each on one side was not written: {NO_FILES}'}:")
        lines.append(_class_lines(split))
    return "\n\n".join(lines)


def _label_lines(labels: Mapping[str, Any]) -> str:
    if "not_estimated" in labels:
        return f"Not estimated: {labels['not_estimated']}."
    rows = [
        [name, f"{labels['noise_by_class'][name]:.1%}", f"{labels['suspicious_by_class'][name]:,}"]
        for name in labels["noise_by_class"]
    ]
    probe = labels["probe_accuracy"]
    share = labels["suspicious"] / probe["images"]
    return (
        f"A linear probe on the features, on images it has not seen, agrees with {_interval(probe)} of the labels. "
        f"Where it is sure of another class, the label is suspicious: {labels['suspicious']:,} are ({share:.1%}). Of "
        "labels changed on purpose it finds "
        f"{labels['share_of_planted_errors_found']:.1%}; guessing would find {share:.1%}.\n\n"
        + _table(["given label", "estimated noise", "suspicious labels"], rows)
        + "\n\nThe estimate takes the probe's own mistakes for noise: the weaker the probe, the further it is above "
        "the truth. Trust the order of the list more than its length.\n\n![label noise](label_noise.png)"
    )


def _picture_lines(pictures: Mapping[str, Any]) -> str:
    numbers = pictures["quantiles"]
    rows = [
        [name.replace("_", " "), *(f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}" for value in values.values())]
        for name, values in numbers.items()
    ]
    header = ["", *next(iter(numbers.values()))]
    by_class = pictures["by_class"]
    measures = list(next(iter(by_class.values())))
    class_rows = [
        [
            label,
            *(
                f"{row[m]:.1%}" if m == "grey" else f"{row[m]:,.4g}" if row[m] < 1e4 else f"{row[m]:,.0f}"
                for m in measures
            ),
        ]
        for label, row in by_class.items()
    ]
    odd = ", ".join(f"{n:,} {what}" for what, n in pictures["odd"].items()) or "none"
    return (
        _table(header, rows)
        + "\n\nMedians by class (a class that differs can be told without looking at the face):\n\n"
        + _table(["", *(m.replace("_", " ") for m in measures)], class_rows)
        + f"\n\nOut of the ordinary: {odd}.\n\n![pictures](pictures.png)"
    )


def list_clusters(audit: Audit) -> pd.DataFrame:
    """The images in clusters of several: `cluster` (numbered from 1, the largest first), `image_id`, `split`, `label`.

    >>> list_clusters(audit)["cluster"].value_counts().head(1)  # doctest: +SKIP
    """
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
    names = {
        column: [labels[label] for label in table[column]]
        for column in ("label", "likely_label", "train_label")
        if column in table
    }
    return table.assign(**names)


def _interval(part: Mapping[str, float]) -> str:
    if not part["images"]:
        return "none"
    return f"{part['accuracy']:.1%} ({part['low']:.1%} to {part['high']:.1%})"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count > 1 else ''}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
