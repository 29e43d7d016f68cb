"""What is imported is declared: what loads with a file is a dependency, what a function asks for later is one, or an extra."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
# packages whose module has another name
CALLED = {"pillow": "PIL", "pillow-heif": "pillow_heif", "scikit-image": "skimage", "pytest-xdist": "xdist"}
OURS = {"kf_core", "lab", "nodes", "tests"}
OF_THE_HOST = {"torch", "aiohttp", "comfy", "comfy_api", "comfy_execution", "folder_paths", "server"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FILES = sorted((*ROOT.glob("kf_core/**/*.py"), *ROOT.glob("nodes/**/*.py"), ROOT / "__init__.py"))
# Tests that need something else besides say so where it is missing; the host's tests run in the host's Python.
TESTS = sorted(path for path in ROOT.glob("tests/**/*.py") if not {"host", "benchmarks", "reference", "pretend_card"} & set(path.parts))


def package_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0]


def modules(requirements: list[str]) -> set[str]:
    return {CALLED.get(package_of(requirement), package_of(requirement)) for requirement in requirements}


def imported(path: Path) -> tuple[set[str], set[str]]:
    """Modules of others that a file imports as it loads, and those that it imports later or only where they are there."""
    at_once, later = set(), set()

    def look(node: ast.AST, is_later: bool) -> None:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        outer = {name.split(".")[0] for name in names} - sys.stdlib_module_names
        (later if is_later else at_once).update(outer)
        is_guarded = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try)) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        for child in ast.iter_child_nodes(node):
            look(child, is_later or is_guarded)

    look(ast.parse(path.read_text(encoding="utf-8")), False)
    return at_once - OURS, later - OURS


def test_what_loads_with_a_file_is_a_dependency_and_what_comes_later_is_one_or_an_extra():
    needed = modules(PROJECT["dependencies"])
    declared = needed.union(*(modules(requirements) for requirements in EXTRAS.values()))
    undeclared = {}
    for path in FILES:
        at_once, later = imported(path)
        lacking = (at_once - needed - OF_THE_HOST) | (later - declared - OF_THE_HOST)
        if lacking:
            undeclared[str(path.relative_to(ROOT))] = sorted(lacking)
    assert not undeclared


def test_what_the_tests_import_is_in_the_extra_for_tests():
    declared = modules([*PROJECT["dependencies"], *EXTRAS["test"]]) | OF_THE_HOST
    asked_for = {name for path in TESTS for names in imported(path) for name in names} - {"tomli"}
    assert asked_for <= declared, sorted(asked_for - declared)


def test_the_extra_for_tests_holds_all_others_but_heic():
    """Without pillow-heif it is tested that a HEIC frame is refused by name."""
    others = [requirements for extra, requirements in EXTRAS.items() if extra != "heic"]
    assert {name for requirements in others for name in modules(requirements)} <= modules(EXTRAS["test"])


def test_the_hosts_list_is_the_same_as_the_projects():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == PROJECT["dependencies"]


def test_develop_looks_for_what_the_project_declares():
    spec = importlib.util.spec_from_file_location("develop", ROOT / "develop.py")
    develop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(develop)
    assert set(develop.NEEDED) == modules(PROJECT["dependencies"]) | {"torch"}
    assert set(develop.NEEDED_FOR_TESTS) == modules(EXTRAS["test"])
