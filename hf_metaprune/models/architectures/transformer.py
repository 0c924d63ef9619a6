"""Shared by vision transformers: attention heads and MLP nodes as units."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...errors import ArchitectureError
from .architecture import Axis, Branch, Counter, Probe, PrunableLayer


@dataclass(frozen=True)
class AttentionNames:
    """How an attention module calls its parts; one projection may make queries, keys and values together."""

    projections: tuple[str, ...]
    output: str
    counters: tuple[str, ...]
    """Attributes that count heads."""
    widths: tuple[str, ...] = ()
    """Attributes that count the heads' channels."""
    as_tuple: bool = False


def head_layer(network: nn.Module, path: str, norm: str, heads: int, names: AttentionNames) -> PrunableLayer:
    """The heads of one attention: rows of its projections, columns of its output.

    Raises:
        ArchitectureError: a part is missing, or of another kind.
    """
    output = _linear(network, f"{path}.{names.output}")
    if output.in_features % heads:
        raise ArchitectureError(f"{path}: {output.in_features} channels are not those of {heads} heads")
    width = output.in_features // heads
    axes: list[Axis] = []
    outer = 1 if len(names.projections) == 3 else 3
    for name in names.projections:
        projection = _linear(network, f"{path}.{name}")
        if projection.out_features != outer * heads * width:
            raise ArchitectureError(f"{path}.{name}: grouped queries are not supported")
        kinds = ["weight"] if projection.bias is None else ["weight", "bias"]
        axes += [Axis(f"{path}.{name}.{kind}", 0, outer, width) for kind in kinds]
    filters = tuple(axis for axis in axes if axis.tensor.endswith(".weight"))
    gate = Axis(f"{path}.{names.output}.weight", 1, 1, width)
    counters = [Counter(path, name) for name in names.counters] + [Counter(path, name, width) for name in names.widths]
    branch = Branch(path, _bias(output, names.output), norm, names.as_tuple)
    probe = Probe(f"{path}.{names.output}", -1, width, at_input=True)
    return PrunableLayer(path, heads, (*axes, gate), probe, (gate,), filters, tuple(counters), branch=branch)


def node_layer(network: nn.Module, path: str, norm: str | None = None) -> PrunableLayer:
    """Return the hidden nodes of one MLP: rows of its first linear layer ``fc1``, columns of its second ``fc2``.

    Args:
        path: of the MLP in the network.
        norm: path of the norm before the MLP, if both together are a branch of the residual stream, which then may lose
            all of its nodes; None if the branch computes something else, too.

    Raises:
        ArchitectureError: a part is missing, or of another kind.
    """
    first, second = _linear(network, f"{path}.fc1"), _linear(network, f"{path}.fc2")
    if first.out_features != second.in_features:
        raise ArchitectureError(f"{path}: gated MLPs are not supported")
    rows = [Axis(f"{path}.fc1.{kind}", 0) for kind in (["weight"] if first.bias is None else ["weight", "bias"])]
    gate = Axis(f"{path}.fc2.weight", 1)
    probe = Probe(f"{path}.fc2", -1, at_input=True)
    branch = None if norm is None else Branch(path, _bias(second, "fc2"), norm)
    return PrunableLayer(path, first.out_features, (*rows, gate), probe, (gate,), (rows[0],), branch=branch)


def check_parts(path: str, module: nn.Module, allowed: tuple[str, ...], own: tuple[str, ...] = ()) -> None:
    """Refuse, by name, a part of an attention or MLP whose effect on removed units is not known.

    Args:
        allowed: names of parts that may be anything but an active module of a kind of its own.
        own: names of parts that were looked at already.

    Raises:
        ArchitectureError: the first such part.
    """
    for name, part in module.named_children():
        if name in own or isinstance(part, (nn.Identity, nn.Dropout)):
            continue
        if name not in allowed:
            raise ArchitectureError(f"{type(part).__name__} at {path}.{name} is not supported")


def _linear(network: nn.Module, path: str) -> nn.Linear:
    try:
        found = network.get_submodule(path)
    except AttributeError as error:
        raise ArchitectureError(
            f"{path} is missing: this version of its library is not supported, upgrade it"
        ) from error
    if not isinstance(found, nn.Linear):
        raise ArchitectureError(f"{type(found).__name__} at {path} is not supported")
    return found


def _bias(linear: nn.Linear, name: str) -> str | None:
    return None if linear.bias is None else f"{name}.bias"
