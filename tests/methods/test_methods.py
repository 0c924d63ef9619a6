"""Pruning methods: what they keep, when they prune, and that they really slice as they go."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from hf_metaprune import Bank
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.cli.commands import DEFAULT_METHOD, named_method
from hf_metaprune.config import TrunkOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import BankError, OptionError
from hf_metaprune.masks.mask import Mask, keep_count
from hf_metaprune.methods import IterativeOptions, Method, PruningJob, get_method, method_names, register_method
from hf_metaprune.methods.iterative import PruneWhileTraining, next_mask
from hf_metaprune.methods.method import SgdOptions
from hf_metaprune.methods.schedule import counts_by_step, least_steps
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.slicing import shrink
from hf_metaprune.options import option, option_fields
from hf_metaprune.sizing.cost_model import count_flops
from hf_metaprune.training.forward import accuracy
from hf_metaprune.training.importance import ActivationRecorder, TaylorRecorder, magnitude_scores
from hf_metaprune.training.loop import TrainingState, fine_tune
from hf_metaprune.training.statistics import recalibrate
from hf_metaprune.trunk import Teaching, Trunk
from tests.tiny import make_mobile_base

CPU = torch.device("cpu")


def job(base: BaseModel, data: TaskData, method: str = "ifp", **options: object) -> PruningJob:
    cls = get_method(method).options
    usual = {"ratio": 0.7, "steps": 20, "prune_every": 2, "prune_share": 0.3, "batch_size": 24}
    settings = cls(**{name: value for name, value in usual.items() if name in option_fields(cls)} | options)
    trunk = make_trunk(base, data) if method == "grow" else None
    return PruningJob(base, data.train, data.task.labels, settings, CPU, seed=3, trunk=trunk)


def make_trunk(base: BaseModel, data: TaskData) -> Trunk:
    teaching = Teaching(base, data.train, TrunkOptions(steps=3, batch_size=16, ratios=(0.5, 0.7)), CPU)
    for _ in range(3):
        teaching.step()
    return teaching.trunk()


@pytest.mark.parametrize("name", [name for name in method_names() if issubclass(get_method(name).options, SgdOptions)])
def test_every_method_reaches_the_ratio_and_follows_its_seed(base: BaseModel, task_data: TaskData, name: str) -> None:
    models = [get_method(name).prune(job(base, task_data, name))[0] for _ in range(2)]
    counts = {layer: len(units) for layer, units in models[0].mask().items()}
    assert counts == {layer: keep_count(size, 0.7) for layer, size in base.sizes.items()}
    assert models[0].mask() == models[1].mask()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert models[0].config.method == name
    for layer in models[0].layers:
        assert models[0].network.get_parameter(layer.filters[0].tensor).shape[0] == counts[layer.name]


@pytest.mark.parametrize("name", ["ifp", "ahnp"])
def test_who_keeps_losses_does_not_disturb(
    base: BaseModel, task_data: TaskData, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A debugger does, or a callback: the graphs of wider networks stay alive then."""
    expected = get_method(name).prune(job(base, task_data, name))[0]
    losses: list[torch.Tensor] = []
    usual = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss, **how: losses.append(loss) or usual(loss, **how))
    model = get_method(name).prune(job(base, task_data, name))[0]
    assert len(losses) >= 20
    assert model.mask() == expected.mask()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("name", method_names())
def test_an_entry_has_the_statistics_of_its_last_weights(base: BaseModel, task_data: TaskData, name: str) -> None:
    model = get_method(name).prune(job(base, task_data, name, steps=10))[0]
    buffers = {key: value.clone() for key, value in model.named_buffers() if "running" in key}
    recalibrate(model, task_data.train, CPU)
    assert buffers and all(torch.allclose(value, model.get_buffer(key), atol=1e-4) for key, value in buffers.items())


