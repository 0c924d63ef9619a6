"""ResNets of timm: BasicBlock and Bottleneck, plain, deep and tiered stems, average-pooled shortcuts, any width."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from ...errors import ArchitectureError
from .layers import Adder, PrunableLayer
from .model_args import MAX_WIDTH, Rule, block_counts, flag, one_of, share, text, whole_number, whole_numbers
from .registry import register
from .residual import ConvStep, branch_layers, check_modules
from .timm_family import TimmFamily

POOLS = ("avg", "max", "avgmax", "catavgmax", "fast", "fastavg", "fastmax", "fastavgmax", "fastcatavgmax")

# Everything else is refused, above all arguments that make timm read files or import code.
MODEL_ARGS: dict[str, Rule] = {
    "layers": block_counts,
    "channels": whole_numbers(1, MAX_WIDTH),
    "in_chans": whole_number(3, 3),
    "global_pool": one_of(*POOLS),
    "base_width": whole_number(1, MAX_WIDTH),
    "stem_width": whole_number(1, MAX_WIDTH),
    "stem_type": one_of("", "deep", "deep_tiered"),
    "replace_stem_pool": flag,
    "avg_down": flag,
    "down_kernel_size": whole_number(1, 7),
    "block_reduce_first": whole_number(1, 64),
    "output_stride": lambda value: value in (8, 16, 32),
    "act_layer": text,
    "drop_rate": share,
    "drop_path_rate": share,
    "cifar_stem": flag,
}


class TimmResNet(TimmFamily):
    """timm's ``ResNet`` class (He et al., 2016, and its variants without attention, grouping or anti-aliasing)."""

    family = "resnet"
    model_args = MODEL_ARGS
    stage_pattern = r"layer\d+"
    modules = ("timm.models.resnet",)
    classes = ("ResNet",)
    what = "a ResNet"
    own_args = frozenset({"cifar_stem"})

    def finish(self, network: nn.Module, **own: Any) -> None:
        if own.get("cifar_stem"):
            make_cifar_stem(network)

    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        from timm.layers import adaptive_avgmax_pool as pools
        from timm.models.resnet import BasicBlock, DropPath

        from .timm_blocks import ADDING_CLASSES

        blocks: dict[str, Any] = {
            path: module for path, module in network.named_modules() if re.fullmatch(r"layer\d+\.\d+", path)
        }
        for path, block in blocks.items():
            if type(block) not in (*ADDING_CLASSES, *ADDING_CLASSES.values()):
                raise ArchitectureError(f"{type(block).__name__} at {path} is not supported")
            if block.se is not None:
                raise ArchitectureError(f"{type(block.se).__name__} at {path}.se (attention) is not supported")
            if not isinstance(block.aa, nn.Identity | None):
                raise ArchitectureError(f"{type(block.aa).__name__} at {path}.aa (anti-aliasing) is not supported")
        allowed = [nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.Identity, nn.MaxPool2d, nn.AvgPool2d]
        allowed += [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, DropPath]
        allowed += [pools.FastAdaptiveAvgPool, pools.AdaptiveAvgMaxPool2d, pools.AdaptiveCatAvgMaxPool2d]
        check_modules(network, allowed, type(network).__name__)
        layers: list[PrunableLayer] = []
        for path, block in blocks.items():
            depth = 2 if isinstance(block, BasicBlock) else 3
            steps = [
                ConvStep(f"{path}.conv{i}", f"{path}.bn{i}", f"{path}.act{i}" if i < depth else f"{path}.bn{i}")
                for i in range(1, depth + 1)
            ]
            layers += branch_layers(network, steps, Adder(path, ADDING_CLASSES.get(type(block), type(block))))
            if block.downsample is not None:
                layers += self._shortcut_layers(network, path, block.downsample)
        return layers

    @staticmethod
    def _shortcut_layers(network: nn.Module, path: str, downsample: nn.Module) -> list[PrunableLayer]:
        children = list(downsample.named_children())
        conv = next(name for name, module in children if isinstance(module, nn.Conv2d))
        norm = children[-1][0]
        base = f"{path}.downsample"
        return branch_layers(network, [ConvStep(f"{base}.{conv}", f"{base}.{norm}", f"{base}.{norm}")])

    def stem_layers(self, network: nn.Module) -> list[PrunableLayer]:
        stem: Any = network.get_submodule("conv1")
        if isinstance(stem, nn.Conv2d):
            return branch_layers(network, [ConvStep("conv1", "bn1", "bn1")])
        names = [name for name, module in stem.named_children() if isinstance(module, nn.Conv2d)]
        inner = [ConvStep(f"conv1.{n}", f"conv1.{int(n) + 1}", f"conv1.{int(n) + 2}") for n in names[:-1]]
        return branch_layers(network, [*inner, ConvStep(f"conv1.{names[-1]}", "bn1", "bn1")])

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        return ("conv1", "bn1")

    def classifier_name(self, network: nn.Module) -> str:
        return network.get_classifier(name_only=True)  # type: ignore[operator]


def make_cifar_stem(network: nn.Module) -> None:
    """Give a ResNet the stem of CIFAR networks, in place: a 3 x 3 convolution of stride 1, and no pooling.

    Raises:
        ArchitectureError: the stem is not a single convolution.
    """
    stem = network.conv1
    if not isinstance(stem, nn.Conv2d):
        raise ArchitectureError("cifar_stem needs the plain stem: leave out stem_type")
    network.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()


register(TimmResNet())
