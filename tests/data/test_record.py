"""A run records its splits, and a model is never evaluated on its training images."""

import datasets
import pytest

from hf_smile.data.record import (
    SPLITS_FILE,
    check_splits,
    images_of,
    read_splits,
    refuse_trained_on,
    require_held_out,
    run_data,
    write_splits,
)
from hf_smile.errors import SmileDataError


def images(*names: str, ids: list[str] | None = None, label: int = 1) -> datasets.Dataset:
    rows = {
        "image_id": ids or list(names),
        "image": [{"bytes": name.encode(), "path": None} for name in names],
        "label": [label] * len(names),
    }
    features = datasets.Features(
        image_id=datasets.Value("string"), image=datasets.Image(decode=False), label=datasets.Value("int64")
    )
    return datasets.Dataset.from_dict(rows, features=features)


TRAIN, VALIDATION, TEST = ([f"{split} {n}, {n}" for n in range(9)] for split in ("train", "validation", "test"))
SPLITS = datasets.DatasetDict(train=images(*TRAIN), validation=images(*VALIDATION), test=images(*TEST))


@pytest.fixture
def run(tmp_path):
    write_splits(tmp_path, SPLITS)
    return tmp_path


def test_what_is_held_out_is_known_by_its_content(run):
    assert len(read_splits(run)) == 27
    for split, dataset in SPLITS.items():
        require_held_out(run, split, dataset)
    require_held_out(run, "test", images(*TEST, ids=[f"another name {n}" for n in range(9)]))


@pytest.mark.parametrize(
    ("split", "names", "message"),
    [
        ("test", [TEST[0], *TRAIN[:8]], "8 of these 9 images were used for training"),
        ("validation", TRAIN[:2], "2 of these 2 images were used for training"),
        ("test", VALIDATION[:3], "3 of these 3 images were used to choose the checkpoint"),
        ("test", ["new", *TEST], r"1 of these 10 images are not in .*splits\.csv, .* --held_out"),
    ],
)
def test_what_is_not_is_refused_with_the_reason(run, split, names, message):
    with pytest.raises(SmileDataError, match=message):
        require_held_out(run, split, images(*names))


def test_ids_by_position_do_not_hide_what_was_trained_on(run):
    reordered = images(*TRAIN[:8], TEST[0], ids=[*TEST])
    with pytest.raises(SmileDataError, match="8 of these 9 images were used for training"):
        require_held_out(run, "test", reordered)
    unrelated = images(*(f"new {n}" for n in range(9)), ids=[f"{name}x" for name in TRAIN])
    require_held_out(run, "test", unrelated, vouched_for=True)


def test_a_picture_that_the_data_have_in_two_splits_counts_as_what_it_is_measured_as(tmp_path):
    write_splits(tmp_path, datasets.DatasetDict(train=images("a", "b"), test=images("b", "c", ids=["again", "c"])))
    require_held_out(tmp_path, "test", images("b", "c"))


def test_streamed_images_are_known_by_their_ids(tmp_path):
    write_splits(tmp_path, datasets.DatasetDict(train=SPLITS["train"].remove_columns("image"), test=SPLITS["test"]))
    with pytest.raises(SmileDataError, match="2 of these 2 images were used for training"):
        require_held_out(tmp_path, "test", images(*TRAIN[:2]))
    require_held_out(tmp_path, "test", SPLITS["test"])


def test_the_user_can_vouch_for_what_the_run_does_not_know_and_for_nothing_else(run, tmp_path):
    require_held_out(run, "test", images("new"), vouched_for=True)
    require_held_out(tmp_path / "foreign", "test", images("new"), vouched_for=True)
    with pytest.raises(SmileDataError, match="has no record of its training images"):
        require_held_out(tmp_path / "foreign", "test", images("new"))
    with pytest.raises(SmileDataError, match="were used for training"):
        require_held_out(run, "test", SPLITS["train"], vouched_for=True)


def test_a_run_is_resumed_with_the_same_images_or_not_at_all(run, tmp_path):
    check_splits(run, SPLITS)
    check_splits(tmp_path / "new", SPLITS)
    moved = datasets.DatasetDict(train=SPLITS["test"], validation=SPLITS["validation"], test=SPLITS["train"])
    with pytest.raises(SmileDataError, match="18 images changed since the run began"):
        check_splits(run, moved)


@pytest.mark.parametrize("content", ["", "a,b\n", "image_id,split,digest\na\n", "image_id,split,digest\na,b,c,d\n"])
def test_a_damaged_record_is_said(run, content):
    (run / SPLITS_FILE).write_text(content)
    with pytest.raises(SmileDataError, match="damaged"):
        read_splits(run)


def test_the_settings_of_the_run_are_taken_and_the_users_win(run):
    (run / "recipe.yaml").write_text(
        "data_dir: data/faces\nseed: 7\ntest_size: 0.3\nlearning_rate: 1\nlabel_map: a=NOT smile\n"
    )
    data, seed = run_data(run, {})
    assert (data.data_dir, data.test_size, data.validation_size, data.label_map, seed) == (
        "data/faces",
        0.3,
        0.1,
        "a=NOT smile",
        7,
    )
    data, seed = run_data(run, {"data_dir": "elsewhere", "seed": 8})
    assert (data.data_dir, data.test_size, seed) == ("elsewhere", 0.3, 8)
    assert run_data("me/smile", {})[0].data_dir == "data/happy_images"


