"""The property the project rests on: a sliced network computes exactly what the masked full one does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from hf_metaprune.errors import ArchitectureError, OptionError
from hf_metaprune.masks import Mask
from hf_metaprune.models.architecture import (
    Axis,
    architecture_of,
    find_architecture,
    layer_sizes,
    register,
    tensor_axes,
)
from hf_metaprune.models.slicing import count_parameters, shrink, slice_network, slice_state
from tests.conftest import randomise_norms

NARROW = {"channels": (8, 12, 16, 20), "num_classes": 5}


def timm_net(name: str, **args: object) -> nn.Module:
    return timm.create_model(name, **{**NARROW, **args})


def built(name: str, **args: object) -> nn.Module:
    return find_architecture("timm", name).build(name, {"channels": [8, 12, 16, 20], **args}, 5)


def hf_net(**args: object) -> nn.Module:
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 2, 1, 1], "num_labels": 5}
    return ResNetForImageClassification(ResNetConfig(**{**sizes, **args}))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: timm_net("resnet18"),
    "resnet18-deep-stem": lambda: timm_net("resnet18", stem_type="deep", stem_width=8),
    "resnet18-tiered-stem": lambda: timm_net("resnet18", stem_type="deep_tiered", stem_width=8, avg_down=True),
    "resnet18-cifar-stem": lambda: built("resnet18", cifar_stem=True),
    "resnet18-pool-stem": lambda: timm_net("resnet18", replace_stem_pool=True),
    "resnet18-silu": lambda: timm_net("resnet18", act_layer="silu"),
    "resnet34": lambda: timm_net("resnet34"),
    "resnet50": lambda: timm_net("resnet50"),
    "resnet50d": lambda: timm_net("resnet50d"),
    "resnet101": lambda: timm_net("resnet101"),
    "wide_resnet50_2": lambda: timm_net("wide_resnet50_2"),
    "resnet50-catavgmax": lambda: timm_net("resnet50", global_pool="catavgmax"),
    "resnet26t": lambda: timm_net("resnet26t"),
    "resnet18-drop-path": lambda: timm_net("resnet18", drop_path_rate=0.1),
    "resnet18-dilated": lambda: timm_net("resnet18", output_stride=8),
    "transformers-bottleneck": lambda: hf_net(),
    "transformers-basic": lambda: hf_net(layer_type="basic"),
    "transformers-stem-stride": lambda: hf_net(downsample_in_first_stage=True),
    "transformers-v1": lambda: hf_net(downsample_in_bottleneck=True),
}


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(1)
    return randomise_norms(NETWORKS[name]()).eval()


def zeroing(keep: torch.Tensor) -> Callable[..., torch.Tensor]:
    return lambda _module, _args, out: out * keep.to(out)


def masked(net: nn.Module, mask: Mask, x: torch.Tensor) -> torch.Tensor:
    """The logits of the full network with the outputs of removed units set to zero by hooks."""
    family, handles = architecture_of(net), []
    for layer in family.layers(net):
        norm = net.get_submodule(layer.gates[0].rpartition(".")[0])
        keep = torch.zeros(layer.size)
        keep[mask[layer.name].tolist()] = 1
        handles.append(norm.register_forward_hook(zeroing(keep.view(1, -1, 1, 1))))
    out = logits(net, x)
    for handle in handles:
        handle.remove()
    return out


def logits(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    family = architecture_of(net)
    return family.classifier(net)(family.features(net, x))


@st.composite
def random_masks(draw: st.DrawFn, sizes: dict[str, int]) -> Mask:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kept = {}
    for name, size in sizes.items():
        count = draw(st.sampled_from(["one", "few", "all", "any"]))
        n = {"one": 1, "few": max(1, size // 10), "all": size, "any": int(rng.integers(1, size + 1))}[count]
        kept[name] = rng.choice(size, n, replace=False)
    return Mask(kept, sizes)


def sizes_of(net: nn.Module) -> dict[str, int]:
    return layer_sizes(architecture_of(net).layers(net))


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=8)
@given(data=st.data())
def test_sliced_equals_masked(name: str, data: st.DataObject) -> None:
    net = network(name)
    mask = data.draw(random_masks(sizes_of(net)))
    x = torch.randn(data.draw(st.integers(1, 3)), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sliced = slice_network(net, mask)
    with torch.no_grad():
        expected, found = masked(net, mask, x), logits(sliced, x)
    assert (expected - found).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
    if mask.n_kept < mask.n_units:
        assert count_parameters(sliced) < count_parameters(net)


@pytest.mark.parametrize("name", ["resnet18", "resnet50d", "transformers-bottleneck"])
@settings(max_examples=5)
@given(data=st.data())
def test_gradients_of_kept_parameters_are_equal(name: str, data: st.DataObject) -> None:
    net = network(name)
    mask = data.draw(random_masks(sizes_of(net)))
    sliced, layers = slice_network(net, mask), architecture_of(net).layers(net)
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
    mask = Mask.random(sizes_of(net), 0.6, 3)
    x = torch.randn(2, 3, 32, 32, dtype=dtype)
    with torch.no_grad():
        difference = (masked(net, mask, x) - logits(slice_network(net, mask), x)).abs().max()
    assert difference <= tolerance


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mask_of_everything_gives_the_base_exactly(name: str) -> None:
    net = network(name)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(logits(slice_network(net, Mask.full(sizes_of(net))), x), logits(net, x))


@settings(max_examples=10)
@given(data=st.data())
def test_slicing_a_sliced_network_again(data: st.DataObject) -> None:
    net = network("resnet50")
    layers, sizes = architecture_of(net).layers(net), sizes_of(net)
    outer = data.draw(random_masks(sizes))
    rng = np.random.default_rng(0)
    inner = Mask({n: rng.choice(k, max(1, len(k) // 2), replace=False) for n, k in outer.items()}, sizes)
    twice = slice_network(net, outer)
    shrink(twice, layers, outer, inner)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(logits(twice, x), logits(slice_network(net, inner), x), atol=1e-6)


def test_the_optimiser_goes_on_with_its_momentum() -> None:
    net = slice_network(network("resnet18"), Mask.full(sizes_of(network("resnet18"))))
    layers, sizes = architecture_of(network("resnet18")).layers(network("resnet18")), sizes_of(network("resnet18"))
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
    sizes = sizes_of(net)
    first = next(iter(sizes))
    empty = Mask({n: ([] if n == first else range(s)) for n, s in sizes.items()}, sizes)
    with pytest.raises(OptionError, match=f"empties {first}"):
        slice_network(net, empty)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: timm.create_model("seresnet18", num_classes=2), "SEModule at layer1.0.se"),
        (lambda: timm.create_model("ecaresnet26t", num_classes=2), "EcaModule at layer1.0.se"),
        (lambda: timm.create_model("skresnet18", num_classes=2), "SelectiveKernelBasic at layer1.0"),
        (lambda: timm.create_model("res2net50_26w_4s", num_classes=2), "Bottle2neck at layer1.0"),
        (lambda: timm.create_model("resnet50_gn", num_classes=2), "GroupNorm"),
        (lambda: timm.create_model("resnext50_32x4d", num_classes=2), "grouped convolution layer1.0.conv2"),
        (lambda: timm.create_model("resnetblur50", num_classes=2), "BlurPool2d|aa"),
        (lambda: timm.create_model("resnet18", num_classes=2, drop_block_rate=0.1), "DropBlock"),
        (lambda: timm.create_model("resnet18", num_classes=2, act_layer="sigmoid"), "igmoid"),
        (lambda: timm.create_model("resnet18", num_classes=2, act_layer="prelu"), "PReLU"),
        (lambda: timm.create_model("resnet18", num_classes=2, norm_layer=nn.InstanceNorm2d), "InstanceNorm2d"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(make: Callable[[], nn.Module], named: str) -> None:
    net = make()
    with pytest.raises(ArchitectureError, match=named):
        architecture_of(net).layers(net)


def test_unknown_networks_are_refused_with_what_is_supported() -> None:
    with pytest.raises(ArchitectureError, match="supported: timm/resnet, transformers/resnet"):
        architecture_of(nn.Linear(2, 2))
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
        family = architecture_of(net)
        again = family.build(*family.describe(net), 5)
        again.load_state_dict(net.state_dict())
        x = torch.randn(1, 3, 32, 32)
        assert torch.equal(logits(again.eval(), x), logits(net, x))


def test_an_axis_of_heads_owns_blocks() -> None:
    qkv = Axis("qkv.weight", 0, outer=3, inner=2)  # 3 x (4 heads of width 2)
    assert qkv.indices(np.array([1, 3]), 4).tolist() == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23]


def test_every_tensor_of_a_branch_is_touched() -> None:
    net = network("resnet18")
    axes = tensor_axes(architecture_of(net).layers(net))
    untouched = {n for n in net.state_dict() if n not in axes and not n.endswith("num_batches_tracked")}
    assert untouched == {n for n in untouched if n.startswith(("conv1", "bn1", "fc"))}
    assert len(axes["layer1.0.conv2.weight"]) == 2
    assert len(axes["layer1.0.conv1.weight"]) == 1


def test_a_family_is_registered_once() -> None:
    with pytest.raises(OptionError, match="registered already"):
        register(find_architecture("timm", "resnet18"))
