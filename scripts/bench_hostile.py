#!/usr/bin/env python
"""What the costliest files of strangers cost: CPU seconds and memory of reading, or refusing, files of at most 5 MB.

uv run --extra dev scripts/bench_hostile.py
uv run --extra dev scripts/bench_hostile.py --only report --out report.csv

Each file is read in a process of its own, which has imported the library. Of a bank, all rows are read, and the files
of at most 1,000 entries. A row has the seconds of CPU and the memory that reading took on top, and the outcome. The
last line names the files that are over the limits.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import ctypes
import gc
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the scripts are no installed package

from hf_metaprune import BaseModel, load_result
from hf_metaprune.drawing.style import drawn_png
from hf_metaprune.errors import MetaPruneError
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.architectures.layers import layer_sizes
from hf_metaprune.models.architectures.lookup import find_architecture
from hf_metaprune.reporting.card import split_card
from hf_metaprune.reporting.figures import curve_figure
from hf_metaprune.reporting.model_card import ModelCard
from hf_metaprune.reporting.report import AdaptReport
from scripts import hostile_images, hostile_indexes  # noqa: F401  # add their cases
from scripts.hostile_files import CASES, Make, case, change_json, copy_bank, read_bank

MOST_BYTES = 5_000_000
MOST_SECONDS = 2.0
MOST_MEMORY = 300_000_000

# --- banks and models -------------------------------------------------------------------------------------------------


def packed(units: int, layers: int) -> dict[str, Any]:
    bits = base64.b64encode(np.packbits(np.ones(units, bool)).tobytes()).decode()
    return {f"layer{i}": {"size": units, "kept": units, "bits": bits} for i in range(layers)}


def bank_case(name: str, file: str, **changes: Any) -> None:
    def make(folder: Path) -> tuple[Path, Callable[[], object]]:
        root = copy_bank(folder)
        first = next((root / "tasks").iterdir())
        path = first / "config.json" if file == "entry" else root / file
        change_json(path, **changes)
        return path, lambda: read_bank(root)

    CASES[f"{file}: {name}"] = make


bank_case("300,000 layers", "bank.json", layers={f"l{i}": 1 for i in range(300_000)})
bank_case("layers of many units", "bank.json", layers={f"l{i}": 1 << 20 for i in range(200_000)})
bank_case("unknown keys", "bank.json", **{f"key{i}": i for i in range(250_000)})
bank_case("60,000 layers", "entry", masks=packed(1, 60_000))
bank_case("layers of a million units", "entry", masks=packed(1 << 20, 28))
bank_case("labels", "entry", id2label={str(i): f"x{i}" for i in range(200_000)})
bank_case("synsets", "entry", synsets=["n00000001"] * 350_000)
bank_case("metrics", "entry", metrics={f"m{i}": 0.5 for i in range(200_000)})
bank_case("a metric in a metric", "entry", metrics=json.loads('{"a":' * 60 + "1" + "}" * 60))
bank_case("large images", "entry", preprocessing={"input_size": [3, 4096, 4096], "mean": [0.5] * 3, "std": [0.5] * 3})
bank_case("labels of the base", "base/config.json", label_names=[f"x{i}" for i in range(350_000)])
bank_case("large images of the base", "base/config.json", pretrained_cfg={
    "input_size": [3, 4096, 4096], "mean": [0.5] * 3, "std": [0.5] * 3
})  # fmt: skip
bank_case("many channels", "base/config.json", model_args={"channels": [65536] * 4})
bank_case("many blocks", "base/config.json", model_args={"layers": [256] * 4})
bank_case("as many blocks as can be", "base/config.json", model_args={"layers": [40] * 4})


def model_case(name: str, model_args: dict[str, Any], read: Callable[[Path], object]) -> None:
    """A model whose config is of another network than its weights."""

    def make(folder: Path) -> tuple[Path, Callable[[], object]]:
        model = next((copy_bank(folder) / "tasks").iterdir())
        values = json.loads((model / "config.json").read_text())
        base = values["base_model"]
        base["model_args"] |= model_args
        family = find_architecture("timm", base["architecture"])
        network = family.build_empty(base["architecture"], base["model_args"], len(values["id2label"]))
        values["masks"] = Mask.full(layer_sizes(family.layers(network))).pack()
        (model / "config.json").write_text(json.dumps(values))
        return model / "config.json", lambda: read(model)

    CASES[f"model: {name}"] = make


for reader, words in ((load_result, ""), (AutoModelForImageClassification.from_pretrained, ", by transformers")):
    model_case(f"many channels{words}", {"channels": [65536] * 4}, reader)
    model_case(f"many blocks{words}", {"layers": [40] * 4}, reader)


@case("nothing hostile")
def sound_bank(folder: Path) -> tuple[Path, Callable[[], object]]:
    root = copy_bank(folder)
    return root / "index.parquet", lambda: read_bank(root)


@case("model: predicting large images")
def large_images(folder: Path) -> tuple[Path, Callable[[], object]]:

    root = copy_bank(folder)
    model = next((root / "tasks").iterdir())
    values = json.loads((model / "config.json").read_text())
    values["preprocessing"] |= {"input_size": [3, 4096, 4096]}
    (model / "config.json").write_text(json.dumps(values))
    photos = [Image.new("RGB", (64, 64))] * 8
    return model / "config.json", lambda: load_result(model).predict(photos)


# --- cards ------------------------------------------------------------------------------------------------------------


def card_case(name: str, text: str) -> None:
    def make(folder: Path) -> tuple[Path, Callable[[], object]]:
        path = folder / "README.md"
        path.write_text(text)
        config = {"base_model": {"sha256": "0" * 64}, "labels": ["a", "b"]}
        card = ModelCard("me/model", config, b"", AdaptReport(labels=["a", "b"]), "0" * 64, 5)

        def read() -> None:
            content = path.read_text()
            card.render(content, content)  # as publishing does, with a card in the folder and one on the Hub
            split_card(content)

        return path, read

    CASES[f"card: {name}"] = make


card_case("2 MB of YAML", "---\n" + "".join(f"key{i}: value\n" for i in range(100_000)) + "---\n")
card_case("a list of 2 MB", "---\nmetaprune:\n" + "- a\n" * 500_000 + "---\n")
card_case("YAML in brackets", "---\nmetaprune: [" + "[]," * 600_000 + "]\n---\n")
card_case("24,000 keys", "---\n" + "".join(f"key{i}: v\n" for i in range(12_000)) + "---\n")
card_case("24,000 tags", "---\ntags: [" + ", ".join(f"t{i}" for i in range(24_000)) + "]\n---\n")
card_case("a block of 12,000 keys", "---\nx:\n" + "".join(f"  k{i}: 1\n" for i in range(12_000)) + "---\n")
card_case("a number to base 60", "---\nx: 1" + ":1" * 900_000 + "\n---\n")
card_case("a number of many digits", "---\nx: " + "1" * 2_000_000 + "\n---\n")
card_case("colliding keys", "---\nx: {" + ", ".join(f"{i * (2**61 - 1)}: 1" for i in range(1, 12_400)) + "}\n---\n")
card_case(
    "merged colliding keys", "---\n<<: {" + ", ".join(f"{i * (2**61 - 1)}: 1" for i in range(1, 12_400)) + "}\n---\n"
)
card_case("directives", "---\n" + "%TAG !xx! a\n" * 77_000 + "---\n")
card_case("a text of 2 MB", '---\n{x: "' + "a " * 1_000_000 + '"}\n---\n')
card_case("a text of 1 MB", '---\n{x: "' + "a " * 499_000 + '"}\n---\n')
card_case("an end that never comes", "---\n" + "a: b\n" * 400_000)
card_case("a long text", "---\na: b\n---\n" + "<!-- hf-metaprune card 0123456789abcdef -->\n" * 40_000)


# --- tensors ----------------------------------------------------------------------------------------------------------


def header_case(name: str, header: dict[str, Any]) -> None:
    def make(folder: Path) -> tuple[Path, Callable[[], object]]:
        root = copy_bank(folder)
        text = json.dumps(header).encode()
        files = (root / "base" / "model.safetensors", next((root / "tasks").iterdir()) / "model.safetensors")
        for file in files:
            file.write_bytes(len(text).to_bytes(8, "little") + text)
        return files[0], lambda: (read_bank(root), BaseModel.load(root / "base"))

    CASES[f"tensors: {name}"] = make


header_case("60,000 empty tensors", {
    f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(60_000)
})  # fmt: skip
header_case("metadata", {"__metadata__": {f"k{i}": "v" for i in range(200_000)}})
header_case("a tensor larger than the file", {"t": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})


def base_case(name: str, config: dict[str, Any], save: Callable[[Path], object]) -> None:
    """A base of its own, whose weights a function saves."""

    def make(folder: Path) -> tuple[Path, Callable[[], object]]:
        root = folder / "base"
        root.mkdir(parents=True)
        cfg = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3}
        (root / "config.json").write_text(json.dumps(config | {"pretrained_cfg": cfg}))
        save(root / "model.safetensors")
        return root / "model.safetensors", lambda: BaseModel.load(root)

    CASES[f"base: {name}"] = make


def save_empty_head(name: str) -> Callable[[Path], object]:
    """Return a function that saves a classifier of a million classes that read nothing, and no other tensor."""
    text = json.dumps({name: {"dtype": "F32", "shape": [1_000_000, 0], "data_offsets": [0, 0]}}).encode()
    return lambda path: path.write_bytes(len(text).to_bytes(8, "little") + text)


def save_convnext(path: Path) -> None:
    network = find_architecture("timm", "convnext_tiny").build("convnext_tiny", DEEP_CONVNEXT, 2)
    save_file(dict(network.state_dict()), path)


DEEP_CONVNEXT = {"depths": [40] * 4, "dims": [4] * 4}
base_case("a million classes of a ResNet", {
    "architectures": ["ResNetForImageClassification"], "depths": [40] * 4
}, save_empty_head("classifier.1.weight"))  # fmt: skip
base_case("a million classes of a ViT", {"architectures": ["ViTForImageClassification"]}, save_empty_head(
    "classifier.weight"
))  # fmt: skip
base_case("a ConvNeXt of as many blocks as can be", {
    "architecture": "convnext_tiny", "model_args": DEEP_CONVNEXT
}, save_convnext)  # fmt: skip


@dataclass
class Cost:
    """What one file cost."""

    size: int
    seconds: float
    memory: int
    outcome: str


def measure(make: Make, folder: Path, send: Any) -> None:
    """Make a file and read it; send the cost."""
    torch.set_num_threads(1)
    path, read = make(folder)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    gc.collect()  # memory that making the file has left would hide what reading takes
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    peak = [memory_in_use()]
    done = threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(peak, done))
    before, start = peak[0], time.process_time()
    watcher.start()
    try:
        read()
        outcome = "read"
    except MetaPruneError as error:
        outcome = f"refused: {str(error).replace(str(folder), '')[:70]}"
    except BaseException as error:
        outcome = f"FAILED: {type(error).__name__}: {str(error)[:70]}"
    seconds = time.process_time() - start
    done.set()
    watcher.join()
    send.send(Cost(size, seconds, max(peak) - before, outcome))


def memory_in_use() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def watch_memory(peak: list[int], done: threading.Event) -> None:
    while not done.wait(0.005):
        peak.append(memory_in_use())


def run(make: Make) -> Cost:
    receive, send = multiprocessing.Pipe(False)
    folder = Path(tempfile.mkdtemp())
    try:
        child = multiprocessing.get_context("fork").Process(target=measure, args=(make, folder, send))
        child.start()
        if receive.poll(300):
            return receive.recv()
        child.kill()
        return Cost(0, 300.0, 0, "FAILED: not done after 300 s")
    except EOFError:
        return Cost(0, 0.0, 0, "FAILED: the process ended")
    finally:
        child.kill()
        child.join()
        shutil.rmtree(folder)


def main(
    only: Annotated[str, typer.Option(help="Only cases whose names have this in them.")] = "",
    out: Annotated[Path | None, typer.Option(help="CSV file for the rows.")] = None,
) -> None:
    """Measure what hostile files cost."""
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    drawn_png(partial(curve_figure, {"a": {0: 0.5, 1: 0.6}}))  # which imports what draws
    rows, over = [["file", "MB", "seconds", "memory, MB", "outcome"]], []
    for name, make in CASES.items():
        if only not in name:
            continue
        cost = run(make)
        is_over = cost.seconds > MOST_SECONDS or cost.memory > MOST_MEMORY or cost.outcome.startswith("FAILED")
        over += [name] if is_over and cost.size <= MOST_BYTES else []
        numbers = [f"{cost.size / 1e6:.2f}", f"{cost.seconds:.2f}", f"{cost.memory / 1e6:.0f}"]
        rows.append([name, *numbers, cost.outcome])
        print(f"| {' | '.join(rows[-1])} |", flush=True)
    if out is not None:
        with open(out, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    print(f"\nover the limits: {', '.join(over) or 'none'}")
    sys.exit(bool(over))


if __name__ == "__main__":
    typer.run(main)
