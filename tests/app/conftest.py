"""The real page in a real browser: a server on loopback, with the tiny bank, and Chromium."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hf_metaprune import Bank
from hf_metaprune.data.task import TaskData
from tests import forked
from tests.conftest import CHROMIUM

playwright = pytest.importorskip("playwright.sync_api")
forked.IMPORTED.append("hf_metaprune.app")

WAIT = 240_000  # milliseconds; a machine may be busy


@dataclass
class Served:
    """A page that is being served, in a process of its own: where, and where it keeps files."""

    url: str
    files: Path
    process: int = 0

    def log(self) -> str:
        """What the server has written."""
        return (self.files / "server.log").read_text()

    def forget_peak_memory(self) -> None:
        """Let `peak_memory` count from now on."""
        Path(f"/proc/{self.process}/clear_refs").write_text("5")

    def peak_memory(self) -> int:
        """Bytes that the server has held at most."""
        status = Path(f"/proc/{self.process}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def visitors_files(self) -> list[Path]:
        """The folders of visitors."""
        return sorted(self.files.glob("*/metaprune-*"))


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory, task_data: TaskData) -> Path:
    """An example task, of class folders."""
    root = tmp_path_factory.mktemp("examples")
    write_photos(root / "three_things", task_data, (0, 2, 5))
    return root


def write_photos(root: Path, data: TaskData, classes: tuple[int, ...], count: int = 12) -> dict[str, list[Path]]:
    """Photos of some classes as files, a folder a class."""
    photos: dict[str, list[Path]] = {}
    for c in classes:
        folder = root / data.task.labels[c]
        folder.mkdir(parents=True)
        for i, image in enumerate(data.train.images[data.train.targets == c][:count]):
            path = folder / f"{i}.png"
            Image.fromarray(image.permute(1, 2, 0).numpy()).resize((48, 40)).save(path)
            photos.setdefault(folder.name, []).append(path)
    return photos


@pytest.fixture(scope="session")
def served(bank_folder: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of the tiny bank."""
    yield from serve_forked(tmp_path_factory.mktemp("server"), "--bank", bank_folder, "--examples", examples)


def free_port() -> int:
    """A port that no other process of tests takes, and no connection, before the server is there at last."""
    first = 20_000 + 50 * os.getpid() % 12_000  # connections have those from 32,768
    for port in range(first, first + 50):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("there is no free port")


SETTINGS = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}


def serve(files: Path, *arguments: object, **environment: str) -> Iterator[Served]:
    """Run ``hf-metaprune space`` in a fresh process, and wait until it says that it is ready."""
    code = "import sys; from hf_metaprune.cli import main; sys.argv[0] = 'hf-metaprune'; main()"
    port = free_port()
    command = [sys.executable, "-u", "-c", code, "space", "--port", port, *arguments]
    env = {**os.environ, "TMPDIR": str(files), **SETTINGS, **environment}
    log = files / "server.log"
    with open(log, "w") as log_file:
        server = subprocess.Popen([str(word) for word in command], stdout=log_file, stderr=log_file, env=env)
    try:
        wait_for_page(log, lambda: server.poll() is None)
        yield Served(f"http://127.0.0.1:{port}/", files, server.pid)
    finally:
        server.kill()
        server.wait()


def serve_forked(
    files: Path, *arguments: object, run: Callable[..., object] = forked.run_command, **environment: str
) -> Iterator[Served]:
    """Run ``hf-metaprune space`` in a process that has imported the library already."""
    port, log = free_port(), files / "server.log"
    words = ["space", "--port", str(port), *map(str, arguments)]
    environment = {"TMPDIR": str(files), **SETTINGS, **environment}
    server = forked.context().Process(target=run, args=(words, log, environment))
    server.start()
    try:
        wait_for_page(log, server.is_alive)
        yield Served(f"http://127.0.0.1:{port}/", files, server.pid or 0)
    finally:
        server.kill()
        server.join()


