"""The whole way of a first visitor, with the bank and the example that are shipped."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from datasets import Dataset

from hf_metaprune.result import load_result

from .conftest import Served, Visit, serve_forked, wait_until

SPACE = Path(__file__).parents[2] / "space"


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page as ``hf-metaprune space`` serves it."""
    yield from serve_forked(
        tmp_path_factory.mktemp("demo"), "--bank", SPACE / "demo_bank", "--examples", SPACE / "examples"
    )


def saved(one: Visit, button: str, path: Path) -> Path:
    with one.page.expect_download() as coming:
        one.page.locator(button).click()
    coming.value.save_as(path)
    return path


@pytest.mark.slow
def test_from_the_example_to_three_files(demo: Served, visit: Callable[..., Visit], tmp_path: Path) -> None:
    one = visit(demo.url)
    one.take_example()
    one.set_steps(20)
    one.make()
    one.finish()
    assert "recognized" in one.text("#result")
    assert " ms per photo" in one.text("#size")
    row = Dataset.from_parquet(str(SPACE / "examples" / "unseen_five" / "test.parquet"))[0]
    photo = tmp_path / "photo.png"
    row["image"].save(photo)
    one.page.locator("#photo input[type=file]").set_input_files(str(photo))
    one.message("#answer", "Most likely")
    with zipfile.ZipFile(saved(one, "#download", tmp_path / "model.zip")) as archive:
        archive.extractall(tmp_path)
    result = load_result(tmp_path / "model")
    assert result.report.accuracy > 0.6
    assert result.predict(photo)[0]["label"] in one.text("#answer")
    assert "<html" in saved(one, "#report", tmp_path / "report.html").read_text()
    one.press("Make an ONNX file")
    one.page.locator("#onnx").wait_for()
    session = onnxruntime.InferenceSession(saved(one, "#onnx", tmp_path / "model.onnx"))
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    pixels = result.processor(row["image"], return_tensors="np")["pixel_values"]
    (logits,) = session.run(None, {"pixel_values": pixels})
    assert labels[int(np.argmax(logits))] == result.predict(photo)[0]["label"]
    program = saved(one, "#program", tmp_path / "classify.py")
    # a file of the visitor's own: one that Gradio shares looks old, and would be swept
    assert [file.parent.name.split("-")[0] for file in demo.files.rglob("classify.py")] == ["metaprune"]
    command = [sys.executable, program, tmp_path / "model.onnx", photo]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split("\t")[1].startswith(result.predict(photo)[0]["label"])
    one.press("Compare with baselines")
    one.message("#comparison", "Trying")
    stop = one.page.locator("#stop-comparison")
    assert wait_until(lambda: one.page.evaluate("document.activeElement.id") == "stop-comparison")
    stop.press("Enter")
    one.message("#comparison-messages", "Stopped.")
    assert "Trying" not in one.text("#comparison")
    assert wait_until(lambda: one.page.evaluate("document.activeElement.id") == "compare")
