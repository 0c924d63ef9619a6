"""ConvNeXts of timm: the hidden nodes of their blocks' MLPs."""

from __future__ import annotations

from torch import nn

from ...errors import ArchitectureError
from .layers import Axis, Probe, PrunableLayer
from .model_args import MAX_WIDTH, Rule, block_counts, flag, one_of, positive, share, whole_number, whole_numbers
from .recipe import TRANSFORMER
from .registry import register
from .timm_family import TimmFamily
from .transformer import check_parts, node_layer

MODEL_ARGS: dict[str, Rule] = {
    "in_chans": whole_number(3, 3),
    "global_pool": one_of("avg", "max"),
    "drop_rate": share,
    "drop_path_rate": share,
    "depths": block_counts,
    "dims": whole_numbers(1, MAX_WIDTH),
    "kernel_sizes": lambda value: whole_number(1, 63)(value) or whole_numbers(1, 63)(value),
    "ls_init_value": lambda value: value is None or positive(10)(value),
    "stem_type": one_of("patch", "overlap", "overlap_tiered", "overlap_act"),
    "patch_size": whole_number(1, 64),
    "head_init_scale": positive(100),
    "head_norm_first": flag,
    "head_hidden_size": whole_number(1, MAX_WIDTH),
    "conv_mlp": flag,
    "conv_bias": flag,
    "act_layer": one_of("gelu", "gelu_tanh", "relu", "silu"),
    "norm_layer": one_of("layernorm", "layernorm2d", "simplenorm", "simplenorm2d", "rmsnorm", "rmsnorm2d"),
    "norm_eps": positive(1),
}


class TimmConvNeXt(TimmFamily):
    """timm's ``ConvNeXt`` (Liu et al., 2022), without the global response norm of its second version."""

    family = "convnext"
    model_args = MODEL_ARGS
    stage_pattern = r"stages\.\d+"
    recipe = TRANSFORMER
    modules = ("timm.models.convnext",)
    classes = ("ConvNeXt",)
    what = "a ConvNeXt"

    def layers(self, network: nn.Module) -> list[PrunableLayer]:
        layers = []
        for stage, blocks in network.get_submodule("stages").named_children():
            for name, block in blocks.get_submodule("blocks").named_children():
                path = f"stages.{stage}.blocks.{name}"
                mlp = block.get_submodule("mlp")
                for at, part, class_name in ((path, block, "ConvNeXtBlock"), (f"{path}.mlp", mlp, "Mlp")):
                    if type(part).__name__ != class_name:
                        raise ArchitectureError(f"{type(part).__name__} at {at} is not supported")
                layers.append(_node_layer(network, f"{path}.mlp", mlp))
        return layers

    def stem_names(self, network: nn.Module) -> tuple[str, ...]:
        return ("stem",)

    def classifier_name(self, network: nn.Module) -> str:
        return "head.fc"


def _node_layer(network: nn.Module, path: str, mlp: nn.Module) -> PrunableLayer:
    """Return the nodes of an MLP of linear layers, or of 1x1 convolutions with the nodes in dimension 1."""
    check_parts(path, mlp, ("act",), ("fc1", "fc2"))
    fc1 = mlp.get_submodule("fc1")
    if not isinstance(fc1, nn.Conv2d):
        return node_layer(network, path)
    rows, columns = Axis(f"{path}.fc1.weight", 0), Axis(f"{path}.fc2.weight", 1)
    return PrunableLayer(
        name=path,
        size=fc1.out_channels,
        axes=(rows, Axis(f"{path}.fc1.bias", 0), columns),
        probe=Probe(f"{path}.fc2", at_input=True),
        gates=(columns,),
        filters=(rows,),
    )


register(TimmConvNeXt())