def wait_for_page(log: Path, is_alive: Callable[[], bool]) -> None:
    """Wait until a server says that it is ready."""
    if not wait_until(lambda: not is_alive() or (log.exists() and "serving http" in log.read_text())) or not is_alive():
        pytest.fail(f"the page could not be served: {log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        cheap = ["--disable-gpu"]  # or a process draws with three dimensions on the CPU, without an end
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera, *cheap])
        yield chromium
        chromium.close()


def wait_until(is_so: Callable[[], bool]) -> bool:
    """Whether something becomes so before patience ends."""
    until = time.monotonic() + WAIT / 1000
    while not is_so():
        if time.monotonic() > until:
            return False
        threading.Event().wait(0.1)
    return True


class Visit:
    """One visitor's page; what the browser complains about is kept."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1000, "height": 1200}, "reduced_motion": "reduce", **context}
        )
        self.context.set_default_timeout(WAIT)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}") or dialog.dismiss())
        self.page.goto(url)

    def wait_for_bank(self, folder: Path) -> None:
        """Wait until the slider is where the bank's own models are: who moves it or leaves earlier gets in the way."""
        is_set = f"slider => slider.value == '{Bank.open(folder).default_ratio}'"
        self.page.wait_for_function(f"[...document.querySelectorAll('input[type=range]')].some({is_set})")

    def take_example(self) -> None:
        self.page.get_by_role("tab", name="Example").click()
        self.page.get_by_role("button", name="Use these photos").click()
        self.page.locator("#messages").get_by_text("The example is ready").wait_for()
        self.page.locator("#classes .class").first.wait_for()

    def choose(self, label: str, files: list[Path]) -> Any:
        """Choose photos of a class, and wait until the page lists them; return the last one's row."""
        self.page.get_by_role("tab", name="My photos").click()
        self.page.get_by_label("Name of a class").fill(label)
        self.page.locator("#files input[type=file]").set_input_files([str(file) for file in files])
        row = self.page.locator(f'td[aria-label="{files[-1].name}"]')
        row.wait_for()
        return row

    def add(self, label: str, files: list[Path], says: str) -> None:
        """Add photos of a class, and wait until the page says what became of them."""
        row = self.choose(label, files)
        self.press("Add to the class")
        self.page.locator("#messages").get_by_text(says).wait_for()
        if says.startswith("Added"):
            row.wait_for(state="detached")

    def set_steps(self, steps: int) -> None:
        """Set the steps, and see that the page has taken them: its slider shows them, too."""
        field = self.page.get_by_label("number input for Steps of fine-tuning")
        slider = self.page.get_by_label("range slider for Steps of fine-tuning")
        if not field.is_visible():
            self.page.get_by_role("button", name="Options").click()

        def taken() -> bool:
            field.fill(str(steps))
            field.press("Tab")
            return slider.input_value() == str(steps)

        assert wait_until(taken)

    def message(self, part: str, says: str) -> None:
        """Wait until a part of the page says something."""
        try:
            self.page.locator(part).get_by_text(says).first.wait_for()
        except playwright.TimeoutError:
            pytest.fail(f"{part} does not say {says!r}: {self.text(part)}")

    def press(self, name: str, exact: bool = False) -> None:
        self.page.get_by_role("button", name=name, exact=exact).click()

    def make(self) -> None:
        self.page.get_by_role("button", name="Make my model").click()

    def finish(self) -> None:
        self.page.locator("#result .tiles").wait_for()
        self.page.get_by_role("button", name="Make my model").wait_for()

    def text(self, part: str) -> str:
        """Return what a part of the page says, without Gradio's transparent status, such as "queue: 1/1 | 0.2s"."""
        own = "[...part.children].filter(child => child.dataset.testid !== 'status-tracker')"
        return self.page.locator(part).evaluate(f"part => {own}.map(child => child.innerText).join('\\n')")


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Any]:
    """Open the page as another visitor, and wait until it shows something: ``visit()``."""
    visits: list[Visit] = []

    def open_page(url: str = served.url, shows: str = "button:text('Make my model')", **context: Any) -> Visit:
        visits.append(Visit(browser, url, **context))
        visits[-1].page.locator(shows).first.wait_for()
        return visits[-1]

    yield open_page
    for one in visits:
        one.context.close()
        assert one.complaints == []
