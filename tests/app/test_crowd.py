"""Visitors at once: all get their own model, one after the other, and the server's memory stays bounded."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Served, Visit, serve, wait_until

ALLOWED = 250_000_000
"""Bytes beyond those after the first visitor."""


@pytest.fixture
def own_server(bank_folder: Path, examples: Path, tmp_path: Path) -> Iterator[Served]:
    yield from serve(tmp_path, "--bank", bank_folder, "--examples", examples)


@pytest.mark.slow
def test_all_are_served_or_told_to_wait(own_server: Served, visit: Callable[..., Visit]) -> None:
    first = visit(own_server.url)
    first.take_example()
    first.set_steps(20)
    first.make()
    first.finish()
    before = own_server.peak_memory()
    second = visit(own_server.url)
    second.take_example()
    second.set_steps(20)
    first.set_steps(200)  # so that the second one comes while the first one trains
    for one in (first, second):
        one.make()
    assert wait_until(lambda: "before you" in second.text("#progress"))
    for one in (first, second):
        one.finish()
    assert own_server.peak_memory() - before < ALLOWED
    for one in (first, second):
        one.context.close()
    assert wait_until(lambda: own_server.visitors_files() == [])
    assert len(list(own_server.files.glob("hf-metaprune-*"))) == 1
    os.kill(own_server.process, signal.SIGTERM)
    assert wait_until(lambda: list(own_server.files.glob("hf-metaprune-*")) == [])
    assert "Traceback" not in own_server.log()
