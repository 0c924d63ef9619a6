"""ResNets of transformers: ``ResNetForImageClassification`` with basic or bottleneck layers, any width."""

from __future__ import annotations

import torch
from torch import nn

from .layers import Adder, PrunableLayer
from .model_args import MAX_WIDTH, Rule, block_counts, flag, one_of, text, whole_number, whole_numbers
from .registry import register
from .residual import ConvStep, branch_layers, check_modules
from .transformers_family import TransformersFamily

MODEL_ARGS: dict[str, Rule] = {
    "num_channels": whole_number(3, 3),
    "embedding_size": whole_number(1, MAX_WIDTH),
    "hidden_sizes": whole_numbers(1, MAX_WIDTH),
    "depths": block_counts,
    "layer_type": one_of("basic", "bottleneck"),
    "hidden_act": text,
    "downsample_in_first_stage": flag,
    "downsample_in_bottleneck": flag,
}


class TransformersResNet(TransformersFamily):
    """transformers' ``ResNetForImageClassification`` (He et al., 2016, v1.5)."""

    family = "resnet"
    model_args = MODEL_ARGS
    stage_pattern = r"resnet\.encoder\.stages\.\d+"
    class_name = "ResNetForImageClassification"
    config_name = "ResNetConfig"

    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        from .transformers_blocks import ADDING_CLASSES

        allowed = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.Identity, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)
        check_modules(network, allowed, self.class_name)
        layers: list[PrunableLayer] = []
        for path, block in network.named_modules():
            if type(block) not in (*ADDING_CLASSES, *ADDING_CLASSES.values()):
                continue
            steps = [self._step(f"{path}.layer.{i}") for i in range(len(block.layer))]
            steps[-1] = ConvStep(steps[-1].conv, steps[-1].norm, steps[-1].norm)
            layers += branch_layers(network, steps, Adder(path, ADDING_CLASSES.get(type(block), type(block))))
            if not isinstance(block.shortcut, nn.Identity):
                step = self._step(f"{path}.shortcut")
                layers += branch_layers(network, [ConvStep(step.conv, step.norm, step.norm)])
        return layers

    @staticmethod
    def _step(path: str) -> ConvStep:
        return ConvStep(f"{path}.convolution", f"{path}.normalization", f"{path}.activation")

    def features(self, network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        return network.resnet(pixel_values).pooler_output.flatten(1)  # type: ignore[operator]

    def stem_layers(self, network: nn.Module) -> list[PrunableLayer]:
        path = "resnet.embedder.embedder"
        return branch_layers(
            network, [ConvStep(f"{path}.convolution", f"{path}.normalization", f"{path}.normalization")]
        )

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        return ("resnet.embedder",)

    def classifier_name(self, network: nn.Module) -> str:
        return "classifier.1"


register(TransformersResNet())
