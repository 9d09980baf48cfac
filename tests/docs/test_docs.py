"""README and docs: links resolve, commands parse, names exist, and the tutorials run from top to bottom."""

import ast
import doctest
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import nbformat
import pytest
from nbclient import NotebookClient
from pages import NAMES, PAGES, ROOT, blocks

import hf_smile
from hf_smile.commands.main import JOBS
from hf_smile.training.arguments import parse_arguments as parse_training

MODULES = ["hf_smile", *(found.name for found in walk_packages(hf_smile.__path__, "hf_smile."))]
MODULES += ["engine", "forgetting", "gate", "words"]  # of the demo
NOTEBOOK = ROOT / "docs" / "notebooks" / "smile.ipynb"


def commands(page: Path) -> list[list[str]]:
    """The words of every `hf-smile` command in the bash blocks, with continued lines joined and without comments."""
    lines = "\n".join(block.code for block in blocks(page, "bash")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("hf-smile ")]
    return [words[1:] for words in found]


def anchors(page: Path) -> set[str]:
    """The ids that GitHub and MkDocs give the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_inside_the_repository_resolves(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:|\.\./\.\./", target):  # the web, and the CI page of the repository
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{target} is not there"
        assert not anchor or linked.suffix != ".md" or anchor in anchors(linked), f"{target}: no such heading"


def test_lines_have_at_most_120_characters():
    """In all text but tables, which Markdown cannot wrap; ruff checks the Python code."""
    patterns = ["*.md", "*.toml", "*.yml", "Makefile", "docs/*.md", "space/*.md", "space/*.css", "space/*.js"]
    patterns += [
        "recipes/**/*.yaml",
        "recipes/**/*.sbatch",
        "hf_smile/**/*.md",
        "hf_smile/**/*.js",
        "hf_smile/**/*.css",
    ]
    long = [
        f"{path}:{number}"
        for pattern in patterns
        for path in ROOT.glob(pattern)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > 120 and not line.startswith("|")
    ]
    assert not long


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_is_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(page):
        job, *rest = words
        assert job in JOBS, words
        rest = [word for word in rest if word != "..."]
        for at, word in enumerate(rest):  # a recipe of the reader
            if word.endswith(".yaml") and not Path(word).exists():
                rest[at] = "recipes/quickstart.yaml"
        if job == "train":
            parse_training(rest)
        elif rest:
            module = import_module(f"hf_smile.commands.{job}")
            monkeypatch.setattr(module, "require_data", lambda _: None, raising=False)
            module.parse_arguments(rest, f"hf-smile {job}")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_name_that_is_imported_exists(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("hf_smile"):
                module = import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_tutorial_runs_from_top_to_bottom(tmp_path):
    page = ROOT / "docs" / "start.md"
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "outputs").mkdir()
    for words in commands(page):
        subprocess.run([sys.executable, "-m", "hf_smile", *words], cwd=tmp_path, check=True, timeout=900)
    code = "\n".join(block.code for block in blocks(page, "python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300, stdout=subprocess.PIPE)
    assert b"smile" in done.stdout
    assert (tmp_path / "outputs" / "heat.png").stat().st_size and (
        tmp_path / "outputs" / "report" / "report.md"
    ).exists()


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_of_docstrings_print_what_they_say(name, monkeypatch):
    """Examples marked `+SKIP` need files, a model or the Hub."""
    monkeypatch.syspath_prepend(ROOT / "space")
    assert not doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS).failed


def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the outputs are not stripped"
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len([cell for cell in notebook.cells if "image/png" in str(cell.get("outputs"))]) == 5
