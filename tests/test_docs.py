"""What the docs say, done: a reader written from the format's page alone reads what we write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hf_metaprune import Bank
from hf_metaprune.bank.sketch import pack_sketch, unpack_sketch
from tests.conftest import REPO
from tests.test_imports import FLOORS

FORMAT = REPO / "docs" / "reference" / "format.md"


@pytest.fixture(scope="module")
def reader() -> dict[str, Any]:
    """The names that the page's code defines; it opens the demo bank."""
    (code,) = re.findall(r"```python\n(.*?)```", FORMAT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code.replace('"space/', f'"{REPO}/space/'), str(FORMAT), "exec"), names)
    return names


def test_the_reader_of_the_page_gives_the_same_logits(reader: dict[str, Any], bank: Bank) -> None:
    demo = Bank.open(REPO / "space" / "demo_bank")
    assert [row["id"] for row in reader["rows"]] == list(demo.entries)
    first = next(iter(demo))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for network, entry, x in (
        (reader["network"], first, pixels),
        *((reader["whole_network"](e.folder), e, pixels[..., :32, :32]) for e in bank),
    ):
        with torch.no_grad():
            assert torch.allclose(network(x), entry.load_model().eval()(x).logits, atol=1e-4)


def test_the_page_names_every_file_key_and_column(bank: Bank, tmp_path: Path) -> None:
    page = FORMAT.read_text()
    entry = next(iter(bank))
    config = json.loads((entry.folder / "config.json").read_text())
    names = {*config, *config["base_model"], *config["preprocessing"], *bank.meta}
    names |= {*pq.read_schema(bank.root / "index.parquet").names, *(path.name for path in entry.folder.iterdir())}
    assert {name for name in names - {"transformers_version"} if f"`{name}`" not in page} == set()


def test_a_sketch_is_packed_as_the_page_says() -> None:
    sketch = np.random.default_rng(0).normal(size=(7, 3))
    packed = pack_sketch(sketch)
    scales, biases = np.frombuffer(packed[:12], "<f2").reshape(2, 3).astype(float)
    weights = np.frombuffer(packed[12:], np.int8).reshape(6, 3)
    features = np.arange(6.0)
    logits = [sum(features[f] * weights[f, c] * scales[c] for f in range(6)) + biases[c] for c in range(3)]
    assert features @ unpack_sketch(packed, 3)[:-1] + unpack_sketch(packed, 3)[-1] == pytest.approx(logits, rel=1e-4)


def test_the_design_names_modules_that_are_there() -> None:
    house = (
        (REPO / "docs" / "design.md").read_text().partition("## The house")[2].partition("```\n")[2].partition("```")[0]
    )
    order = [name.strip(" /") for line in house.splitlines() for name in line.split("  ")[0].split(",")]
    names = set(order)
    package = REPO / "hf_metaprune"
    there = {path.stem for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert there - names - {"__init__", "__pycache__", "_auto", "version"} == set()
    assert names - there == set()
    assert order == sorted(order, key=FLOORS.index)  # from the bottom to the top
