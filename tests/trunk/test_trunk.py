"""A trunk: its sizes are parts of each other, what is taught is what is kept, and files of strangers are checked."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_metaprune.data.images import ImageSet
from hf_metaprune.errors import BaseMismatchError, FormatError, OptionError
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.training.feature_teacher import feature_distance
from hf_metaprune.training.forward import extract_features
from hf_metaprune.trunk import Teaching, Trunk, TrunkOptions
from hf_metaprune.trunk.checkpoint import load_checkpoint, run_digest, save_checkpoint
from hf_metaprune.trunk.decoder import fit_decoder
from hf_metaprune.trunk.files import load_trunk, save_trunk
from hf_metaprune.trunk.teaching import stream_distance
from tests.tiny import make_base, make_mobile_base, make_vit_base, striped_images, tiny_preprocessing

OPTIONS = TrunkOptions(ratios=(0.5, 0.7, 0.9), steps=6, batch_size=8, lr=0.01, precision="fp32")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return ImageSet(*striped_images(6, 4, 0), tiny_preprocessing())


@pytest.fixture(scope="module", params=[make_base, make_vit_base, make_mobile_base])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel.load(request.param(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def taught(base: BaseModel, images: ImageSet) -> Teaching:
    teaching = Teaching(base, images, OPTIONS, CPU)
    for _ in range(OPTIONS.steps):
        teaching.step()
    return teaching


@pytest.fixture(scope="module")
def trunk(taught: Teaching) -> Trunk:
    return taught.trunk()


def test_each_size_is_a_part_of_the_larger_ones(trunk: Trunk) -> None:
    masks = [trunk.mask(ratio) for ratio in (0.5, 0.6, 0.7, 0.9)]
    assert all(small <= large and small != large for large, small in itertools.pairwise(masks))
    with pytest.raises(OptionError, match="0.5 and above"):
        trunk.mask(0.4)


@pytest.mark.parametrize("ratio", OPTIONS.ratios)
def test_a_slice_computes_what_was_taught(taught: Teaching, trunk: Trunk, images: ImageSet, ratio: float) -> None:
    """The features of a slice of the trunk are those of that size while it is taught."""
    base, pixels = trunk.base, images.preprocessing.normalize(images.images[:8])
    model = trunk.slice(base.config(trunk.mask(ratio), ["a", "b", "c"])).eval()
    size = taught.sizes[OPTIONS.ratios.index(ratio)]
    size.model.eval()
    with torch.no_grad():
        expected = size.features(taught.weights, pixels)
        features = model.features(pixels)
    scale = expected.abs().max()
    assert (features - expected).abs().max() <= 3e-5 * scale
    untaught = base.slice(base.config(trunk.mask(ratio), ["a", "b", "c"])).eval()
    with torch.no_grad():
        assert (untaught.features(pixels) - expected).abs().max() > 1e-3 * scale


def test_units_that_the_trunk_lacks_are_those_of_the_base(trunk: Trunk) -> None:
    whole, state = trunk.whole_state(0.5), trunk.base.state
    assert {name: tensor.shape for name, tensor in whole.items()} == {name: t.shape for name, t in state.items()}
    layer = trunk.base.layers[0]
    axis = layer.filters[0]
    held = axis.indices(trunk.largest_mask[layer.name], layer.size)
    rest = axis.indices((~trunk.largest_mask)[layer.name], layer.size)
    assert torch.equal(whole[axis.tensor].index_select(axis.dim, torch.as_tensor(rest)),
                       state[axis.tensor].index_select(axis.dim, torch.as_tensor(rest)))  # fmt: skip
    assert torch.equal(whole[axis.tensor].index_select(axis.dim, torch.as_tensor(held)).flatten()[:5],
                       trunk.weights[axis.tensor].flatten()[:5]) or axis.dim  # fmt: skip


def test_teaching_brings_the_sizes_nearer_to_the_base(base: BaseModel, images: ImageSet) -> None:
    options = replace(OPTIONS, steps=100, lr=0.02)
    teaching = Teaching(base, images, options, CPU)
    losses = [teaching.step() for _ in range(options.steps)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.parametrize("make", [make_base, make_vit_base])
def test_hints_bring_the_stream_nearer(make: Callable[[Path], Path], images: ImageSet, tmp_path: Path) -> None:
    """The stream after each stage, which the features alone say less about."""
    base, distances = BaseModel.load(make(tmp_path)), []
    for weight in (0.0, 5.0):
        teaching = Teaching(base, images, replace(OPTIONS, hint_weight=weight, ratios=(0.5,), lr=0.02, steps=30), CPU)
        for _ in range(30):
            teaching.step()
        trunk = teaching.trunk()
        models = [trunk.slice(base.config(trunk.mask(0.5), ["a", "b"])), base.whole(["a", "b"])]
        streams: list[list[torch.Tensor]] = [[], []]
        for model, stream in zip(models, streams, strict=True):
            for path in model.architecture.stages(model.network):
                hook = partial(lambda kept, _m, _a, output: kept.append(output), stream)
                model.network.get_submodule(path).register_forward_hook(hook)
            extract_features(model, images, CPU)
        distances.append(sum(float(stream_distance(*pair)) for pair in zip(*streams, strict=True)))
    assert distances[1] < distances[0]


def test_a_stream_is_measured_in_units_of_its_variance() -> None:
    target = torch.randn(4, 3, 5, 5)
    assert stream_distance(target, target) == 0
    assert stream_distance(target.mean().expand_as(target), target) == pytest.approx(1)
    assert stream_distance(10 * target + 1, 10 * target) == pytest.approx(float(0.01 / target.var(correction=0)))


def test_a_run_that_was_stopped_goes_on_to_the_same_trunk(
    taught: Teaching, trunk: Trunk, images: ImageSet, tmp_path: Path
) -> None:
    first = Teaching(taught.base, images, OPTIONS, CPU)
    for _ in range(3):
        first.step()
    path, digest = tmp_path / "checkpoint.safetensors", run_digest(first)
    save_checkpoint(first, path, digest)
    second = Teaching(taught.base, images, OPTIONS, CPU)
    assert load_checkpoint(second, path, run_digest(second))
    assert second.step_number == 3
    for _ in range(3):
        second.step()
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in taught.weights.items())
    other = Teaching(taught.base, images, replace(OPTIONS, lr=0.02), CPU)
    with pytest.raises(OptionError, match="other images, options or base"):
        load_checkpoint(other, path, run_digest(other))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="fetch it again"):
        load_checkpoint(second, path, digest)
    assert not load_checkpoint(second, tmp_path / "nothing", digest)


def test_a_trunk_survives_its_files(trunk: Trunk, tmp_path: Path) -> None:
    save_trunk(trunk, tmp_path, "float32")
    loaded = load_trunk(tmp_path, trunk.base)
    assert loaded.ratios == trunk.ratios and loaded.facts == trunk.facts
    assert all(np.array_equal(units, loaded.order[layer]) for layer, units in trunk.order.items())
    for ratio in (0.5, 0.65, 0.9):
        one, other = trunk.whole_state(ratio), loaded.whole_state(ratio)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_decoders_survive_their_file(trunk: Trunk, tmp_path: Path) -> None:
    save_trunk(trunk, tmp_path, "float32")
    loaded = load_trunk(tmp_path, trunk.base)
    assert list(loaded.decoders) == list(trunk.decoders) == list(OPTIONS.ratios)
    for ratio, decoder in trunk.decoders.items():
        assert torch.equal(loaded.decoders[ratio].weight, decoder.weight)
        assert torch.equal(loaded.decoders[ratio].bias, decoder.bias)


def test_decoders_tell_the_features_of_the_base(trunk: Trunk, images: ImageSet) -> None:
    whole = extract_features(trunk.base.whole(["a", "b"]), images, CPU)
    distances = []
    for ratio in OPTIONS.ratios:
        features = extract_features(trunk.slice(trunk.base.config(trunk.mask(ratio), ["a", "b"])), images, CPU)
        distances.append(feature_distance(trunk.decoders[ratio](features), whole))
    assert all(distance < 0.9 for distance in distances)  # that of the mean is 1
    assert distances[0] < distances[-1]


def test_a_size_between_two_has_the_decoder_of_features_that_it_has(trunk: Trunk) -> None:
    """Where features are units, those of the next smaller size; otherwise that of the nearest ratio."""
    for ratio, nearest, smaller in ((0.5, 0.5, 0.5), (0.55, 0.5, 0.7), (0.7, 0.7, 0.7), (0.95, 0.9, 0.9)):
        mask = trunk.mask(ratio)
        model = trunk.slice(trunk.base.config(mask, ["a", "b"]))
        decoder, width = trunk.decoder(mask), trunk.base.family.classifier(trunk.base.network).in_features
        assert decoder.weight.shape == (width, model.classifier.in_features)
        known = trunk.decoders[nearest if model.classifier.in_features == width else smaller]
        assert decoder.bias.equal(known.bias)
        if "conv_head" not in mask:
            assert decoder.weight.equal(known.weight)
            continue
        known_units = trunk.mask(smaller)["conv_head"]
        assert decoder.weight[:, np.isin(mask["conv_head"], known_units)].equal(
            known.weight[:, np.isin(known_units, mask["conv_head"])]
        )
        assert not decoder.weight[:, ~np.isin(mask["conv_head"], known_units)].any()


def test_a_decoder_is_the_least_squares_map() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator) * torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0])  # one is never active
    weight, bias = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    decoder = fit_decoder(x + 7, x @ weight.T + bias)
    assert torch.allclose(decoder(x + 7), x @ weight.T + bias, atol=0.05)
    assert (decoder.weight[:, 4] == 0).all()
    assert torch.allclose(decoder.layer()(x), decoder(x), atol=1e-5)


Edit = Callable[[dict, dict], None]


def repeat_a_unit(config: dict, tensors: dict) -> None:
    name = next(name for name in tensors if name.startswith("order."))
    tensors[name][0] = tensors[name][1]


def drop_a_tensor(config: dict, tensors: dict) -> None:
    del tensors[next(name for name in tensors if name.startswith("network."))]


def add_a_tensor(config: dict, tensors: dict) -> None:
    tensors["network.more"] = torch.zeros(1)


def lay_nan(config: dict, tensors: dict) -> None:
    tensors[next(name for name in tensors if name.startswith("network."))].view(-1)[0] = float("nan")


def change_a_shape(config: dict, tensors: dict) -> None:
    name = next(name for name in tensors if name.startswith("network."))
    tensors[name] = tensors[name][:1].contiguous()


def another_base(config: dict, tensors: dict) -> None:
    config["base_model"]["sha256"] = "0" * 64


def a_newer_version(config: dict, tensors: dict) -> None:
    config["format_version"] = 3


def falling_ratios(config: dict, tensors: dict) -> None:
    config["ratios"].reverse()


def ratios_of(*ratios: float) -> Edit:
    def edit(config: dict, tensors: dict) -> None:
        config["ratios"] = list(ratios)

    return edit


def an_order_of(dtype: torch.dtype) -> Edit:
    def edit(config: dict, tensors: dict) -> None:
        name = next(name for name in tensors if name.startswith("order."))
        tensors[name] = tensors[name].to(dtype)

    return edit


def test_a_trunk_has_no_more_tensors_than_any_file(
    trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is told by its config alone, before the network is sliced for each ratio."""
    save_trunk(trunk, tmp_path)
    n_tensors = len(load_file(tmp_path / "model.safetensors"))
    monkeypatch.setattr("hf_metaprune.trunk.files.MAX_TENSORS", n_tensors)
    load_trunk(tmp_path, trunk.base)
    monkeypatch.setattr("hf_metaprune.trunk.files.MAX_TENSORS", n_tensors - 1)
    with pytest.raises(FormatError, match=f"{tmp_path}: a trunk of {n_tensors} tensors"):
        load_trunk(tmp_path, trunk.base)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (repeat_a_unit, "no permutation"),
        (an_order_of(torch.float32), "has dtype F32"),
        (an_order_of(torch.float64), "has dtype F64"),
        (an_order_of(torch.bool), "has dtype BOOL"),
        (drop_a_tensor, "missing or unexpected"),
        (add_a_tensor, "missing or unexpected"),
        (lay_nan, "not finite"),
        (change_a_shape, "has shape"),
        (another_base, "of base 000000000000"),
        (a_newer_version, "upgrade"),
        (falling_ratios, "rising numbers"),
        (ratios_of(0.5, math.nan, 0.8), "rising numbers"),
        (ratios_of(0.5, 0.5), "rising numbers"),
        (ratios_of(-0.1, 0.5), "rising numbers"),
        (ratios_of(0.5, 1.0), "rising numbers"),
        (ratios_of(), "rising numbers"),
    ],
)
def test_a_damaged_trunk_is_refused(trunk: Trunk, tmp_path: Path, edit: Edit, message: str) -> None:
    save_trunk(trunk, tmp_path)
    config, tensors = json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / "model.safetensors")
    edit(config, tensors)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / "model.safetensors", metadata)
    with pytest.raises((FormatError, BaseMismatchError), match=message):
        load_trunk(tmp_path, trunk.base)
