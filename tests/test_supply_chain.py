"""Imports are declared, dependencies are justified, and no code from outside is run."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from hf_smile.utils.extras import BROUGHT_BY

ROOT = Path(__file__).parents[1]
CODE = [path for name in ("hf_smile", "scripts", "space") for path in sorted((ROOT / name).rglob("*.py"))]
RUNS_CODE = r"\b(pickle|marshal|shelve|dill|cloudpickle|joblib)\b.*\bloads?\(|\beval\(|\bexec\(|os\.(system|popen)\("
RUNS_CODE += r"|shell=True|trust_remote_code=True|weights_only=False|allow_pickle=True|yaml\.(unsafe_)?load\("

if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("only where the project's own files are", allow_module_level=True)
tomllib = pytest.importorskip("tomllib")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = packages_distributions()


def normalized(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def declared(*extras: str) -> set[str]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][name] for name in extras)]
    return {normalized(requirement) for requirements in lists for requirement in requirements} - {"hf-smile"}


def imported(paths: list[Path]) -> dict[str, str]:
    """The first file that imports each distribution, except the project and the standard library."""
    own = {path.stem for path in paths} | {"hf_smile"}
    found: dict[str, str] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                # evaluate is both a script here and a library
                if name and (name not in own or name == "evaluate"):
                    found.setdefault(normalized(DISTRIBUTIONS.get(name, [name])[0]), str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (("hf_smile", "scripts", "space"), ("train", "audit", "tune", "heif", "demo")),
        (("hf_smile", "scripts", "space", "tests"), ("train", "audit", "tune", "heif", "demo", "dev", "fuzz")),
    ],
)
def test_what_is_imported_is_declared(folders, extras):
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    missing = {name: where for name, where in imported(paths).items() if name not in declared(*extras)}
    assert not missing


def test_of_each_package_that_is_imported_it_is_known_what_brings_it():
    for what, packages in BROUGHT_BY.items():
        extra = what.removeprefix("hf_smile").strip("[]")
        brings = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
        assert {normalized(DISTRIBUTIONS[name][0]) for name in packages} <= {normalized(line) for line in brings}
    known = {normalized(DISTRIBUTIONS[name][0]) for packages in BROUGHT_BY.values() for name in packages}
    assert known == {*imported(sorted((ROOT / "hf_smile").rglob("*.py")))}


def test_every_dependency_is_justified():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Why each dependency")[2]
    packages = " ".join(re.findall(r"^\| ([^|]+) \|", table, re.M)).lower().replace("_", "-")
    tools = {"pytest", "pytest-xdist", "ruff", "mypy", "import-linter", "types-pyyaml"}  # explained in another section
    assert declared(*PROJECT["optional-dependencies"]) - tools <= set(re.findall(r"[\w-]+", packages))


def test_every_dependency_is_pinned():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    assert declared(*PROJECT["optional-dependencies"]) <= {normalized(line) for line in pins}


def test_the_script_of_a_hired_machine_pins_what_training_needs():
    """The inline metadata (PEP 723), as uv reads them."""
    script = (ROOT / "recipes" / "jobs" / "train.py").read_text(encoding="utf-8")
    header = re.search(r"^# /// script$(.*?)^# ///$", script, re.M | re.S)[1]
    settings = tomllib.loads(re.sub(r"^# ?", "", header, flags=re.M))
    pins = {normalized(line): line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    needed = sorted(pins[name].lower() for name in declared("train"))
    assert sorted(line.lower() for line in settings["dependencies"]) == needed
    assert settings["requires-python"] == PROJECT["requires-python"]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_from_outside_is_run(path):
    lines = path.read_text(encoding="utf-8").replace(".eval()", "").splitlines()
    assert not [line for line in lines if re.search(RUNS_CODE, line)]
