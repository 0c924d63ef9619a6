"""The property the project rests on: a sliced network computes exactly what the masked full one does."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hf_metaprune.errors import ArchitectureError, OptionError
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.architectures.layers import Axis, PrunableLayer, layer_sizes, tensor_axes
from hf_metaprune.models.architectures.lookup import find_architecture, identify_architecture, supported
from hf_metaprune.models.architectures.registry import ARCHITECTURES, register
from hf_metaprune.models.slicing import EmptyBranch, count_parameters, shrink, slice_network, slice_state
from tests.models.networks import (
    FEW,
    FEW_BY_DEFAULT,
    NETWORKS,
    logits,
    masked,
    network,
    random_masks,
    randomize,
    unit_counts,
)

TOLERANCE = 1e-5


@pytest.mark.parametrize("name", FEW_BY_DEFAULT)
@settings(max_examples=8)
@given(data=st.data())
def test_sliced_equals_masked(name: str, data: st.DataObject) -> None:
    net = network(name)
    mask = data.draw(random_masks(net))
    x = torch.randn(data.draw(st.integers(1, 3)), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sliced = slice_network(net, mask)
    with torch.no_grad():
        expected, output = masked(net, mask, x), logits(sliced, x)
    assert (expected - output).abs().max() <= TOLERANCE * max(1.0, expected.abs().max().item())
    if mask.n_kept < mask.n_units:
        assert count_parameters(sliced) < count_parameters(net)


def check_that_other_masks_differ(net: nn.Module, layers: list[PrunableLayer], changed: list[PrunableLayer]) -> None:
    """Check for each changed layer that a network sliced by another mask of it gives another output."""
    sizes, x = layer_sizes(layers), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    units = {layer: np.arange(max(1, size // 2)) for layer, size in sizes.items()}
    with torch.no_grad():
        expected = masked(net, Mask(units, sizes), x, layers)
        for layer in (layer.name for layer in changed):
            other = Mask(units | {layer: units[layer] + sizes[layer] - len(units[layer])}, sizes)
            outputs = logits(slice_network(net, other), x)
            assert (expected - outputs).abs().max() > 100 * TOLERANCE * max(1.0, expected.abs().max().item()), layer


@pytest.mark.parametrize("name", FEW_BY_DEFAULT)
def test_another_mask_gives_another_output_in_every_layer(name: str) -> None:
    """What says that the test above can fail: where a branch hardly counts, it holds for any mask."""
    net = network(name)
    layers = identify_architecture(net).layers(net)
    check_that_other_masks_differ(net, layers, layers)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_randomized(name: str) -> None:
    before = NETWORKS[name]()
    after = randomize(copy.deepcopy(before))
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    assert [path for (path, one), other in pairs if (one != other).double().mean() < 0.9] == []


@pytest.mark.parametrize("name", sorted(FEW))
@settings(max_examples=3)
@given(data=st.data())
def test_gradients_of_kept_parameters_are_equal(name: str, data: st.DataObject) -> None:
    net = network(name)
    mask = data.draw(random_masks(net))
    sliced, layers = slice_network(net, mask), identify_architecture(net).layers(net)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net.zero_grad()
    masked(net, mask, x).square().sum().backward()
    logits(sliced, x).square().sum().backward()
    full = {n: p.grad for n, p in net.named_parameters()}
    expected = slice_state(full, layers, mask)
    for n, parameter in sliced.named_parameters():
        scale = max(1.0, full[n].abs().max().item())
        assert (expected[n] - parameter.grad).abs().max() <= 1e-4 * scale, n
    net.zero_grad()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.1)])
def test_other_dtypes(dtype: torch.dtype, tolerance: float) -> None:
    import copy

    net = copy.deepcopy(network("resnet18")).to(dtype)
    mask = Mask.random(unit_counts(net), 0.6, 3)
    x = torch.randn(2, 3, 32, 32, dtype=dtype)
    with torch.no_grad():
        difference = (masked(net, mask, x) - logits(slice_network(net, mask), x)).abs().max()
    assert difference <= tolerance


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mask_of_everything_gives_the_base_exactly(name: str) -> None:
    net = network(name)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(logits(slice_network(net, Mask.full(unit_counts(net))), x), logits(net, x))


@pytest.mark.slow
@settings(max_examples=10)
@given(data=st.data())
def test_slicing_a_sliced_network_again(data: st.DataObject) -> None:
    net = network("resnet50")
    layers, sizes = identify_architecture(net).layers(net), unit_counts(net)
    outer = data.draw(random_masks(net))
    rng = np.random.default_rng(0)
    inner = Mask({n: rng.choice(k, max(1, len(k) // 2), replace=False) for n, k in outer.items()}, sizes)
    twice = slice_network(net, outer)
    shrink(twice, layers, outer, inner)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(logits(twice, x), logits(slice_network(net, inner), x), atol=1e-6)


STEMS = ["resnet18", "resnet18-deep-stem", "resnet18-tiered-stem", "resnet18-cifar-stem", "resnet18-pool-stem"]
WITH_STEM = [*STEMS, "resnet18-silu", "resnet50", "transformers-bottleneck"]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_STEM)
def test_another_stem_mask_gives_another_output(name: str) -> None:
    net = network(name)
    family = identify_architecture(net)
    check_that_other_masks_differ(net, family.all_layers(net, stem=True), family.stem_layers(net))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_STEM)
@settings(max_examples=5)
@given(data=st.data())
def test_a_stem_is_sliced_like_a_branch(name: str, data: st.DataObject) -> None:
    net = network(name)
    layers = identify_architecture(net).all_layers(net, stem=True)
    mask = data.draw(random_masks(net, layers))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sliced = slice_network(net, mask)
    with torch.no_grad():
        expected, output = masked(net, mask, x, layers), logits(sliced, x)
    assert (expected - output).abs().max() <= TOLERANCE * max(1.0, expected.abs().max().item())
    assert sliced.state_dict().keys() == net.state_dict().keys()


def test_stems_that_cannot_be_pruned_are_refused() -> None:
    net = network("vit")
    with pytest.raises(ArchitectureError, match="the stem of timm/vit cannot be pruned"):
        identify_architecture(net).all_layers(net, stem=True)


@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "transformers-basic", "transformers-bottleneck"])
def test_sliced_blocks_keep_the_memory_format_and_what_they_are_given(name: str) -> None:
    """A convolution that must first copy its input costs more than what slicing saves."""
    net = network(name)
    sliced = slice_network(net, Mask.random(unit_counts(net), 0.5, 0)).to(memory_format=torch.channels_last)
    inputs: list[tuple[torch.Tensor, torch.Tensor]] = []
    in_format: list[bool] = []
    last = torch.channels_last
    for module in sliced.modules():
        if type(module).__name__.startswith("Adding"):
            module.register_forward_pre_hook(lambda _, args: inputs.append((args[0], args[0].clone())))
        elif isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, a: in_format.append(a[0].is_contiguous(memory_format=last)))
    with torch.no_grad():
        logits(sliced, torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last))
    assert inputs and all(torch.equal(now, then) for now, then in inputs)
    assert in_format and all(in_format)


@pytest.mark.parametrize("name", ["resnet18", "transformers-bottleneck"])
def test_sliced_networks_can_be_copied_and_pickled(name: str) -> None:
    net = network(name)
    sliced = slice_network(net, Mask.random(unit_counts(net), 0.5, 0))
    x = torch.randn(2, 3, 32, 32)
    for other in (copy.deepcopy(sliced), pickle.loads(pickle.dumps(sliced))):
        assert torch.equal(logits(other, x), logits(sliced, x))


def test_the_optimizer_goes_on_with_its_momentum() -> None:
    net = slice_network(network("resnet18"), Mask.full(unit_counts(network("resnet18"))))
    layers, sizes = (
        identify_architecture(network("resnet18")).layers(network("resnet18")),
        unit_counts(network("resnet18")),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    logits(net, torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    before = {n: optimizer.state[p]["momentum_buffer"].clone() for n, p in net.named_parameters()}
    objects = {n: id(p) for n, p in net.named_parameters()}
    mask = Mask.random(sizes, 0.5, 0)
    shrink(net, layers, Mask.full(sizes), mask, optimizer)
    expected = slice_state(before, layers, mask)
    for n, p in net.named_parameters():
        assert id(p) == objects[n]
        assert torch.equal(optimizer.state[p]["momentum_buffer"], expected[n])
    optimizer.zero_grad()
    logits(net, torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()


def test_masks_that_do_not_fit_are_refused() -> None:
    net = network("resnet18")
    with pytest.raises(OptionError, match="does not fit"):
        slice_network(net, Mask.full({"conv9": 3}))
    sizes = unit_counts(net)
    first = next(iter(sizes))
    empty = Mask({n: ([] if n == first else range(s)) for n, s in sizes.items()}, sizes)
    with pytest.raises(OptionError, match=f"empties {first}"):
        slice_network(net, empty)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: timm.create_model("seresnet18", num_classes=2), "SEModule at layer1.0.se"),
        (lambda: timm.create_model("ecaresnet26t", num_classes=2), "EcaModule at layer1.0.se"),
        (lambda: timm.create_model("skresnet18", num_classes=2), "SelectiveKernelBasic at layer1.0"),
        (lambda: timm.create_model("res2net50_26w_4s", num_classes=2), "Bottle2neck at layer1.0"),
        (lambda: timm.create_model("resnet50_gn", num_classes=2), "GroupNorm"),
        (lambda: timm.create_model("resnext50_32x4d", num_classes=2), "grouped convolution layer1.0.conv2"),
        (lambda: timm.create_model("resnetblur50", num_classes=2), "BlurPool2d|aa"),
        (lambda: timm.create_model("resnetaa50", num_classes=2), "AvgPool2d at layer2.0.aa"),
        (lambda: timm.create_model("resnet18", num_classes=2, drop_block_rate=0.1), "DropBlock"),
        (lambda: timm.create_model("resnet18", num_classes=2, act_layer="sigmoid"), "igmoid"),
        (lambda: timm.create_model("resnet18", num_classes=2, act_layer="prelu"), "PReLU"),
        (lambda: timm.create_model("resnet18", num_classes=2, norm_layer=nn.InstanceNorm2d), "InstanceNorm2d"),
        (
            lambda: timm.create_model("vit_tiny_patch16_224", depth=1, block_fn=ParallelScalingBlock),
            "ParallelScalingBl",
        ),
        (
            lambda: timm.create_model("vit_tiny_patch16_224", depth=1, scale_attn_norm=True),
            r"Norm at blocks.0.attn.norm",
        ),
        (lambda: timm.create_model("vit_tiny_patch16_224", depth=1, scale_mlp_norm=True), r"Norm at blocks.0.mlp.norm"),
        (lambda: timm.create_model("vit_tiny_patch16_224", depth=1, mlp_layer=SwiGLUPacked), "at blocks.0.mlp"),
        (lambda: timm.create_model("vit_tiny_patch16_224", depth=1, global_pool="map"), "AttentionPoolLatent"),
        (lambda: timm.create_model("mixnet_s"), "MixedConv2d at blocks.1.0"),
        (lambda: timm.create_model("mobilenetv4_conv_small"), "UniversalInvertedResidual at blocks"),
        (lambda: timm.create_model("efficientnet_b0", aa_layer="blur"), "anti-aliasing"),
        (lambda: timm.create_model("efficientnet_b0_gn"), "GroupNormAct at blocks"),
        (lambda: timm.create_model("efficientnet_b0", act_layer="sigmoid"), "igmoid at blocks"),
        (lambda: timm.create_model("convnextv2_atto"), "GlobalResponseNormMlp at stages.0.blocks.0.mlp"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(make: Callable[[], nn.Module], message: str) -> None:
    net = make()
    with pytest.raises(ArchitectureError, match=message):
        identify_architecture(net).layers(net)


def test_unknown_networks_are_refused_with_what_is_supported() -> None:
    assert all(f"{one.library}/{one.family} ({one.covers})" in supported() for one in ARCHITECTURES.all())
    with pytest.raises(ArchitectureError, match=f"supported: {re.escape(supported())}; .*add-an-architecture"):
        identify_architecture(nn.Linear(2, 2))
    with pytest.raises(ArchitectureError, match="'vgg99'.*timm/resnet"):
        find_architecture("timm", "vgg99")


@pytest.mark.parametrize(
    "args",
    [
        {"checkpoint_path": "evil.pth"},
        {"pretrained": True},
        {"channels": "64"},
        {"channels": [10**6] * 4},
        {"layers": [2.5]},
        {"layers": [3, 3, 3, 20_000]},
        {"stem_type": 3},
        {"stem_type": "steep"},
        {"global_pool": ""},
        {"drop_rate": 5},
        {"in_chans": 1},
        {"act_layer": "nosuch"},
    ],
)
def test_model_arguments_from_strangers_are_checked(args: dict) -> None:
    with pytest.raises(ArchitectureError, match=next(iter(args))):
        find_architecture("timm", "resnet18").build("resnet18", args, 5)


def test_networks_are_described_so_that_they_can_be_built_again() -> None:
    for name in ("resnet18-cifar-stem", "transformers-basic"):
        net = network(name)
        family = identify_architecture(net)
        again = family.build(*family.describe(net), 5)
        again.load_state_dict(net.state_dict())
        x = torch.randn(1, 3, 32, 32)
        assert torch.equal(logits(again.eval(), x), logits(net, x))


@pytest.mark.parametrize("name", ["vit", "vit-no-bias", "deit3", "transformers-vit"])
def test_a_branch_without_units_is_its_bias_and_costs_nothing(name: str) -> None:
    net = network(name)
    layers, sizes = identify_architecture(net).layers(net), unit_counts(net)
    nothing = slice_network(net, Mask({layer: [] for layer in sizes}, sizes))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = logits(nothing, x)
    assert torch.allclose(output, masked(net, Mask({layer: [] for layer in sizes}, sizes), x), atol=1e-5)
    assert counter.get_total_flops() > 0
    assert not any(re.search("attn|attention|mlp", name) for name in counter.get_flop_counts())
    names = {name for name in nothing.state_dict() if name.startswith((layers[0].name, layers[1].name))}
    assert names == {f"{layer.branch.module}.{layer.branch.bias}" for layer in layers[:2] if layer.branch.bias}
    assert slice_state(net.state_dict(), layers, Mask({layer: [] for layer in sizes}, sizes)).keys() == (
        nothing.state_dict().keys()
    )


def test_a_branch_may_lose_its_last_unit_while_it_is_trained() -> None:
    net = slice_network(network("vit"), Mask.full(unit_counts(network("vit"))))
    layers, sizes = identify_architecture(network("vit")).layers(network("vit")), unit_counts(network("vit"))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    some = Mask({name: [] if name == "blocks.0.attn" else range(2) for name in sizes}, sizes)
    for before, after in ((Mask.full(sizes), some), (some, Mask({name: [] for name in sizes}, sizes))):
        logits(net, torch.randn(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        shrink(net, layers, before, after, optimizer)
        expected = slice_network(network("vit"), after)
        assert {n: p.shape for n, p in net.named_parameters()} == {n: p.shape for n, p in expected.named_parameters()}
    optimizer.zero_grad()
    logits(net, torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert isinstance(net.get_submodule("blocks.1.mlp"), EmptyBranch)


def test_an_axis_of_heads_owns_blocks() -> None:
    qkv = Axis("qkv.weight", 0, outer=3, inner=2)  # 3 x (4 heads of width 2)
    assert qkv.indices(np.array([1, 3]), 4).tolist() == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23]


def test_every_tensor_of_a_branch_is_touched() -> None:
    net = network("resnet18")
    axes = tensor_axes(identify_architecture(net).layers(net))
    untouched = {n for n in net.state_dict() if n not in axes and not n.endswith("num_batches_tracked")}
    assert untouched == {n for n in untouched if n.startswith(("conv1", "bn1", "fc"))}
    assert len(axes["layer1.0.conv2.weight"]) == 2
    assert len(axes["layer1.0.conv1.weight"]) == 1


def test_a_family_is_registered_once() -> None:
    with pytest.raises(OptionError, match="registered already"):
        register(find_architecture("timm", "resnet18"))
