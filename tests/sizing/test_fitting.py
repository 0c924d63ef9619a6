"""The search for sizes within a budget of time, with a table and a clock that the test sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_metaprune import Bank
from hf_metaprune.config import AdaptOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.masks.scores import ScoreMask
from hf_metaprune.sizing import fitting
from hf_metaprune.sizing.inputs import AdaptInputs
from hf_metaprune.sizing.order import Counts, Order


class WrongTable:
    """A table whose estimates are too low by a third, and a clock that runs a little slower after its first run."""

    def __init__(self, inputs: AdaptInputs, sizing: object) -> None:
        self.measured_sizes: list[int] = []
        WrongTable.last = self

    last: WrongTable

    def __call__(self, counts: Counts) -> float:
        return sum(counts.values()) / 100

    def measure(self, counts: Counts) -> float:
        self.measured_sizes.append(sum(counts.values()))
        return self(counts) * (1.5 if len(self.measured_sizes) == 1 else 1.53)


def test_a_wrong_table_is_corrected_by_one_measurement(
    bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try leaves room for a clock that swings by 2%."""
    monkeypatch.setattr(fitting, "LatencyTable", WrongTable)
    n_units = sum(bank.sizes.values())
    options = AdaptOptions(max_latency_ms=0.5 * n_units / 100 * 1.5 / fitting.TARGET_SHARE)
    inputs = AdaptInputs(bank.base, task_data.task, task_data.train, options, None, torch.device("cpu"))
    generator = np.random.default_rng(0)
    scores = ScoreMask({name: generator.random(size).astype(np.float32) for name, size in bank.sizes.items()})
    notes: list[str] = []
    mask, _ = fitting.select_mask(inputs, Order.from_scores(scores), None, notes.append)
    first, second = WrongTable.last.measured_sizes
    assert first > 0.7 * n_units
    assert second == mask.n_kept
    assert 0.44 * n_units < second <= 0.49 * n_units
    assert notes == []
