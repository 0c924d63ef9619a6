"""Shared by vision transformers: attention heads and MLP nodes as units."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...errors import ArchitectureError
from .layers import Axis, Branch, Counter, Probe, PrunableLayer


@dataclass(frozen=True)
class AttentionNames:
    """The names of an attention module's parts."""

    projections: tuple[str, ...]
    """Projections to queries, keys and values: three, or one for all of them."""
    output: str
    """The projection of the heads' outputs."""
    counters: tuple[str, ...]
    """Attributes that hold the number of heads."""
    widths: tuple[str, ...] = ()
    """Attributes that hold the number of channels of all heads together."""
    as_tuple: bool = False
    """Whether the module returns a tuple, of which the first item is the output."""


def head_layer(network: nn.Module, path: str, norm: str, heads: int, names: AttentionNames) -> PrunableLayer:
    """Return the heads of one attention as a layer: rows of its projections, columns of its output.

    Args:
        network: an unsliced network.
        path: path of the attention module, which is also the layer's name.
        norm: path of the norm that only the attention reads.
        heads: number of heads.
        names: the names of the module's parts.

    Raises:
        ArchitectureError: a part is missing, or is not what the names say.
    """
    output = _get_linear(network, f"{path}.{names.output}")
    if output.in_features % heads:
        raise ArchitectureError(f"{path}: {output.in_features} channels are not those of {heads} heads")
    width = output.in_features // heads
    axes: list[Axis] = []
    outer = 1 if len(names.projections) == 3 else 3
    for name in names.projections:
        projection = _get_linear(network, f"{path}.{name}")
        if projection.out_features != outer * heads * width:
            raise ArchitectureError(f"{path}.{name}: grouped queries are not supported")
        kinds = ["weight"] if projection.bias is None else ["weight", "bias"]
        axes += [Axis(f"{path}.{name}.{kind}", 0, outer, width) for kind in kinds]
    filters = tuple(axis for axis in axes if axis.tensor.endswith(".weight"))
    gate = Axis(f"{path}.{names.output}.weight", 1, 1, width)
    counters = [Counter(path, name) for name in names.counters] + [Counter(path, name, width) for name in names.widths]
    branch = Branch(path, _bias_name(output, names.output), norm, names.as_tuple)
    probe = Probe(f"{path}.{names.output}", -1, width, at_input=True)
    return PrunableLayer(path, heads, (*axes, gate), probe, (gate,), filters, tuple(counters), branch=branch)


def node_layer(network: nn.Module, path: str, norm: str | None = None) -> PrunableLayer:
    """Return the hidden nodes of one MLP: rows of its first linear layer ``fc1``, columns of its second ``fc2``.

    Args:
        network: an unsliced network.
        path: of the MLP in the network.
        norm: path of the norm before the MLP, if both together are a branch of the residual stream, which then may lose
            all of its nodes; None if the branch computes something else, too.

    Raises:
        ArchitectureError: a part is missing, or of another kind.
    """
    first, second = _get_linear(network, f"{path}.fc1"), _get_linear(network, f"{path}.fc2")
    if first.out_features != second.in_features:
        raise ArchitectureError(f"{path}: gated MLPs are not supported")
    rows = [Axis(f"{path}.fc1.{kind}", 0) for kind in (["weight"] if first.bias is None else ["weight", "bias"])]
    gate = Axis(f"{path}.fc2.weight", 1)
    probe = Probe(f"{path}.fc2", -1, at_input=True)
    branch = None if norm is None else Branch(path, _bias_name(second, "fc2"), norm)
    return PrunableLayer(path, first.out_features, (*rows, gate), probe, (gate,), (rows[0],), branch=branch)


def check_parts(path: str, module: nn.Module, allowed: tuple[str, ...], own: tuple[str, ...] = ()) -> None:
    """Refuse an attention or MLP with a part whose effect on removed units is not known.

    Args:
        path: path of the module.
        module: the attention or MLP.
        allowed: names of parts that may be of any type.
        own: names of parts that the caller has checked.

    Raises:
        ArchitectureError: a part is refused; the message names the first one.
    """
    for name, part in module.named_children():
        if name in own or isinstance(part, (nn.Identity, nn.Dropout)):
            continue
        if name not in allowed:
            raise ArchitectureError(f"{type(part).__name__} at {path}.{name} is not supported")


def _get_linear(network: nn.Module, path: str) -> nn.Linear:
    try:
        module = network.get_submodule(path)
    except AttributeError as error:
        raise ArchitectureError(
            f"{path} is missing: this version of the network's library is not supported; upgrade the library"
        ) from error
    if not isinstance(module, nn.Linear):
        raise ArchitectureError(f"{type(module).__name__} at {path} is not supported")
    return module


def _bias_name(linear: nn.Linear, name: str) -> str | None:
    return None if linear.bias is None else f"{name}.bias"
