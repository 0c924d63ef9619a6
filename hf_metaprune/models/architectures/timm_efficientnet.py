"""EfficientNets and MobileNets of timm: the expanded channels of inverted residuals, and the features."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...errors import ArchitectureError
from .layers import Axis, Counter, Probe, PrunableLayer
from .model_args import Rule, one_of, share, text, whole_number
from .registry import register
from .residual import keeps_zero
from .timm_family import TimmFamily

MODEL_ARGS: dict[str, Rule] = {
    "in_chans": whole_number(3, 3),
    "output_stride": lambda value: value in (8, 16, 32),
    "global_pool": one_of("avg", "max", "avgmax", "catavgmax", "fast"),
    "act_layer": text,
    "drop_rate": share,
    "drop_path_rate": share,
}
EXPANSION = {"InvertedResidual": ("conv_pw", "bn1"), "EdgeResidual": ("conv_exp", "bn1")}
"""Per class of block that is pruned: the names of its expanding convolution and of the norm after it."""
HEAD = "conv_head"
"""The convolution whose output is pooled, or that reads what was pooled, and gives the features."""
UNPRUNED_BLOCKS = ("DepthwiseSeparableConv", "ConvBnAct")
"""Classes of blocks that have no channels of their own, and so stay as they are."""


class TimmEfficientNet(TimmFamily):
    """timm's ``EfficientNet`` and ``MobileNetV3`` classes: EfficientNet (V2), MobileNetV2, V3, MNASNet and their kin.

    A unit is an expanded channel: its filter of the expansion, its depthwise filter, its place in the squeeze and
    excitation, and its column of the projection. The projection's output keeps the full width of the stream. The last
    layer's units are the features that the classifier reads, where a convolution computes them.
    """

    family = "efficientnet"
    model_args = MODEL_ARGS
    stage_pattern = r"blocks\.\d+"
    modules = ("timm.models.efficientnet", "timm.models.mobilenetv3")
    classes = ("EfficientNet", "MobileNetV3")
    what = "an EfficientNet or MobileNet"

    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        layers = []
        for stage, blocks in network.get_submodule("blocks").named_children():
            for number, block in blocks.named_children():
                path, kind = f"blocks.{stage}.{number}", type(block).__name__
                if kind in EXPANSION:
                    layers.append(self._layer(path, block, *EXPANSION[kind]))
                elif kind not in UNPRUNED_BLOCKS:
                    raise ArchitectureError(f"{kind} at {path} is not supported")
        if not layers:
            raise ArchitectureError(f"{type(network).__name__}: no block has channels that could be pruned")
        return layers + self._head_layers(network)

    def _head_layers(self, network: nn.Module) -> list[PrunableLayer]:
        """Return the layer whose units are the features, if a convolution computes them."""
        conv: Any = network.get_submodule(HEAD)
        if not isinstance(conv, nn.Conv2d):  # the features are those of the stream
            return []
        parts = dict(network.named_children())
        norm = "bn2" if "bn2" in parts else None  # MobileNetV3's has a bias instead
        act = parts["act2"] if norm is None else parts[norm].get_submodule("act")
        if not isinstance(parts.get("norm_head", nn.Identity()), nn.Identity):
            raise ArchitectureError(f"the norm after {HEAD} of {type(network).__name__} is not supported")
        if not isinstance(act, nn.Identity) and not keeps_zero(act):
            raise ArchitectureError(f"{type(act).__name__} after {HEAD} is not supported")
        repeats = self.classifier(network).in_features // conv.out_channels  # 2 if averages and maxima are pooled
        filters = _conv_axes(network, "", HEAD)
        norm_axes = _norm_axes("", norm) if norm else []
        axes = (*filters, *norm_axes, Axis(f"{self.classifier_name(network)}.weight", 1, outer=repeats))
        gates = tuple(norm_axes[:2] or filters)
        counters = [Counter("", "head_hidden_size", repeats)]
        if norm:  # MobileNetV3's num_features are those before its head
            counters.append(Counter("", "num_features"))
        probe = Probe(norm or "act2")
        return [PrunableLayer(HEAD, conv.out_channels, axes, probe, gates, (filters[0],), tuple(counters))]

    def _layer(self, path: str, block: nn.Module, conv: str, norm: str) -> PrunableLayer:
        self._check(path, block)
        last_norm, axes, counters = norm, _conv_axes(block, path, conv) + _norm_axes(path, norm), []
        if hasattr(block, "conv_dw"):
            last_norm = "bn2"
            axes += _conv_axes(block, path, "conv_dw") + _norm_axes(path, last_norm)
            counters.append(Counter(f"{path}.conv_dw", "groups"))
        if not isinstance(block.se, nn.Identity):
            axes += [Axis(f"{path}.se.conv_reduce.weight", 1), *_conv_axes(block, f"{path}", "se.conv_expand")]
        axes.append(Axis(f"{path}.conv_pwl.weight", 1))
        expansion: Any = block.get_submodule(conv)
        gates = (Axis(f"{path}.{last_norm}.weight", 0), Axis(f"{path}.{last_norm}.bias", 0))
        filters = (Axis(f"{path}.{conv}.weight", 0),)
        probe = Probe(f"{path}.{last_norm}")
        size = int(expansion.out_channels)
        return PrunableLayer(f"{path}.{conv}", size, tuple(axes), probe, gates, filters, tuple(counters))

    @staticmethod
    def _check(path: str, block: nn.Module) -> None:
        """Refuse a block with a part whose effect on removed units is not known."""
        parts = dict(block.named_children())
        if getattr(block, "conv_s2d", None) is not None:
            raise ArchitectureError(f"space to depth at {path}.conv_s2d is not supported")
        if not isinstance(parts["aa"], nn.Identity):
            raise ArchitectureError(f"{type(parts['aa']).__name__} at {path}.aa (anti-aliasing) is not supported")
        if type(parts["se"]).__name__ not in ("Identity", "SqueezeExcite"):
            raise ArchitectureError(f"{type(parts['se']).__name__} at {path}.se is not supported")
        for name in ("conv_pw", "conv_exp", "conv_dw", "conv_pwl"):
            conv = parts.get(name)
            if conv is None:
                continue
            groups = conv.out_channels if name == "conv_dw" else 1
            if not isinstance(conv, nn.Conv2d) or conv.groups != groups:
                raise ArchitectureError(f"{type(conv).__name__} at {path}.{name} (mixed or grouped) is not supported")
        for name in ("bn1", "bn2"):
            norm = parts[name]
            if not isinstance(norm, nn.BatchNorm2d) or not norm.affine:
                raise ArchitectureError(f"{type(norm).__name__} at {path}.{name} is not supported")
            act = getattr(norm, "act", nn.Identity())
            if not isinstance(act, nn.Identity) and not keeps_zero(act):
                raise ArchitectureError(f"{type(act).__name__} at {path}.{name}.act is not supported")

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        return ("conv_stem", "bn1")

    def classifier_name(self, network: nn.Module) -> str:
        return "classifier"


def _conv_axes(block: nn.Module, path: str, name: str) -> list[Axis]:
    has_bias = block.get_submodule(name).bias is not None
    return [Axis(f"{_inside(path)}{name}.{kind}", 0) for kind in ("weight", *(["bias"] if has_bias else []))]


def _norm_axes(path: str, name: str) -> list[Axis]:
    return [Axis(f"{_inside(path)}{name}.{kind}", 0) for kind in ("weight", "bias", "running_mean", "running_var")]


def _inside(path: str) -> str:
    return f"{path}." if path else ""


register(TimmEfficientNet())
