"""Budgets of time: the table's guesses, and that what is chosen was measured; with a clock that counts parameters."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.adapt import measuring
from hf_metaprune.config import AdaptOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import OptionError
from hf_metaprune.masks.scores import ScoreMask
from hf_metaprune.models.slicing import count_parameters
from hf_metaprune.sizing import fitting
from hf_metaprune.sizing import timing as costs
from hf_metaprune.sizing.inputs import AdaptInputs
from hf_metaprune.sizing.latency import RATIOS, LatencyTable
from hf_metaprune.sizing.order import Order, Sizing

TINY = {"steps": 1, "batch_size": 16, "neighbors": 1, "eval_steps": (0,)}


def clock(model: nn.Module, pixels: torch.Tensor) -> float:
    """Milliseconds, if a thousand parameters took one."""
    assert pixels.shape[0] == 1
    return count_parameters(model) / 1000


def test_models_are_timed_in_turn_in_one_layout_each_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now, before = [0.0], [""]
    monkeypatch.setattr(costs, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(nn.Module):
        def __init__(self, name: str, seconds: float) -> None:
            super().__init__()
            self.conv, self.name, self.seconds = nn.Conv2d(3, 4, 3), name, seconds

        def forward(self, pixels: torch.Tensor) -> None:
            assert self.conv.weight.is_contiguous(memory_format=torch.channels_last)
            now[0] += self.seconds * (1 if before[0] == self.name else 10)  # the caches hold another model
            before[0] = self.name

    models = [Slow("small", 0.001), Slow("base", 0.003)]
    models[1].to(memory_format=torch.channels_last)
    assert costs.latencies_ms(models, torch.zeros(1, 3, 8, 8)) == pytest.approx([1.0, 3.0])


@pytest.fixture
def table(bank: Bank, task_data: TaskData) -> LatencyTable:
    generator = torch.Generator().manual_seed(0)
    scores = ScoreMask({name: torch.rand(size, generator=generator).numpy() for name, size in bank.sizes.items()})
    inputs = AdaptInputs(bank.base, task_data.task, task_data.train, AdaptOptions(), None, torch.device("cpu"))
    return LatencyTable(inputs, Sizing(bank.base.layers, Order.from_scores(scores)), clock)


def test_the_table_is_exact_where_it_was_measured_and_between_in_between(table: LatencyTable) -> None:
    for ratio in RATIOS:
        counts = table.sizing.counts(ratio)
        assert table(counts) == pytest.approx(table.measure(counts), rel=0.35, abs=1.0)
    between = table(table.sizing.counts(0.45))
    assert table(table.sizing.counts(0.6)) < between < table(table.sizing.counts(0.3))


@pytest.mark.slow
def test_what_is_chosen_was_measured_to_be_within_the_bound(
    bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LatencyTable", partial(LatencyTable, measure_ms=clock))
    monkeypatch.setattr(
        measuring, "measure_latencies", lambda models, *_: dict.fromkeys(models, 0.0)
    )  # a busy machine's
    pruner, task = MetaPruner(bank), task_data.select((0, 2, 5))
    full = pruner.adapt(task, **TINY).report.base_params
    report = pruner.adapt(task, **TINY, max_latency_ms=full / 2000).report
    assert 0.8 * full / 2 < report.params <= full / 2
    assert pruner.adapt(task, **TINY, max_latency_ms=1e6).report.params == full
    least = pruner.adapt(task, **TINY, ratio=0.99).report
    report = pruner.adapt(task, **TINY, max_latency_ms=1.001 * least.params / 1000).report
    assert report.params == least.params
    assert "the smallest size was taken" in report.notes[0]
    assert not any("at the end" in note for note in report.notes)
    monkeypatch.setattr(measuring, "measure_latencies", lambda models, *_: dict.fromkeys(models, 1e7))
    report = pruner.adapt(task, **TINY, max_latency_ms=1e6).report
    assert "an image took 10000000.00 ms at the end" in report.notes[-1]
    with pytest.raises(OptionError, match=r"max_latency_ms=0.5: the smallest sub-network .* takes [\d.]+ ms on this"):
        pruner.adapt(task, **TINY, max_latency_ms=0.5)
