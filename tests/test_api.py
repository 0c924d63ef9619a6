"""What is public is documented: on the API pages, with arguments, results and fields, and examples that run."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import hf_metaprune
from hf_metaprune.bank.bank import OpenOptions, open_bank
from tests.conftest import REPO

ROOT = Path(hf_metaprune.__file__).parent
PAGE = (REPO / "docs" / "reference" / "api.md").read_text()


def documented() -> dict[str, list[str] | None]:
    """The names on the API page with the members that it lists; None: all of them."""
    blocks = re.split(r"^::: ", PAGE, flags=re.M)[1:]
    entries: dict[str, list[str] | None] = {}
    for block in blocks:
        members = re.search(r"members: \[(.*?)\]", block.split("\n\n")[0])
        entries[block.split()[0]] = [name for name in members[1].split(", ") if name] if members else None
    return entries


def resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), name)


def test_every_public_name_is_on_the_page() -> None:
    there = [resolve(path) for path in documented()]
    errors = vars(importlib.import_module("hf_metaprune.errors")).values()
    names = [name for name in hf_metaprune.__all__ if name != "__version__"]
    missing = [name for name in names if getattr(hf_metaprune, name) not in (*there, *errors)]
    assert missing == []


INTERNAL = {
    "Plan": {"with_size", "has_few_images"},
    "AdaptReport": {"training_data", "skipped_summary", "learning_curves", "public_copy", "with_baseline"},
    "SearchOptions": {"first_owners"},
    "Bank": {"from_base"},
    "Entry": {"owner", "root", "reference", "check_config", "open_weights", "row", "from_row"},
    "BaseModel": {"layers_with", "copy_files"},
    "MetaPrunedForImageClassification": {"from_pretrained", "place_outputs", "freeze_stem"},
    "Mask": {"with_whole_layers", "positions_in"},
    "ScoreMask": {"with_ones_for", "reconciled", "normalized"},
    "ImageSet": {"stratified", "joined"},
    "Preprocessing": {"from_config", "from_processor", "to_config"},
    "RunRecord": {"timed", "metered", "copy"},
}
"""Members that other packages of the library use, and that are not on the page."""


@pytest.mark.parametrize("path", [path for path, members in documented().items() if members is not None])
def test_members_are_on_the_page(path: str) -> None:
    cls, page_members = resolve(path), documented()[path]
    kinds = (property, classmethod, staticmethod, cached_property)
    members = {
        n for n, m in vars(cls).items() if not n.startswith("_") and (inspect.isfunction(m) or isinstance(m, kinds))
    }
    assert members - set(page_members or ()) == INTERNAL.get(cls.__name__, set())


def test_classes_that_signatures_name_are_on_the_page() -> None:
    """What a documented function takes or gives can be looked up, too."""
    there = {path.rpartition(".")[2] for path in documented()}
    own = {
        node.name
        for file in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    names = set()
    for _, function in callables():
        signature = inspect.signature(function)
        types = [signature.return_annotation, *(p.annotation for p in signature.parameters.values())]
        names |= {name for kind in types for name in re.findall(r"[A-Za-z]\w+", str(kind))}
    assert (names & own) - there - {"Overrides", "SizeOverrides", "OpenOptions"} == set()  # which repeat options


def callables() -> Iterator[tuple[str, Any]]:
    """Functions and methods on the page."""
    for path, members in documented().items():
        thing = resolve(path)
        if inspect.isfunction(thing):
            yield path, thing
        elif inspect.isclass(thing):
            names = [n for n in vars(thing) if not n.startswith("_")] if members is None else members
            for name in names:
                member = inspect.getattr_static(thing, name, None)
                function = getattr(member, "__func__", member)
                if inspect.isfunction(function):
                    yield f"{path}.{name}", function


@pytest.mark.parametrize(("path", "function"), list(callables()))
def test_arguments_and_results_are_documented(path: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    names = [name for name in signature.parameters if name not in ("self", "cls", "_")]
    if names:
        assert "Args:" in text, "no Args"
    if str(signature.return_annotation) not in ("None", "<class 'inspect._empty'>"):
        assert re.search(r"^(Returns|Yields):", text, re.M), "no Returns"


@pytest.mark.parametrize(
    ("path", "function"), [pair for pair in callables() if pair[1].__module__.startswith("hf_metaprune")]
)
def test_errors_that_a_function_raises_are_documented(path: str, function: Any) -> None:
    """Each by its name, or by that of an error that it is a kind of."""
    tree = vars(importlib.import_module("hf_metaprune.errors"))
    documented_errors = re.findall(r"\w+Error\b", (inspect.getdoc(function) or "").partition("Raises:")[2])
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func)
            kinds = [kind.__name__ for kind in tree[name].__mro__] if name in tree else [name]
            assert {*kinds} & {*documented_errors} or not name.endswith("Error"), name


@pytest.mark.parametrize("path", [path for path in documented() if inspect.isclass(resolve(path))])
def test_arguments_of_constructors_are_documented(path: str) -> None:
    cls = resolve(path)
    if dataclasses.is_dataclass(cls) or issubclass(cls, BaseException) or "__init__" not in vars(cls):
        return
    arguments = (inspect.getdoc(cls) or "").partition("Args:")[2]
    names = [name for name, p in inspect.signature(cls).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [name for name in names if not re.search(rf"^    {name}: ", arguments, re.M)] == []


def test_each_method_of_the_main_class_says_what_it_raises() -> None:
    paths = [
        path for path, function in callables() if ".MetaPruner." in path and "Raises:" not in (function.__doc__ or "")
    ]
    assert paths == []


@pytest.mark.parametrize("path", [path for path in documented() if dataclasses.is_dataclass(resolve(path))])
def test_fields_are_documented_one_by_one(path: str) -> None:
    """By a text below each, or by the help text of an option."""
    cls = resolve(path)
    (node,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(node, ast.ClassDef)
    bare = []
    for field, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
            continue
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        is_option = isinstance(field.value, ast.Call) and ast.unparse(field.value.func) == "option"
        if not is_text and not is_option:
            bare.append(ast.unparse(field.target))
    assert bare == []


@pytest.mark.parametrize("module", sorted({path.rpartition(".")[0] for path in documented()} - {"hf_metaprune"}))
def test_examples_in_docstrings_run(module: str) -> None:
    namespace = importlib.import_module(module)
    outcome = doctest.testmod(namespace, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert outcome.failed == 0


def test_typed_overrides_are_those_of_the_options() -> None:
    spec = importlib.util.spec_from_file_location("make_overrides", REPO / "scripts" / "make_overrides.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.OUT.read_text() == script.source(), "uv run scripts/make_overrides.py writes it again"


def test_typed_arguments_of_from_hub_are_those_of_open_bank() -> None:
    keywords = {n for n, p in inspect.signature(open_bank).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert set(OpenOptions.__annotations__) == keywords
