"""Plans: one vote, models of any size; and options that do nothing."""

from __future__ import annotations

import pytest

from hf_metaprune import MetaPruner
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import OptionError

FAST = {"steps": 6, "batch_size": 16, "eval_steps": (0, 3), "neighbors": 2}


@pytest.fixture
def target(task_data: TaskData) -> TaskData:
    return task_data.select((0, 2, 4))


def test_a_plan_makes_models_of_any_size(pruner: MetaPruner, target: TaskData) -> None:
    plan = pruner.plan(target, **FAST, weighted=True)
    assert len(plan.neighbors) == FAST["neighbors"]
    small, large = pruner.make(plan, ratio=0.9), pruner.make(plan, ratio=0.5)
    for ratio, result in ((0.9, small), (0.5, large)):
        assert plan.cost(ratio) == (result.report.params, result.report.macs)
        assert plan.mask(ratio) == result.model.mask()
        assert result.report.given == {**FAST, "eval_steps": list(FAST["eval_steps"]), "weighted": True, "ratio": ratio}
    for ratio in (-0.2, 1.1, float("nan"), "a"):
        for ask in (plan.cost, plan.mask, plan.training_at):
            with pytest.raises(OptionError, match="a ratio must be a number from 0 to 1"):
                ask(ratio)  # type: ignore[operator]
    within = pruner.make(plan, max_macs=small.report.macs).report
    assert within.macs <= small.report.macs
    assert "ratio" not in within.given
    once = pruner.adapt(target, **FAST, weighted=True, ratio=0.5)
    assert once.model.mask() == large.model.mask()
    assert once.report.accuracy_at_step == large.report.accuracy_at_step
    assert small.report.options["lr"] == large.report.options["lr"]  # a ResNet's, unlike a transformer's
    with pytest.raises(OptionError, match="neighbors is fixed by the plan"):
        pruner.make(plan, neighbors=1)
    with pytest.raises(OptionError, match="ratio=0.5 and a budget"):
        pruner.make(plan, ratio=0.5, max_params=100_000)
    with pytest.raises(OptionError, match="compare is not for a plan"):
        pruner.plan(target, compare=True)


def test_options_that_do_nothing_are_said(
    pruner: MetaPruner, target: TaskData, caplog: pytest.LogCaptureFixture
) -> None:
    pruner.adapt(target, **FAST, tau=0.5, normalize="global", momentum=0.5, optimizer="adamw")
    assert [record.getMessage() for record in caplog.records] == [
        "tau has no effect with vote=top: it needs vote=sample",
        "normalize has no effect with strategy=mvp: it needs strategy=smsp",
        "momentum has no effect with optimizer=adamw: it needs optimizer=sgd",
    ]
    caplog.clear()
    pruner.adapt(target, **FAST, tau=0.5, vote="sample", momentum=0.5, weighted=True)
    assert not caplog.records
