"""Images are held out by class and by group, and the splits are described."""

import datasets
import numpy as np
import pytest

from hf_smile.data.splits import (
    check_groups,
    column_of,
    describe,
    grouped_rows,
    hold_out,
    split_of,
    stratified_rows,
)
from hf_smile.errors import SmileDataError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("VAL", "validation"),
        ("dev", "validation"),
        ("Test", "test"),
        ("test-00000-of-00002.parquet", "test"),
        ("train_images", "train"),
        ("trainer", None),
        ("happy", None),
    ],
)
def test_a_split_is_known_by_its_usual_names(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize("size", [0.1, 0.2, 0.35])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_stay_together_and_classes_keep_their_shares(size, seed):
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 60, 1200)
    labels = draw.choice(3, 1200, p=[0.1, 0.2, 0.7])
    held_out = grouped_rows(labels, groups.astype(str), "test", size, seed)
    assert not set(groups[held_out]) & set(groups[~held_out])
    assert abs(held_out.mean() - size) < 0.04
    for label in range(3):
        assert abs((labels[held_out] == label).mean() - (labels == label).mean()) < 0.05
    assert np.array_equal(held_out, grouped_rows(labels, groups.astype(str), "test", size, seed))
    assert not np.array_equal(held_out, grouped_rows(labels, groups.astype(str), "test", size, seed + 1))


def rows(groups: list[str]) -> datasets.Dataset:
    columns = {"label": [number % 3 for number in range(len(groups))], "Person": groups}
    return datasets.Dataset.from_dict(columns)


def test_the_column_is_found_case_aside_and_described():
    parts = hold_out(rows([f"p{number // 5}" for number in range(50)]), "test", 0.2, seed=0, group_by="person")
    assert describe(parts, "person") == (
        "train: 40 images of 8 groups by person, test: 10 images of 2 groups by person"
    )
    assert column_of(["label", "Person"], " PERSON ") == "Person"


@pytest.mark.parametrize(
    ("groups", "group_by", "message"),
    [
        (["p0", ""] * 10, "person", "10 images without a value in the column to group by"),
        (["p0"] * 20, "person", "all images are in one group"),
        (["p0", "p1"] * 10, "camera", "no column 'camera' to group by .--group_by.; the columns are Person"),
        (["p0", "p1"] * 10, "label", "no column 'label' to group by"),
    ],
)
def test_what_can_not_be_grouped_is_said(groups, group_by, message):
    with pytest.raises(SmileDataError, match=message):
        hold_out(rows(groups), "test", 0.2, seed=0, group_by=group_by)


def test_groups_on_both_sides_of_a_split_of_the_users_are_refused():
    splits = datasets.DatasetDict(train=rows(["ann", "bob"]), test=rows(["bob"]))
    with pytest.raises(SmileDataError, match=r"1 value of 'person' in both train and test, for example 'bob'"):
        check_groups(splits, "person")
    check_groups(datasets.DatasetDict(train=rows(["ann"]), test=rows(["bob"])), "person")


@pytest.mark.parametrize(("count", "sizes"), [(3, [1, 1, 1]), (12, [8, 3, 1]), (60, [45, 12, 3]), (100, [75, 20, 5])])
def test_a_few_rows_have_every_class_and_its_share(count, sizes):
    labels = np.repeat([0, 1, 2], [75, 20, 5])
    rows = stratified_rows(labels, count, seed=3)
    assert np.bincount(labels[rows]).tolist() == sizes and len(set(rows)) == count
    assert set(stratified_rows(labels, 2, seed=3)) < set(rows)
    assert count == 100 or rows.tolist() != stratified_rows(labels, count, seed=4).tolist()
