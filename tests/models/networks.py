"""Networks of every supported kind, narrow ones, and what a mask means on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import strategies as st
from timm.layers import set_fused_attn
from torch import nn
from torch.func import functional_call
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.architectures.layers import PrunableLayer, layer_sizes
from hf_metaprune.models.architectures.lookup import find_architecture, identify_architecture

FEW_BLOCKS = (1, 2, 1, 1)  # with and without a convolution in the shortcut; more of them are more of the same
NARROW = {"channels": (8, 12, 16, 20), "num_classes": 5}


def timm_net(name: str, **args: object) -> nn.Module:
    return timm.create_model(name, **{**NARROW, **args})


def built(name: str, **args: object) -> nn.Module:
    return find_architecture("timm", name).build(name, {"channels": [8, 12, 16, 20], **args}, 5)


def hf_net(**args: object) -> nn.Module:
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 2, 1, 1], "num_labels": 5}
    return ResNetForImageClassification(ResNetConfig(**{**sizes, **args}))


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0}


def vit(name: str, *, fused: bool = True, **args: object) -> nn.Module:
    set_fused_attn(fused)
    try:
        net = find_architecture("timm", name).build(name, {**VIT, **args}, 5)
    finally:
        set_fused_attn(True)
    assert all(module.fused_attn == fused for module in net.modules() if hasattr(module, "fused_attn"))
    return net


def hf_vit(config: Callable[..., Any], make: Callable[..., Any], **args: object) -> nn.Module:
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    return make(config(**{**sizes, "num_attention_heads": 4, "num_labels": 5, **args}))


CONVNEXT = {"depths": [1, 2, 1, 1], "dims": [8, 12, 16, 20]}


def convnext(name: str = "convnext_tiny", **args: object) -> nn.Module:
    return find_architecture("timm", name).build(name, {**CONVNEXT, **args}, 5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: timm_net("resnet18"),
    "resnet18-deep-stem": lambda: timm_net("resnet18", stem_type="deep", stem_width=8),
    "resnet18-tiered-stem": lambda: timm_net("resnet18", stem_type="deep_tiered", stem_width=8, avg_down=True),
    "resnet18-cifar-stem": lambda: built("resnet18", cifar_stem=True),
    "resnet18-pool-stem": lambda: timm_net("resnet18", replace_stem_pool=True),
    "resnet18-silu": lambda: timm_net("resnet18", act_layer="silu"),
    "resnet50": lambda: timm_net("resnet50", layers=FEW_BLOCKS),
    "resnet26d": lambda: timm_net("resnet26d"),
    "wide_resnet50_2": lambda: timm_net("wide_resnet50_2", layers=FEW_BLOCKS),
    "resnet50-catavgmax": lambda: timm_net("resnet50", layers=FEW_BLOCKS, global_pool="catavgmax"),
    "resnet26t": lambda: timm_net("resnet26t"),
    "resnet18-drop-path": lambda: timm_net("resnet18", drop_path_rate=0.1),
    "resnet18-dilated": lambda: timm_net("resnet18", output_stride=8),
    "transformers-bottleneck": lambda: hf_net(),
    "transformers-basic": lambda: hf_net(layer_type="basic"),
    "transformers-stem-stride": lambda: hf_net(downsample_in_first_stage=True),
    "transformers-v1": lambda: hf_net(downsample_in_bottleneck=True),
    "vit": lambda: vit("vit_tiny_patch16_224"),
    "vit-not-fused": lambda: vit("vit_tiny_patch16_224", fused=False),
    "vit-no-token": lambda: vit("vit_tiny_patch16_224", class_token=False, global_pool="avg"),
    "vit-layer-scale": lambda: vit("vit_tiny_patch16_224", init_values=0.5, drop_path_rate=0.1),
    "vit-qk-norm": lambda: vit("vit_tiny_patch16_224", qk_norm=True, qkv_bias=False),
    "vit-registers": lambda: vit("vit_tiny_patch16_224", reg_tokens=3, no_embed_class=True),
    "vit-no-bias": lambda: vit("vit_tiny_patch16_224", proj_bias=False),
    "vit-pre-norm-any-size": lambda: vit("vit_tiny_patch16_224", pre_norm=True, dynamic_img_size=True),
    "deit": lambda: vit("deit_tiny_patch16_224"),
    "deit-distilled": lambda: vit("deit_tiny_distilled_patch16_224"),
    "deit3": lambda: vit("deit3_small_patch16_224"),
    "transformers-vit": lambda: hf_vit(ViTConfig, ViTForImageClassification),
    "transformers-vit-no-bias": lambda: hf_vit(ViTConfig, ViTForImageClassification, qkv_bias=False),
    "transformers-deit": lambda: hf_vit(DeiTConfig, DeiTForImageClassification),
    "mobilenetv2": lambda: timm.create_model("mobilenetv2_050", num_classes=5),
    "mobilenetv3-small": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "mobilenetv3-minimal": lambda: timm.create_model("tf_mobilenetv3_small_minimal_100", num_classes=5),
    "efficientnet-b0": lambda: timm.create_model("efficientnet_b0", num_classes=5),
    "efficientnet-v2": lambda: timm.create_model("tf_efficientnetv2_b0", num_classes=5),
    "efficientnet-lite0": lambda: timm.create_model("efficientnet_lite0", num_classes=5),
    "efficientnet-catavgmax": lambda: timm.create_model("efficientnet_lite0", num_classes=5, global_pool="catavgmax"),
    "mnasnet": lambda: timm.create_model("mnasnet_050", num_classes=5),
    "convnext": lambda: convnext(),
    "convnext-no-layer-scale": lambda: convnext(ls_init_value=None, drop_path_rate=0.1),
    "convnext-head-norm-first": lambda: convnext(head_norm_first=True, act_layer="gelu_tanh", norm_eps=1e-5),
    "convnext-kernel-sizes": lambda: convnext(kernel_sizes=[7, 5, 3, 3], head_hidden_size=12, conv_bias=False),
    "convnext-conv-mlp": lambda: convnext("convnext_atto_ols"),
    "convnext-conv-mlp-rms-norm": lambda: convnext("convnext_zepto_rms", act_layer="silu", stem_type="overlap_act"),
}

FEW = {
    *("resnet18", "resnet18-deep-stem", "resnet26d", "transformers-basic", "transformers-bottleneck"),
    *("vit", "vit-layer-scale", "deit-distilled", "transformers-vit"),
    *("mobilenetv3-small", "efficientnet-lite0", "convnext", "convnext-conv-mlp"),
}
"""Networks of every family; the others are variants."""
FEW_BY_DEFAULT = [pytest.param(name, marks=[pytest.mark.slow] * (name not in FEW)) for name in NETWORKS]


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(1)
    return randomize(NETWORKS[name]()).eval()


def randomize(net: nn.Module) -> nn.Module:
    """Give every parameter values as after training: what starts as zeros, ones or tiny numbers would hide errors."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3, generator=generator)
            elif parameter.ndim <= 1:  # scales
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:  # tokens and positions have one entry along the first dimension
                fan_in = parameter[0].numel() if parameter.shape[0] > 1 else 4
                parameter.normal_(0, fan_in**-0.5, generator=generator)
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:  # statistics of other activations would let a branch's constants drown what it sees
            norm.reset_running_stats()
            norm.momentum = None
        if norms:
            net.train()(torch.randn(16, 3, 64, 64, generator=generator))
    return net


