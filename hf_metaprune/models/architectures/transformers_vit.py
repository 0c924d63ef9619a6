"""Vision transformers of transformers: ``ViTForImageClassification`` and ``DeiTForImageClassification``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import ArchitectureError
from .layers import PrunableLayer
from .model_args import MAX_VIT_DEPTH, MAX_WIDTH, Rule, flag, positive, share, side_lengths, text, whole_number
from .recipe import TRANSFORMER
from .registry import register
from .transformer import AttentionNames, check_parts, head_layer, node_layer
from .transformers_family import TransformersFamily

MODEL_ARGS: dict[str, Rule] = {
    "num_channels": whole_number(3, 3),
    "image_size": side_lengths(1, 4096),
    "patch_size": side_lengths(1, 256),
    "hidden_size": whole_number(1, MAX_WIDTH),
    "intermediate_size": whole_number(1, MAX_WIDTH),
    "num_hidden_layers": whole_number(1, MAX_VIT_DEPTH),
    "num_attention_heads": whole_number(1, 1024),
    "hidden_act": text,
    "qkv_bias": flag,
    "layer_norm_eps": positive(1.0),
    "hidden_dropout_prob": share,
    "attention_probs_dropout_prob": share,
}
ATTENTION = AttentionNames(("q_proj", "k_proj", "v_proj"), "o_proj", ("num_attention_heads",), as_tuple=True)


class TransformersViT(TransformersFamily):
    """transformers' ``ViTForImageClassification`` (Dosovitskiy et al., 2021), which classifies the class token."""

    family = "vit"
    model_args = MODEL_ARGS
    stage_pattern = r"(vit|deit)\.layers\.\d+"
    recipe = TRANSFORMER
    class_name = "ViTForImageClassification"
    config_name = "ViTConfig"
    inner = "vit"
    """Name of the submodule that is the network without its classifier."""

    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        layers: list[PrunableLayer] = []
        try:
            blocks = dict(network.get_submodule(f"{self.inner}.layers").named_children())
        except AttributeError as error:
            raise ArchitectureError(
                "this version of transformers names its ViT layers otherwise: "
                "upgrade with `pip install -U transformers`"
            ) from error
        for name, block in blocks.items():
            path = f"{self.inner}.layers.{name}"
            attention = f"{path}.attention"
            module: Any = block.get_submodule("attention")
            heads = int(module.num_attention_heads)
            check_parts(attention, module, (), (*ATTENTION.projections, ATTENTION.output))
            check_parts(f"{path}.mlp", block.get_submodule("mlp"), ("activation_fn",), ("fc1", "fc2"))
            layers.append(head_layer(network, attention, f"{path}.layernorm_before", heads, ATTENTION))
            layers.append(node_layer(network, f"{path}.mlp", f"{path}.layernorm_after"))
        return layers

    def features(self, network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        inner = getattr(network, self.inner)
        return inner(pixel_values).last_hidden_state[:, 0]

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        return (f"{self.inner}.embeddings.patch_embeddings",)

    def classifier_name(self, network: nn.Module) -> str:
        return "classifier"


class TransformersDeiT(TransformersViT):
    """transformers' ``DeiTForImageClassification`` (Touvron et al., 2021)."""

    family = "deit"
    class_name = "DeiTForImageClassification"
    config_name = "DeiTConfig"
    inner = "deit"


register(TransformersViT())
register(TransformersDeiT())
