"""Imports run one way through the packages, those inside functions included."""

from __future__ import annotations

import ast
import functools
import gc
import re
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hf_metaprune

ROOT = Path(hf_metaprune.__file__).parent

FLOORS = (
    *("errors", "version", "text", "files", "registry", "hub", "options", "config", "overrides"),
    *("drawing", "masks", "data", "models", "sizing", "training", "trunk", "methods"),
    *("reporting", "bank", "similarity", "adapt", "export"),
    *("result", "pruner", "_auto", "", "app", "cli"),
)
"""Packages, and modules at the top, from the bottom to the top: each imports those before it only."""
TOP_LEVEL = 12
"""Most files at the top of the package."""


def module_name(file: Path) -> str:
    """A module's dotted name below the package; the package itself is ""."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


@functools.cache
def parse(file: Path) -> ast.Module:
    """Parse a file once; Python 3.11 fails now and then if it collects garbage meanwhile, so that it does not."""
    gc.disable()
    try:
        return ast.parse(file.read_text())
    finally:
        gc.enable()


def imported(module: str) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it, also for types only."""
    file = MODULES[module]
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            source = ".".join([*filter(None, above), *([node.module] if node.module else [])])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "hf_metaprune":
            source = (node.module or "").partition(".")[2]
        elif isinstance(node, ast.Import):
            own = [a for a in node.names if a.name.partition(".")[0] == "hf_metaprune"]
            yield from (a.name.partition(".")[2] for a in own)
            yield from ("" for a in own if a.asname is None)  # it binds the whole package, which loads everything
            continue
        else:
            continue
        for alias in node.names:
            whole = f"{source}.{alias.name}".strip(".")
            yield whole if whole in MODULES else source


def import_calls(module: str) -> list[str]:
    """Imports by name of a string, which nobody can follow by reading, and modules taken out of `sys.modules`."""
    calls = []
    for node in ast.walk(parse(MODULES[module])):
        name = node.name if isinstance(node, ast.alias) else ast.unparse(node) if isinstance(node, ast.expr) else ""
        is_lookup = re.match(r"(\w+\.)?modules(\[|\.(get|pop|items|values)$)", name) or (
            name == "modules" and isinstance(node, ast.alias)
        )
        if is_lookup or re.fullmatch(r"(\w+\.)*(import_module|__import__|resolve_name|locate)|exec|eval", name):
            calls.append(name)
    return calls


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a line into a function of `masks.mask`, as the tests read it."""

    def add(line: str) -> None:
        file = tmp_path / "mask.py"
        file.write_text(f"{MODULES['masks.mask'].read_text()}\ndef call():\n    {line}\n")
        monkeypatch.setitem(MODULES, "masks.mask", file)

    return add


def floor(module: str) -> int:
    return FLOORS.index(module.partition(".")[0])


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_nothing_from_above(module: str) -> None:
    above = [other for other in imported(module) if floor(other) > floor(module)]
    assert not above


def test_imports_can_be_followed_by_reading() -> None:
    assert [module for module in MODULES if import_calls(module)] == [""], "only hf_metaprune loads its names lazily"


@pytest.mark.parametrize(
    "line",
    [
        "importlib.import_module('hf_metaprune.pruner')",
        "from importlib import import_module as load",
        "__import__('hf_metaprune.pruner')",
        "sys.modules['hf_metaprune.pruner']",
        "sys.modules.get('hf_metaprune.pruner')",
        "from sys import modules as loaded",
        "import sys as s; s.modules['hf_metaprune.pruner']",
        "sys.modules.pop('hf_metaprune.pruner')",
        "pkgutil.resolve_name('hf_metaprune.pruner:MetaPruner')",
    ],
)
def test_an_import_that_nobody_can_follow_is_found(line: str, plant: Callable[[str], None]) -> None:
    plant(line)
    assert import_calls("masks.mask")


@pytest.mark.parametrize(
    "line",
    [
        "from ..pruner import MetaPruner",
        "from .. import pruner",
        "import hf_metaprune.pruner",
        "from hf_metaprune.pruner import MetaPruner",
        "from hf_metaprune import MetaPruner",
        "import hf_metaprune.errors",
        "if TYPE_CHECKING:\n        from ..pruner import MetaPruner",
    ],
)
def test_an_import_of_what_lies_above_is_found(line: str, plant: Callable[[str], None]) -> None:
    plant(line)
    assert [other for other in imported("masks.mask") if floor(other) > floor("masks.mask")]


def test_no_import_makes_a_circle() -> None:
    graph = {module: set(imported(module)) - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_house_has_few_files_at_its_door() -> None:
    files = [path.name for path in ROOT.iterdir() if path.is_file()]
    assert len(files) <= TOP_LEVEL, files