def masked(net: nn.Module, mask: Mask, x: torch.Tensor, layers: list[PrunableLayer] | None = None) -> torch.Tensor:
    """The logits of the whole network in which the gates of removed units are zero."""
    parameters = {}
    for layer in layers or identify_architecture(net).layers(net):
        keep = torch.zeros(layer.size)
        keep[mask[layer.name].tolist()] = 1
        for gate in layer.gates:
            parameter = net.get_parameter(gate.tensor)
            parameters[gate.tensor] = parameter * gate.spread(keep.to(parameter), parameter.ndim)
    return functional_call(Logits(net), {f"net.{name}": tensor for name, tensor in parameters.items()}, (x,))


class Logits(nn.Module):
    """A network up to its logits, for those who need a module."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return logits(self.net, x)


def logits(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    family = identify_architecture(net)
    return family.classifier(net)(family.features(net, x))


@st.composite
def random_masks(draw: st.DrawFn, net: nn.Module, layers: list[PrunableLayer] | None = None) -> Mask:
    """Down to one unit per layer, or none where the layer's branch may go."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    units, layers = {}, layers or identify_architecture(net).layers(net)
    for layer in layers:
        count, size = draw(st.sampled_from(["least", "one", "few", "all", "any"])), layer.size
        least = 1 if layer.branch is None else 0
        n = {"least": least, "one": 1, "few": max(1, size // 10), "all": size, "any": int(rng.integers(1, size + 1))}
        units[layer.name] = rng.choice(size, n[count], replace=False)
    return Mask(units, layer_sizes(layers))


def unit_counts(net: nn.Module) -> dict[str, int]:
    return layer_sizes(identify_architecture(net).layers(net))
