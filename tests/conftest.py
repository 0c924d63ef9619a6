"""How the tests run (workers, what is left out), and the shared fixtures: a tiny base, task and bank."""

from __future__ import annotations

import functools
import gc
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import settings

from tests import REPO

# Fixtures import what is heavy: the process that only hands out the tests to workers needs none of it.
if TYPE_CHECKING:
    from hf_metaprune.bank.bank import Bank
    from hf_metaprune.data.task import TaskData
    from hf_metaprune.models.base_model import BaseModel
    from hf_metaprune.pruner import MetaPruner

settings.register_profile("any machine", deadline=None)  # a busy one is no failure
settings.load_profile("any machine")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), None
)
MOST_WORKERS = 8  # each holds more than a gigabyte
needs_wordnet = pytest.mark.wordnet


def first_by_default(*values: Any) -> list[Any]:
    """Return parameters of a test, of which all but the first are slow ones."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.slow) for value in values[1:])]


# --- how the tests run ------------------------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Start a worker per core, and none for a single file, which is done before workers have imported anything."""
    if len(config.args) == 1 and ".py" in config.args[0]:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist loadgroup, let one worker run all tests of a file, all of export, and all that forks.

    What a module's fixtures make is made once then, translations of models and what is forked too. Files of a few long
    tests are spread.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file in ("tests/test_site.py", "tests/test_docstring_examples.py") and "[" in nodeid:
                return nodeid
            if re.search(r"\bforked\.|\bbench_hub\b", (REPO / file).read_text()):
                return "forked"
            return "tests/export/" if file.startswith("tests/export/") else file

    return ByFile(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --coverage."""
    parser.addoption(
        "--coverage", type=Path, metavar="FOLDER", help="Write which lines of the library ran (CONTRIBUTING.md)."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch what runs if asked to, before anything imports the library; run a slow test that is named by its id."""
    if config.option.coverage:
        from tests.coverage import Coverage

        config.pluginmanager.register(Coverage(config.option.coverage))
    if config.option.markexpr == "not slow" and config.args and all("::" in argument for argument in config.args):
        config.option.markexpr = ""


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what the tests import, which takes 6% of the time of a worker."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let it see all again, or libraries in C++ complain that nothing of them was freed."""
    gc.unfreeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what uses a browser or a Hub on loopback, so that nobody has to think of it."""
    for name in {"browser", "hub"} & set(getattr(item, "fixturenames", ())):
        item.add_marker(name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test for what the machine lacks before its fixtures start servers for it."""
    if CHROMIUM is None and item.get_closest_marker("browser"):
        pytest.skip("browser tests need Chromium: apt-get install chromium")
    if item.get_closest_marker("wordnet") and not wordnet_found():
        pytest.skip("WordNet tests need its data: python -m nltk.downloader wordnet")


@functools.cache
def wordnet_found() -> bool:
    """Whether NLTK finds WordNet."""
    import nltk

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        return True
    return False


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say in one line per reason what did not run, however many tests it is."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    lines = [f"skipped {count}: {reason}" for reason, count in reasons.items()]
    if config.option.markexpr == "not slow":
        lines.append("slow tests did not run: uv run --extra dev pytest -m slow")
    if lines:
        terminalreporter.section("left out")
        for line in lines:
            terminalreporter.line(line)


# --- shared fixtures --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a folder once for all workers: who comes second waits for the first. Nobody may write to it later."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers of this run

    def call(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / "made_once" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.with_suffix(".done").exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                folder.with_suffix(".done").touch()
        return folder

    return call


@pytest.fixture(scope="session")
def base_folder(make_once: Callable[..., Path]) -> Path:
    from tests.tiny import make_base

    return make_once("base", make_base)


@pytest.fixture(scope="session")
def base(base_folder: Path) -> BaseModel:
    from hf_metaprune.models.base_model import BaseModel

    return BaseModel.load(base_folder)


@pytest.fixture(scope="session")
def vit_base(make_once: Callable[..., Path]) -> BaseModel:
    from hf_metaprune.models.base_model import BaseModel
    from tests.tiny import make_vit_base

    return BaseModel.load(make_once("vit_base", make_vit_base))


@pytest.fixture(scope="session")
def task_data() -> TaskData:
    from tests.tiny import make_task_data

    return make_task_data()


@pytest.fixture(scope="session")
def bank_folder(make_once: Callable[..., Path], base: BaseModel, task_data: TaskData) -> Path:
    from tests.tiny import make_bank

    return make_once("bank", lambda folder: make_bank(folder, base, task_data))


@pytest.fixture
def bank(bank_folder: Path) -> Bank:
    """The tiny bank; do not write to it (see `own_bank`)."""
    from hf_metaprune.bank.bank import Bank

    return Bank.open(bank_folder)


@pytest.fixture
def pruner(bank_folder: Path) -> MetaPruner:
    from hf_metaprune.pruner import MetaPruner

    return MetaPruner.from_hub(bank_folder)


@pytest.fixture
def own_bank(bank_folder: Path, tmp_path: Path) -> Bank:
    """A copy of the tiny bank to break."""
    from hf_metaprune.bank.bank import Bank

    shutil.copytree(bank_folder, tmp_path / "bank")
    return Bank.open(tmp_path / "bank")


@pytest.fixture
def photos(tmp_path: Path, task_data: TaskData) -> Path:
    """A folder of class folders, as a user has it."""
    from PIL import Image

    root = tmp_path / "photos"
    for i, (image, c) in enumerate(zip(task_data.train.images, task_data.train.targets, strict=True)):
        folder = root / task_data.task.labels[c]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((48, 40)).save(folder / f"{i}.jpg")
    return root


@pytest.fixture(scope="session", autouse=True)
def short_timings() -> Iterator[None]:
    """Measure the latency of a model once after one pass, because each report has one; tests of time undo it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_metaprune.sizing.timing.WARM_MS", 0.0)
        patch.setattr("hf_metaprune.sizing.timing.ROUNDS", 1)
        yield


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the default numbers of steps 2, for code of pages and docstrings, which sets none."""
    from hf_metaprune.config import TrainingOptions
    from hf_metaprune.methods.method import METHODS

    for options in {TrainingOptions, *(method.options for method in METHODS.all())}:
        fields = options.__dataclass_fields__
        monkeypatch.setattr(fields["steps"], "default", 2)
        defaults = tuple(2 if field.name == "steps" else field.default for field in fields.values() if field.init)
        monkeypatch.setattr(options.__init__, "__defaults__", defaults)


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run code in another process; gives its standard output, fails with its errors."""

    def run(code: str, *arguments: str, env: dict[str, str] | None = None, ok: bool = True) -> str:
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=REPO,
            env=os.environ | (env or {}),
            timeout=300,
            check=False,
        )
        assert (process.returncode == 0) == ok, process.stderr
        return process.stdout

    return run
