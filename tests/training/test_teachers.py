"""Distillation: trained models whose predictions are part of the target."""

import re
import shutil

import pytest
import torch
from datasets import DatasetDict

from hf_smile.benchmarks.folds import fold_settings
from hf_smile.data.dataset import load_smile_dataset
from hf_smile.errors import SmileError, SmileModelError
from hf_smile.modeling import build_model
from hf_smile.modeling.checkpoint import load_model
from hf_smile.training.arguments import SmileTrainingArguments, parse_arguments, to_recipe
from hf_smile.training.teachers import Teachers
from hf_smile.training.trainer import SmileTrainer


@pytest.fixture(scope="module")
def splits(sample_dir):
    return load_smile_dataset(sample_dir, validation_size=0.25)


@pytest.fixture(scope="module")
def teachers(train_tiny, tmp_path_factory) -> list[str]:
    """A trained network, and one that always gives the same answer."""
    folder = tmp_path_factory.mktemp("teachers")
    constant = build_model("test_resnet", pretrained=False, image_size=64)
    torch.nn.init.zeros_(constant.timm_model.fc.weight)
    constant.timm_model.fc.bias.data = torch.tensor([0.1, 0.2, 0.7]).log()
    constant.save_pretrained(folder / "constant")
    return [str(train_tiny(folder / "trained")), str(folder / "constant")]


def train(splits: DatasetDict, output_dir, resume=None, **options) -> dict[str, torch.Tensor]:
    settings = {"max_steps": 6, "per_device_train_batch_size": 16, "use_cpu": True, "select_best": "last"}
    settings |= {"disable_tqdm": True, "lr_scheduler_type": "constant", "warmup_steps": 0}
    args = SmileTrainingArguments(**({"output_dir": str(output_dir)} | settings | options))
    torch.manual_seed(args.seed)
    student = build_model("test_resnet", pretrained=False, image_size=64)
    SmileTrainer(student, args, splits["train"]).train(resume_from_checkpoint=resume)
    return {name: value.clone() for name, value in student.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_teachers_take_turns_and_the_label_has_the_rest(teachers):
    config = build_model("test_resnet", pretrained=False, image_size=64).config
    both = Teachers(teachers, config, "cpu", weight=0.5)
    pixel_values, labels = torch.rand(3, 3, 64, 64), torch.eye(3)
    expected = load_model(teachers[0])(pixel_values=pixel_values).logits.softmax(dim=1)
    for step in (0, 2):
        assert torch.allclose(both.targets(pixel_values, labels, step), (labels + expected) / 2, atol=1e-6)
    for step in (1, 3):
        answer = torch.tensor([0.1, 0.2, 0.7])
        assert torch.allclose(both.targets(pixel_values, labels, step), (labels + answer) / 2, atol=1e-6)


def test_with_a_weight_of_one_the_labels_do_not_matter(splits, teachers, tmp_path):
    wrong = DatasetDict(train=splits["train"].map(lambda row: {"label": (row["label"] + 1) % 3}))
    options = {"teachers": teachers[:1], "teacher_weight": 1.0}
    assert equal(train(splits, tmp_path / "a", **options), train(wrong, tmp_path / "b", **options))
    assert not equal(train(splits, tmp_path / "c"), train(splits, tmp_path / "d", teachers=teachers[:1]))


def test_a_student_learns_what_its_teacher_says(splits, teachers, tmp_path):
    options = {"teacher_weight": 1.0, "ema_decay": 0, "learning_rate": 0.01, "max_steps": 60}
    weights = train(splits, tmp_path, teachers=teachers[1:], label_smoothing_factor=0, **options)
    student = build_model("test_resnet", pretrained=False, image_size=64)
    student.load_state_dict(weights)
    with torch.no_grad():
        answers = student.eval()(pixel_values=torch.rand(4, 3, 64, 64)).logits.softmax(dim=1)
    assert torch.allclose(answers, torch.tensor([0.1, 0.2, 0.7]).expand(4, 3), atol=0.1)


def test_a_resumed_student_has_the_same_teacher_at_each_step(splits, teachers, tmp_path):
    options = {"teachers": teachers, "mixup": 0.4, "ema_decay": 0.9}
    whole = train(splits, tmp_path / "whole", max_steps=8, **options)
    train(splits, tmp_path / "half", max_steps=5, **options)
    resumed = train(splits, tmp_path / "half", str(tmp_path / "half" / "checkpoint-5"), max_steps=8, **options)
    assert equal(resumed, whole)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"image_size": 32}, "the input_size [3, 32, 32], and the student [3, 64, 64]"),
        ({"labels": ["smile", "none"]}, "the labels smile, none; expected: negative smile, positive smile, NOT smile"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(splits, tmp_path, network, message):
    model = build_model("test_resnet", pretrained=False, **({"image_size": 64} | network))
    model.save_pretrained(tmp_path / "teacher")
    with pytest.raises(SmileModelError, match=re.escape(message)):
        train(splits, tmp_path / "student", teachers=[str(tmp_path / "teacher")])


def test_a_recipe_names_teachers_and_their_weight_only_if_there_are_some(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets" / "one").mkdir(parents=True)
    recipe = to_recipe(parse_arguments(["--use_cpu", "--teachers", "nets/one", "me/net"]))
    assert recipe["teachers"] == ["./nets/one", "me/net"] and recipe["teacher_weight"] == 0.8
    assert not {"teachers", "teacher_weight"} & to_recipe(parse_arguments(["--use_cpu"])).keys()


def test_teachers_can_not_judge_folds(tmp_path):
    (tmp_path / "recipe.yaml").write_text("teachers: [outputs/teachers/1]\n")
    with pytest.raises(SmileError, match="its teachers may know the images"):
        fold_settings(str(tmp_path / "recipe.yaml"))


def test_a_teacher_without_a_record_of_its_images_is_used_with_a_warning(cli, sample_dir, teachers, tmp_path):
    words = ["--data_dir", sample_dir, "--backbone", "test_resnet", "--no_pretrained", "--image_size", 64, "--use_cpu"]
    words += ["--max_steps", 1, "--output_dir", tmp_path / "student", "--teachers"]
    code, _, errors = cli("train", *words, teachers[0])
    assert code == 0 and f"The teacher {teachers[0]} has no record of its training images" in errors, errors
    code, _, errors = cli("train", *words, tmp_path / "nothing", "--overwrite")
    assert code == 2 and "nothing" in errors and "Traceback" not in errors, errors


def test_a_student_is_not_resumed_with_a_teacher_that_was_trained_again(cli, sample_dir, teachers, tmp_path):
    teacher = shutil.copytree(teachers[0], tmp_path / "teacher")
    words = ["train", "--data_dir", sample_dir, "--backbone", "test_resnet", "--no_pretrained", "--image_size", 64]
    words += ["--use_cpu", "--max_steps", 1, "--output_dir", tmp_path / "student", "--teachers", teacher]
    assert cli(*words)[0] == 0
    code, said, _ = cli(*words)
    assert code == 0 and "Nothing is trained" in said
    moved = teacher.rename(tmp_path / "moved")
    code, said, _ = cli(*words[:-1], moved)
    assert code == 0 and "Nothing is trained" in said
    teacher = moved.rename(teacher)
    shutil.copy(f"{teachers[1]}/model.safetensors", teacher)
    code, _, errors = cli(*words)
    assert code == 2 and "holds a run with other settings (teachers_sha256 " in errors
    recipe = tmp_path / "student" / "recipe.yaml"
    assert parse_arguments([str(recipe)])[-1].teachers == [str(teacher)]  # a recipe that a run wrote can be used again
