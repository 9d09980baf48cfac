"""CSV files contain no formulas, and reading them returns what was written."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from hf_smile.audit.splits import write_annotations
from hf_smile.data.annotations import read_annotations
from hf_smile.errors import Problems
from hf_smile.evaluation.backbones import write_comparison
from hf_smile.utils.csv_cells import guarded, unguarded

FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    "＝1+1",
    "＠x",
    "'=1",
    "''+1",
    '=HYPERLINK("http://x";"y")',
]


@pytest.mark.parametrize("text", [*FORMULAS, "", "'", "1.jpg", "'tis", " =1", "a=1"])
def test_a_guarded_cell_is_no_formula_and_comes_back(text):
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"))
    assert unguarded(guarded(text)) == text


def cells(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [cell for row in csv.reader(file) for cell in row]


def test_annotations_of_formulas_come_back(tmp_path):
    ids = ["=1+1", "+1", "-1", "@SUM(A1)", "'=1"]
    own = {"image_id": ids, "file": ids, "label": [0, 1, 2, 0, 1], "where": "train.csv:1", "problem": ""}
    table = pd.DataFrame(own | {"=person": ids})
    write_annotations(table, tmp_path / "train.csv")
    assert not [cell for cell in cells(tmp_path / "train.csv") if cell.startswith(("=", "+", "-", "@"))]
    problems = Problems()
    read = read_annotations(tmp_path / "train.csv", problems)
    assert not problems and read["image_id"].tolist() == read["=person"].tolist() == ids
    assert read["label"].tolist() == [0, 1, 2, 0, 1]


def test_a_backbone_by_the_name_of_a_formula(tmp_path):
    backbones = pd.DataFrame({"backbone": ["=1+1"], "parameters": [1], "image_size": [64], "images_per_second": [1.0]})
    scores = {"backbone": ["=1+1"], "seed": [0], "split": ["test"], "accuracy": [0.5], "macro_f1": [0.5]}
    write_comparison(tmp_path, backbones, pd.DataFrame(scores | {"balanced_accuracy": [0.5]}), "A title")
    assert "'=1+1" in cells(tmp_path / "comparison.csv") and "=1+1" not in cells(tmp_path / "comparison.csv")