def test_the_corrections_of_a_run_are_not_about_other_data(run):
    (run / "recipe.yaml").write_text("data_dir: data/faces\ncorrections: corrections.csv\n")
    assert [run_data(run, {}, others)[0].corrections for others in (False, True)] == ["corrections.csv", None]
    assert run_data(run, {"corrections": "theirs.csv"}, others=True)[0].corrections == "theirs.csv"


@pytest.mark.parametrize("line", ["seed: abc", "validation_size: a lot", "data_dir: 3"])
def test_damaged_settings_of_a_run_are_told_in_words(run, line):
    (run / "recipe.yaml").write_text(f"{line}\n")
    with pytest.raises(SmileDataError, match="the data settings are damaged"):
        run_data(run, {})


def test_a_backbone_of_an_earlier_run_is_not_measured_on_what_that_run_trained_on(run, tmp_path):
    for images_to_measure_on in (SPLITS["validation"], SPLITS["test"], images("new")):
        refuse_trained_on(run, images_of(images_to_measure_on))
    with pytest.raises(SmileDataError, match="was trained on 2 of the images to evaluate on"):
        refuse_trained_on(run, images_of(images(*TRAIN[:2], *TEST, "new")))
    refuse_trained_on(tmp_path / "no run", images_of(SPLITS["train"]))
    refuse_trained_on("timm/resnet50.a1_in1k", images_of(SPLITS["train"]))


def test_a_teacher_or_backbone_selected_on_test_images_is_refused(run):
    refuse_trained_on(run, images_of(SPLITS["test"]), for_test=True)
    with pytest.raises(SmileDataError, match=r"the teacher .* was trained or selected on 3 of the test images"):
        known = images(TRAIN[0], *SPLITS["validation"]["image_id"][:2], *TEST, "new")
        refuse_trained_on(run, images_of(known), "teacher", for_test=True)


def test_what_the_teachers_were_trained_on_is_not_measured_on_either(run, tmp_path):
    other, student = tmp_path / "other", tmp_path / "student"
    for folder in (other, student):
        folder.mkdir()
    write_splits(other, datasets.DatasetDict(train=images("old 1", *TRAIN[:2]), test=images("old 2")))
    own = datasets.DatasetDict(train=images("new 1"), test=images("new 2"))
    write_splits(student, own, run, other)
    check_splits(student, own, run, other)
    refuse_trained_on(student, images_of(images("new 2", "old 2", *TEST)), "teacher")
    with pytest.raises(SmileDataError, match=r"the teacher .* was trained on 4 of the images to evaluate on"):
        refuse_trained_on(student, images_of(images("new 1", "old 1", *TRAIN[:2])), "teacher")


def test_what_the_stages_before_trained_on_is_not_measured_on_either(run, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    others = datasets.DatasetDict(train=images("new 1"), test=images("new 2"))
    write_splits(second, others, run)
    check_splits(second, others, run)
    with pytest.raises(SmileDataError, match="9 images changed since the run began"):
        check_splits(second, others)
    refuse_trained_on(second, images_of(images("new 2", *TEST)))
    with pytest.raises(SmileDataError, match="was trained on 3 of the images to evaluate on"):
        refuse_trained_on(second, images_of(images("new 1", *TRAIN[:2])))
    require_held_out(second, "test", others["test"])
    with pytest.raises(SmileDataError, match="9 of these 9 images were used for training"):
        require_held_out(second, "test", images(*TRAIN), vouched_for=True)


def test_a_checkpoint_has_the_record_of_its_run_and_is_not_tested(run):
    checkpoint = run / "checkpoint-100"
    checkpoint.mkdir()
    (run / "recipe.yaml").write_text("data_dir: data/faces\n")
    assert run_data(checkpoint, {})[0].data_dir == "data/faces"
    require_held_out(checkpoint, "validation", SPLITS["validation"])
    for vouched_for in (False, True):
        with pytest.raises(SmileDataError, match="were used for training"):
            require_held_out(checkpoint, "validation", SPLITS["train"], vouched_for)
        with pytest.raises(SmileDataError, match=r"checkpoint-100 is a checkpoint of .*, and test "):
            require_held_out(checkpoint, "test", SPLITS["test"], vouched_for)


def test_other_labels_are_other_data(run, caplog):
    relabelled = datasets.DatasetDict(SPLITS | {"train": images(*TRAIN[:7], label=1)})
    relabelled["train"] = datasets.concatenate_datasets([relabelled["train"], images(*TRAIN[7:], label=2)])
    check_splits(run, SPLITS)
    with pytest.raises(SmileDataError, match="2 images changed since the run began"):
        check_splits(run, relabelled)
    require_held_out(run, "test", SPLITS["test"])
    assert not caplog.records
    require_held_out(run, "test", images(*TEST, label=2))
    assert "9 of these 9 images got another label since the run began" in caplog.text


def test_a_record_without_labels_is_read(run):
    path = run / SPLITS_FILE
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in path.read_text().splitlines()))
    check_splits(run, SPLITS)
    assert len(read_splits(run)) == 27
