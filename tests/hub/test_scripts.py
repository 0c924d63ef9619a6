"""The script with which a user goes the whole way on the real Hub, on ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hf_metaprune import Bank
from hf_metaprune.data.task import TaskData
from tests.conftest import REPO
from tests.hub import LoopbackHub, run_python
from tests.hub.fixtures import TOKEN

RUN = "import runpy, sys; sys.argv[0] = {!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
SCRIPT = str(REPO / "scripts" / "hub_round_trip.py")


def class_folders(task_data: TaskData, folder: Path) -> Path:
    for n, (image, c) in enumerate(zip(task_data.train.images, task_data.train.targets, strict=True)):
        path = folder / task_data.task.labels[c] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


@pytest.mark.slow
def test_the_whole_way_by_the_script(hub: LoopbackHub, bank: Bank, task_data: TaskData, tmp_path: Path) -> None:
    data = class_folders(task_data.select((0, 1, 3, 4)), tmp_path / "data")
    arguments = ("--bank", str(bank.root), "--data", str(data), "--steps", "1")
    lines = run_python(hub, tmp_path / "home", RUN.format(SCRIPT), *arguments, token=TOKEN).stdout.splitlines()
    assert [line[:2] for line in lines] == ["1.", "2.", "3.", "4.", "5."]
    assert "voted for by me/metaprune-try-model-" in lines[-1]
    assert not hub.store.repos  # all of it was deleted


@pytest.mark.slow
def test_without_a_token_it_says_what_to_do(hub: LoopbackHub, tmp_path: Path) -> None:
    process = run_python(hub, tmp_path / "home", RUN.format(SCRIPT), check=False)
    assert process.returncode == 1
    assert "error: cannot log in to the Hub" in process.stderr
    assert "HF_TOKEN" in process.stderr
    assert "Traceback" not in process.stderr