def test_an_entry_grows_from_the_trunk_and_the_task_may_choose_its_units(base: BaseModel, task_data: TaskData) -> None:
    first = job(base, task_data, "grow", steps=1, lr=0.0)
    assert first.trunk is not None
    model, training = get_method("grow").prune(first)
    assert model.mask() == first.trunk.mask(0.7)
    expected = first.trunk.slice(model.config)
    for (name, parameter), start in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, start) or "fc" in name  # at no rate only the classifier is computed
    assert training.flops > len(task_data.train) * count_flops(base.whole(["a", "b"]), task_data.train.images[:1])[0]
    grown, training = get_method("grow").prune(job(base, task_data, "grow", steps=30))
    assert training.losses[-1] < training.losses[0]
    assert accuracy(grown, task_data.evaluation, CPU) > 2 / len(task_data.task.labels)
    own = get_method("grow").prune(job(base, task_data, "grow", steps=30, first_ratio=0.5))[0]
    assert own.mask() != grown.mask()
    assert {n: len(u) for n, u in own.mask().items()} == {n: len(u) for n, u in grown.mask().items()}
    assert (own.mask() & first.trunk.mask(0.5)) == own.mask()


def test_no_entry_grows_without_a_trunk_or_from_more_than_it_holds(
    base: BaseModel, task_data: TaskData, own_bank: Bank
) -> None:
    one = job(base, task_data, "grow")
    with pytest.raises(BankError, match="bank trunk"):
        next(build_bank(own_bank, task_data, [(0, 1)], method="grow"))
    with pytest.raises(OptionError, match=r"0\.5 and above"):
        get_method("grow").prune(replace(one, options=replace(one.options, first_ratio=0.3)))


def test_a_task_chooses_no_units_where_features_are_units(task_data: TaskData, tmp_path: Path) -> None:
    mobile = BaseModel.load(make_mobile_base(tmp_path))
    with pytest.raises(OptionError, match="last layer is pruned"):
        get_method("grow").prune(job(mobile, task_data, "grow", first_ratio=0.5))
    model, training = get_method("grow").prune(job(mobile, task_data, "grow", steps=2))
    assert model.classifier.in_features == len(model.mask()["conv_head"]) < mobile.sizes["conv_head"]
    assert np.isfinite(training.losses).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ifp", "taylor"])
def test_iterative_methods_get_cheaper_as_they_go(base: BaseModel, task_data: TaskData, name: str) -> None:
    record = get_method(name).prune(job(base, task_data, name))[1]
    whole = fine_tune(
        base.slice(base.config(Mask.full(base.sizes), task_data.task.labels)), task_data.train,
        get_training(base, task_data), device=CPU,
    )  # fmt: skip
    assert record.images == whole.images
    assert 0.2 * whole.flops < record.flops < 0.9 * whole.flops


def get_training(base: BaseModel, data: TaskData):
    from hf_metaprune.config import TrainingOptions

    return TrainingOptions(steps=20, batch_size=24, eval_steps=())


def test_pruning_happens_every_h_steps_by_p_percent(base: BaseModel, task_data: TaskData) -> None:
    counts: list[int] = []
    options = IterativeOptions(ratio=0.5, steps=12, prune_every=4, prune_share=0.25)
    model = base.slice(base.config(Mask.full(base.sizes), task_data.task.labels))
    pruning = PruneWhileTraining(model, options, ActivationRecorder)
    layer = "layer4.1.conv1"

    class Watch:
        def on_step(self, _state: TrainingState) -> None:
            counts.append(len(pruning.mask[layer]))

        def on_eval(self, _state: TrainingState) -> None: ...

    fine_tune(
        model,
        task_data.train,
        get_training(base, task_data).__class__(steps=12, batch_size=24, eval_steps=()),
        device=CPU,
        callbacks=[pruning, Watch()],
    )
    size = base.sizes[layer]
    assert counts == [size] * 3 + [24] * 4 + [18] * 4 + [16]  # 32: -25% is 24, then 18, then the target 16
    assert pruning.is_done


def test_a_run_too_short_for_its_schedule_still_reaches_the_ratio(base: BaseModel, task_data: TaskData) -> None:
    model, _ = get_method("ifp").prune(job(base, task_data, steps=3, prune_every=100))
    assert {n: len(k) for n, k in model.mask().items()} == {n: keep_count(s, 0.7) for n, s in base.sizes.items()}


def test_the_lowest_scores_go_first() -> None:
    mask = Mask({"l": [2, 4, 6, 8]}, {"l": 10})
    scores = {"l": torch.tensor([0.3, 0.1, 0.2, 0.2])}
    assert next_mask(mask, scores, 0.5, 0.9)["l"].tolist() == [2, 6]  # of equal scores the higher index goes
    assert next_mask(mask, scores, 0.01, 0.9)["l"].tolist() == [2, 6, 8]  # at least one
    assert next_mask(mask, scores, 1.0, 0.9)["l"].tolist() == [2]  # never below the target


