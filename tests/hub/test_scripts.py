"""The script with which a user goes the whole way on the real Hub, on ours."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hf_metaprune import Bank
from hf_metaprune.data.task import TaskData
from tests.conftest import REPO
from tests.hub import LoopbackHub
from tests.hub.client import point_at

SCRIPT = str(REPO / "scripts" / "hub_round_trip.py")
RunScript = Callable[..., tuple[Any, str]]


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunScript:
    """Run the script with arguments: its exit code, or its last words, and its output."""

    def call(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(SCRIPT, run_name="__main__")
        return end.value.code, capsys.readouterr().out

    return call


def class_folders(task_data: TaskData, folder: Path) -> Path:
    for n, (image, c) in enumerate(zip(task_data.train.images, task_data.train.targets, strict=True)):
        path = folder / task_data.task.labels[c] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


@pytest.mark.slow
def test_the_whole_way_by_the_script(
    hub: LoopbackHub, bank: Bank, task_data: TaskData, tmp_path: Path, run_script: RunScript
) -> None:
    data = class_folders(task_data.select((0, 1, 3, 4)), tmp_path / "data")
    code, output = run_script("--bank", str(bank.root), "--data", str(data), "--steps", "1")
    lines = output.splitlines()
    assert not code
    assert [line[:2] for line in lines] == ["1.", "2.", "3.", "4.", "5."]
    assert "voted for by me/metaprune-try-model-" in lines[-1]
    assert not hub.store.repos  # all of it was deleted


def test_without_a_token_it_says_what_to_do(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_script: RunScript
) -> None:
    point_at(hub, monkeypatch, tmp_path / "home")
    last_words, _ = run_script()
    assert last_words.startswith("error: cannot log in to the Hub")
    assert "HF_TOKEN" in last_words
