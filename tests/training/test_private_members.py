"""The private members of `Trainer` in use, which a new release of transformers could change silently."""

import ast
from pathlib import Path

import transformers.trainer

import hf_smile.benchmarks
import hf_smile.training

KNOWN = {
    "_save_checkpoint",  # made atomic
    "_load_rng_state",  # before an evaluation that was still due
    "_maybe_log_save_evaluate",  # for that evaluation, and the checkpoint after it
}


def members(path: Path) -> set[str]:
    """Names of private members that a module defines in a class, or uses."""
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_no_more_private_members_of_the_trainer_are_used_than_need_be():
    theirs = members(Path(transformers.trainer.__file__))
    folders = [Path(module.__path__[0]) for module in (hf_smile.training, hf_smile.benchmarks)]
    used = {name for folder in folders for path in folder.rglob("*.py") for name in members(path)}
    assert used & theirs == KNOWN
