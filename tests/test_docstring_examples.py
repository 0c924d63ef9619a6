"""Code in docstrings that is more than one expression: it runs, in a folder with what it takes for granted."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import hf_metaprune
from hf_metaprune import Bank, BaseModel, MetaPruner, load_result
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.files import shipped
from hf_metaprune.methods.method import METHODS, PruningJob, SgdOptions
from hf_metaprune.models.architectures.registry import ARCHITECTURES
from hf_metaprune.similarity.similarity import SIMILARITIES
from tests.hub import LoopbackHub
from tests.hub.fixtures import hub
from tests.test_api import callables, documented, resolve
from tests.tiny import tiny_preprocessing

__all__ = ["hub"]


def documented_things() -> Iterator[tuple[str, Any]]:
    for path in documented():
        yield path, resolve(path)
    yield from ((path, function) for path, function in callables() if path not in documented())


def code_blocks(docstring: str) -> list[str]:
    """What is indented below each line that ends with two colons."""
    blocks = re.findall(r"^( *).*::\n((?:\1 +.*\n|\n)+)", inspect.cleandoc(docstring) + "\n", re.M)
    return [textwrap.dedent(block) for _, block in blocks]


EXAMPLES = [(path, block) for path, thing in documented_things() for block in code_blocks(inspect.getdoc(thing) or "")]


def examples(thing: Any) -> str:
    """The code of a docstring's examples, as text."""
    docstring = inspect.getdoc(thing) or ""
    return "\n".join([*code_blocks(docstring), *re.findall(r"^ *(?:>>>|\.\.\.) (.*)", docstring, re.M)])


@pytest.mark.parametrize("path", [path for path in documented() if path != "hf_metaprune.errors"])
def test_every_name_has_an_example(path: str) -> None:
    assert examples(resolve(path))


@pytest.mark.parametrize(("path", "function"), list(callables()))
def test_an_example_calls_every_function_and_method(path: str, function: Any) -> None:
    """The function's own example, or that of its class; each method of the main class has its own."""
    class_path, _, name = path.rpartition(".")
    code = examples(function)
    if class_path in documented() and ".MetaPruner." not in path:
        code += examples(resolve(class_path))
    assert re.search(rf"\b{name}\b", code)


@pytest.fixture(scope="session")
def saved_model(make_once: Callable[..., Path], bank_folder: Path, task_data: Any) -> Path:
    """A saved model of three classes."""
    pruner = MetaPruner.from_hub(bank_folder)
    return make_once(
        "docstring_model", lambda folder: pruner.adapt(task_data.select((0, 1, 3)), steps=1).save_pretrained(folder)
    )


@pytest.fixture
def stage(
    tmp_path: Path, photos: Path, base_folder: Path, bank_folder: Path, saved_model: Path, monkeypatch: Any
) -> Path:
    """A folder with photos, a base, banks and a model, as examples name them; we are in it."""
    for name, source in {"demo_bank": bank_folder, "my-bank": bank_folder, "resnet50": base_folder}.items():
        shutil.copytree(source, tmp_path / name)
    shutil.copytree(saved_model, tmp_path / "model")
    for name in ("photo.jpg", "cat.jpg", "dog.jpg"):
        shutil.copy(next((photos / "cat").glob("*.jpg")), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "_PLACES", (tmp_path,))
    for registry in (METHODS, SIMILARITIES, ARCHITECTURES):  # what examples register is gone afterwards
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    return tmp_path


@pytest.fixture
def published(stage: Path, hub: LoopbackHub) -> None:
    """What examples find on the Hub."""
    hub.add_org("org", ["me"])
    commit = hub.put_folder("org/resnet50-bank", stage / "my-bank")
    hub.repo("org/resnet50-bank").branches["v1"] = commit
    hub.put_folder("ada/pets", stage / "model")
    shutil.copytree(stage / "my-bank", stage / "bank_with_pets")
    Bank.open(stage / "bank_with_pets").add(load_result(stage / "model").model, "my-pets")
    hub.put_folder("me/pet-bank", stage / "bank_with_pets")


@pytest.fixture
def names(stage: Path, few_steps: None, code: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The names that an example uses without saying where they come from."""
    if re.search("hub|search|org/|ada/|me/", code):
        request.getfixturevalue("published")
    makers: dict[str, Callable[[], Any]] = {
        "base": lambda: BaseModel.load(stage / "resnet50"),
        "data": lambda: read_task_data(stage / "photos", tiny_preprocessing()),
        "bank": lambda: Bank.open(stage / "my-bank"),
        "pruner": lambda: MetaPruner.from_hub(stage / "my-bank"),
        "result": lambda: load_result(stage / "model"),
        "model": lambda: load_result(stage / "model").model,
        "pixels": lambda: torch.zeros(2, 3, 32, 32),
        "image": lambda: Image.new("RGB", (48, 40)),
    }
    examples = {name: make() for name, make in makers.items() if re.search(rf"\b({name}|job)\b", code)}
    if re.search(r"\bjob\b", code):
        base, data = examples["base"], examples["data"]
        examples["job"] = PruningJob(base, data.train, data.task.labels, SgdOptions(), torch.device("cpu"))
    modules = [importlib.import_module(path.rpartition(".")[0]) for path in documented() if path.count(".") > 1]
    public = {name: getattr(hf_metaprune, name) for name in hf_metaprune.__all__}
    return {name: value for module in modules for name, value in vars(module).items()} | public | examples


@pytest.mark.slow
@pytest.mark.parametrize(("path", "code"), EXAMPLES, ids=[path.removeprefix("hf_metaprune.") for path, _ in EXAMPLES])
def test_the_example_runs(path: str, code: str, names: dict[str, Any]) -> None:
    exec(compile(code, path, "exec"), {**names, "__name__": "__main__"})