@torch.no_grad()
def test_recorded_activations_are_those_of_the_units(base: BaseModel, task_data: TaskData) -> None:
    model = base.slice(base.config(Mask.random(base.sizes, 0.5, 0), task_data.task.labels)).eval()
    outputs: dict[str, list[torch.Tensor]] = {}
    handles = [
        model.network.get_submodule(layer.probe.module).register_forward_hook(
            lambda _m, _a, out, name=layer.name: outputs.setdefault(name, []).append(out.clone())
        )
        for layer in model.layers
    ]
    with ActivationRecorder(model) as recorder:
        for x, _ in task_data.train.batches(25):
            model(x)
    for handle in handles:
        handle.remove()
    scores = recorder.scores()
    mask = model.mask()
    for layer in model.layers:
        out = torch.cat(outputs[layer.name])
        if layer.writer and layer.adder is None:
            assert out.shape[1] == layer.size  # a shortcut's output is put back into the stream's width
            out = out[:, mask[layer.name].tolist()]
        assert torch.allclose(scores[layer.name], out.abs().mean((0, 2, 3)), atol=1e-5)


def test_taylor_scores_are_the_derivative_by_a_gate(base: BaseModel, task_data: TaskData) -> None:
    model = base.slice(base.config(Mask.full(base.sizes), task_data.task.labels)).eval()
    x = next(task_data.train.batches(16))[0]
    y = task_data.train.targets[:16]

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(x).logits, y)

    with TaylorRecorder(model) as recorder:
        loss().backward()
    scores = recorder.scores()
    for name in ("layer1.0.conv1", "layer2.0.conv2", "layer3.0.downsample.0"):
        layer = next(item for item in model.layers if item.name == name)
        unit, eps, losses = 2, 1e-2, []
        gates = [model.network.get_parameter(g.tensor) for g in layer.gates]
        copies = [g.detach().clone() for g in gates]
        for scale in (1 + eps, 1 - eps):  # central difference of a gate on the whole unit
            with torch.no_grad():
                for g, s in zip(gates, copies, strict=True):
                    g[unit] = s[unit] * scale
                losses.append(loss().item())
        with torch.no_grad():
            for g, s in zip(gates, copies, strict=True):
                g.copy_(s)
        slope = (losses[0] - losses[1]) / (2 * eps)
        assert scores[name][unit].item() == pytest.approx(slope**2, rel=0.05, abs=1e-7)


def test_taylor_averages_over_passes(base: BaseModel, task_data: TaskData) -> None:
    model = base.slice(base.config(Mask.full(base.sizes), task_data.task.labels)).eval()
    parts = []
    for i in (0, 1):
        with TaylorRecorder(model) as one:
            model.zero_grad()
            model(task_data.train.preprocessing.normalize(task_data.train.images[i::9])).logits[:, i].sum().backward()
        parts.append(one.scores())
    with TaylorRecorder(model) as both:
        for i in (0, 1):
            model.zero_grad()
            model(task_data.train.preprocessing.normalize(task_data.train.images[i::9])).logits[:, i].sum().backward()
    for name, scores in both.scores().items():
        assert torch.allclose(scores, (parts[0][name] + parts[1][name]) / 2, rtol=1e-4)


def test_magnitude_is_the_l1_norm_of_filters(base: BaseModel) -> None:
    scores = magnitude_scores(base.network, base.layers)
    weight = base.network.get_parameter("layer2.0.conv1.weight").detach().numpy()
    assert np.allclose(scores["layer2.0.conv1"], np.abs(weight).sum((1, 2, 3)))


def test_recorders_leave_no_hook_behind(base: BaseModel, task_data: TaskData) -> None:
    model = base.slice(base.config(Mask.full(base.sizes), task_data.task.labels))
    for recorder in (ActivationRecorder(model), TaylorRecorder(model)):
        with recorder:
            pass
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(getattr(p, "_post_accumulate_grad_hooks", None) for p in model.parameters())


