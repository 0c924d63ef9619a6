"""Vision transformers of timm: ViT, DeiT and DeiT III, with and without class token, registers, layer scale."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...errors import ArchitectureError
from .layers import PrunableLayer
from .model_args import MAX_VIT_DEPTH, MAX_WIDTH, Rule, flag, one_of, positive, share, side_lengths, text, whole_number
from .recipe import TRANSFORMER
from .registry import register
from .timm_family import TimmFamily
from .transformer import AttentionNames, check_parts, head_layer, node_layer

MODEL_ARGS: dict[str, Rule] = {
    "img_size": side_lengths(1, 4096),
    "patch_size": side_lengths(1, 256),
    "in_chans": whole_number(3, 3),
    "embed_dim": whole_number(1, MAX_WIDTH),
    "depth": whole_number(1, MAX_VIT_DEPTH),
    "num_heads": whole_number(1, 1024),
    "mlp_ratio": positive(64.0),
    "qkv_bias": flag,
    "qk_norm": flag,
    "proj_bias": flag,
    "init_values": positive(100.0),
    "class_token": flag,
    "pos_embed": one_of("", "none", "learn"),
    "no_embed_class": flag,
    "reg_tokens": whole_number(0, 64),
    "pre_norm": flag,
    "final_norm": flag,
    "fc_norm": flag,
    "global_pool": one_of("token", "avg", "avgmax", "max"),
    "pool_include_prefix": flag,
    "dynamic_img_size": flag,
    "act_layer": text,
    "drop_rate": share,
    "pos_drop_rate": share,
    "proj_drop_rate": share,
    "attn_drop_rate": share,
    "drop_path_rate": share,
}
ATTENTION = AttentionNames(("qkv",), "proj", ("num_heads",), ("attn_dim",))


class TimmViT(TimmFamily):
    """timm's ``VisionTransformer`` with its plain blocks (Dosovitskiy et al., 2021; Touvron et al., 2021, 2022).

    A distilled DeiT loses its second classifier; its features are the mean of the class and the distillation token.
    """

    family = "vit"
    model_args = MODEL_ARGS
    stage_pattern = r"blocks\.\d+"
    recipe = TRANSFORMER
    ignored = ("head_dist.",)
    modules = ("timm.models.vision_transformer", "timm.models.deit")
    classes = ("VisionTransformer", "VisionTransformerDistilled")
    what = "a vision transformer"

    def finish(self, network: nn.Module, **own: Any) -> None:
        if hasattr(network, "head_dist"):
            network.head_dist = nn.Identity()

    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        if getattr(network, "attn_pool", None) is not None:
            raise ArchitectureError(f"{type(network.attn_pool).__name__} at attn_pool is not supported")
        layers: list[PrunableLayer] = []
        for name, block in network.get_submodule("blocks").named_children():
            path = f"blocks.{name}"
            if type(block).__name__ != "Block":
                raise ArchitectureError(f"{type(block).__name__} at {path} is not supported")
            self._check(path, block)
            attention: Any = block.get_submodule("attn")
            layers.append(head_layer(network, f"{path}.attn", f"{path}.norm1", int(attention.num_heads), ATTENTION))
            layers.append(node_layer(network, f"{path}.mlp", f"{path}.norm2"))
        return layers

    @staticmethod
    def _check(path: str, block: nn.Module) -> None:
        attention, mlp = block.get_submodule("attn"), block.get_submodule("mlp")
        for name, part, kind in (("attn", attention, "Attention"), ("mlp", mlp, "Mlp")):
            if type(part).__name__ != kind:
                raise ArchitectureError(f"{type(part).__name__} at {path}.{name} is not supported")
        if not hasattr(attention, "attn_dim"):
            raise ArchitectureError(
                "this version of timm cannot remove attention heads: upgrade with `pip install -U timm`"
            )
        check_parts(f"{path}.attn", attention, ("q_norm", "k_norm"), ("qkv", "proj"))
        check_parts(f"{path}.mlp", mlp, ("act",), ("fc1", "fc2"))

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        return ("patch_embed",)

    def classifier_name(self, network: nn.Module) -> str:
        return "head"


register(TimmViT())
