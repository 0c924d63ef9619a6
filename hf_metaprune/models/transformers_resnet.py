"""ResNets of transformers: ``ResNetForImageClassification`` with basic or bottleneck layers, any width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from ..errors import ArchitectureError
from .architecture import Architecture, PrunableLayer, register
from .model_args import MAX_DEPTH, MAX_WIDTH, Rule, check_model_args, flag, one_of, text, whole, wholes
from .residual import ConvStep, branch_layers, check_modules

MODEL_ARGS: dict[str, Rule] = {
    "num_channels": whole(3, 3),
    "embedding_size": whole(1, MAX_WIDTH),
    "hidden_sizes": wholes(1, MAX_WIDTH),
    "depths": wholes(1, MAX_DEPTH),
    "layer_type": one_of("basic", "bottleneck"),
    "hidden_act": text,
    "downsample_in_first_stage": flag,
    "downsample_in_bottleneck": flag,
}
CLASS_NAME = "ResNetForImageClassification"


class TransformersResNet(Architecture):
    """transformers' ``ResNetForImageClassification`` (He et al., 2016, v1.5)."""

    library = "transformers"
    family = "resnet"

    def matches(self, architecture: str) -> bool:
        return architecture == CLASS_NAME

    def recognises(self, network: nn.Module) -> bool:
        return type(network).__name__ == CLASS_NAME and type(network).__module__.startswith("transformers.")

    def build(self, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
        from transformers import ResNetConfig, ResNetForImageClassification

        check_model_args(model_args, MODEL_ARGS, architecture)
        try:
            network = ResNetForImageClassification(ResNetConfig(num_labels=num_classes, **model_args))
        except Exception as error:  # transformers' strict configs raise their own kinds
            raise ArchitectureError(f"transformers cannot build {architecture}: {error}") from error
        return network

    def describe(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        config = cast("Any", network).config.to_dict()
        return CLASS_NAME, {name: config[name] for name in MODEL_ARGS}

    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        allowed = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.Identity, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)
        check_modules(network, allowed, CLASS_NAME)
        layers: list[PrunableLayer] = []
        for path, block in network.named_modules():
            if type(block).__name__ not in ("ResNetBasicLayer", "ResNetBottleNeckLayer"):
                continue
            steps = [self._step(f"{path}.layer.{i}") for i in range(len(block.layer))]
            steps[-1] = ConvStep(steps[-1].conv, steps[-1].norm, steps[-1].norm)
            layers += branch_layers(network, steps)
            if not isinstance(block.shortcut, nn.Identity):
                step = self._step(f"{path}.shortcut")
                layers += branch_layers(network, [ConvStep(step.conv, step.norm, step.norm)])
        return layers

    @staticmethod
    def _step(path: str) -> ConvStep:
        return ConvStep(f"{path}.convolution", f"{path}.normalization", f"{path}.activation")

    def features(self, network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        return network.resnet(pixel_values).pooler_output.flatten(1)  # type: ignore[operator]

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        return ("resnet.embedder",)

    def classifier_name(self, network: nn.Module) -> str:
        return "classifier.1"


register(TransformersResNet())