def test_shrinking_while_training_keeps_the_function(base: BaseModel, task_data: TaskData) -> None:
    model = base.slice(base.config(Mask.full(base.sizes), task_data.task.labels)).eval()
    mask = Mask.random(base.sizes, 0.5, 1)
    direct = base.slice(base.config(mask, task_data.task.labels)).eval()
    shrink(model.network, model.layers, Mask.full(base.sizes), mask)
    x = next(task_data.train.batches(4))[0]
    with torch.no_grad():
        assert torch.allclose(model.features(x), direct.features(x), atol=1e-6)


class Plugin(Method):
    name: ClassVar[str] = "plugin"
    reference: ClassVar[str] = "a third-party package"

    def prune(self, job: PruningJob):
        return get_method("random").prune(job)


def test_third_party_methods_come_through_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_metaprune import registry
    from hf_metaprune.methods.method import METHODS

    class Point:
        name = "plugin"

        def load(self) -> type[Method]:
            return Plugin

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()] if group == "hf_metaprune.methods" else [])
    monkeypatch.setattr(METHODS, "_parts", dict(METHODS._parts))
    assert "plugin" in method_names()
    assert isinstance(get_method("plugin"), Plugin)


def test_a_broken_plugin_is_named_and_stops_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from hf_metaprune import registry

    broken = EntryPoint("broken", "no_such_package:Method", "hf_metaprune.methods")
    misnamed = EntryPoint("misnamed", f"{__name__}:Plugin", "hf_metaprune.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken, misnamed])
    assert get_method("ifp").name == "ifp"
    assert {"broken", "misnamed"} <= set(method_names())
    with pytest.raises(OptionError, match="'broken'.*no_such_package.*cannot be used"):
        get_method("broken")
    with pytest.raises(OptionError, match="calls itself 'plugin'"):
        get_method("misnamed")


def test_a_plugin_may_write_the_types_of_its_options_either_way() -> None:
    """Evaluated or, after ``from __future__ import annotations``, as text."""
    for power, maybe in ((float, int | None), ("float", "int | None")):
        fields = [("power", power, option(1.0, "Power.", low=0.1, high=4.0)), ("maybe", maybe, option(None, "Count."))]
        options = dataclasses.make_dataclass("Options", fields, bases=(SgdOptions,), frozen=True)
        assert (options(power=2).power, options(maybe=3).maybe) == (2, 3)
        for wrong, message in (({"power": 9.0}, "between 0.1 and 4.0"), ({"maybe": 1.5}, "must be a whole number")):
            with pytest.raises(OptionError, match=message):
                options(**wrong)
    unknown = dataclasses.make_dataclass(
        "Unknown", [("table", dict, option(None, "Table."))], bases=(SgdOptions,), frozen=True
    )
    with pytest.raises(TypeError, match="table has the type dict; options have one of: int, float"):
        unknown()


def test_the_last_method_on_a_command_line_counts() -> None:
    assert named_method(["--method", "ifp", "x", "--method=ahnp"]) == "ahnp"
    assert named_method(["--method=ahnp", "--method", "amp"]) == "amp"
    assert named_method(["x"]) == DEFAULT_METHOD


def test_unknown_and_repeated_methods_are_refused() -> None:
    with pytest.raises(OptionError, match=f"'nosuch'; there are: {', '.join(method_names())}"):
        get_method("nosuch")
    with pytest.raises(OptionError, match="registered already"):
        register_method(get_method("ifp"))


def test_a_schedule_that_the_steps_cannot_hold_is_said(
    base: BaseModel, task_data: TaskData, caplog: pytest.LogCaptureFixture
) -> None:
    sizes, few = base.sizes, IterativeOptions(ratio=0.7, steps=4, prune_every=2, prune_share=0.3, batch_size=24)
    least = least_steps(sizes, few)
    goal = {name: keep_count(size, 0.7) for name, size in sizes.items()}
    matches = [counts == goal for counts in counts_by_step(sizes, replace(few, steps=least + 1))]
    assert matches == [False] * least + [True]
    get_method("ifp").prune(job(base, task_data, steps=4))
    (message,) = (record.getMessage() for record in caplog.records)
    assert f"are pruned only after {least} steps, so step 4 cuts the rest" in message
    assert message.endswith(f"take {2 * least} steps")
    caplog.clear()
    get_method("ifp").prune(job(base, task_data, steps=least + 1))
    assert not caplog.records
