"""What a sub-network of given sizes costs, without making it, and the largest that a budget allows."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .errors import OptionError
from .models.architecture import Branch, PrunableLayer, tensor_axes
from .models.modeling import MetaPrunedForImageClassification
from .sizes import Counts, Sizing

STEPS = 40  # of the bisection of a ratio


@dataclass(frozen=True)
class Budget:
    """Upper bounds of what a sub-network may cost; None: no bound."""

    max_params: int | None = None
    max_macs: int | None = None
    max_latency_ms: float | None = None

    def __bool__(self) -> bool:
        return any(bound is not None for bound in (self.max_params, self.max_macs, self.max_latency_ms))


class CostModel:
    """Parameters and MACs of every sub-network of a base, from its own: exact, without making one.

    Parameters follow from the shapes. A convolution or linear layer has as many MACs as its weight has entries, times
    the places where it is applied; what attention computes between tokens is so much a head. All of that is read off
    one forward pass of the whole network.
    """

    def __init__(self, whole: MetaPrunedForImageClassification, image: torch.Tensor) -> None:
        self.layers: list[PrunableLayer] = whole.layers
        self.axes = tensor_axes(self.layers)
        network = whole.network
        self.shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
        self._places, self._heads, self._fixed = _measure(whole, image)

    def shape(self, tensor: str, counts: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of a parameter in a sub-network; without entries if it is gone."""
        if any(b.removes(tensor) for b in self._gone(counts)):
            return (0,)
        shape = list(self.shapes[tensor])
        for axis, layer in self.axes.get(tensor, []):
            shape[axis.dim] = counts[layer.name] * axis.outer * axis.inner
        return tuple(shape)

    def _gone(self, counts: Mapping[str, int]) -> list[Branch]:
        return [layer.branch for layer in self.layers if layer.branch is not None and not counts[layer.name]]

    def params(self, counts: Mapping[str, int]) -> int:
        """Trainable numbers."""
        return sum(math.prod(self.shape(tensor, counts)) for tensor in self.shapes)

    def macs(self, counts: Mapping[str, int]) -> int:
        """MACs of one image."""
        weights = sum(places * math.prod(self.shape(tensor, counts)) for tensor, places in self._places.items())
        heads = sum(each * counts[name] for name, each in self._heads.items())
        return round(weights + heads + self._fixed)


def _measure(
    whole: MetaPrunedForImageClassification, image: torch.Tensor
) -> tuple[dict[str, float], dict[str, float], float]:
    """Places a weight is applied at, MACs a unit of attention, and other MACs."""
    with torch.device("meta"):
        shadow = MetaPrunedForImageClassification(whole.config).eval()
        pixels = torch.zeros(1, *image.shape[-3:])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(pixels)
    found = {name.partition(".")[2]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    total, prefix = counter.get_total_flops(), "network."
    owners = {path: m for path, m in shadow.network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    places = {}
    for path, module in owners.items():
        flops = found.get(prefix + path, 0)
        total -= flops
        places[f"{path}.weight"] = flops / 2 / module.weight.numel()
    heads: dict[str, float] = {}
    for layer in whole.layers:
        if layer.branch is None:
            continue
        path = prefix + layer.branch.module
        inner = sum(n for name, n in found.items() if name.startswith(f"{path}.") and name[len(prefix) :] in owners)
        own = found.get(path, 0) - inner
        heads[layer.name] = own / 2 / layer.size
        total -= own
    return places, heads, total / 2


def largest(
    sizing: Sizing, budget: Budget, costs: CostModel, latency: Callable[[Counts], float] | None = None
) -> Counts:
    """The sizes that a budget allows: those of the smallest ratio that fits, and then what else fits, unit by unit.

    Args:
        latency: milliseconds of a sub-network of given sizes, as the search is to see them.

    Raises:
        OptionError: not even the smallest sub-network is within the budget; the message says what it costs.
    """
    bounds: list[tuple[float, Callable[[Counts], float]]] = []
    smallest = sizing.counts(1.0)
    for name, unit, bound, cost in (
        ("max_params", "parameters", budget.max_params, costs.params),
        ("max_macs", "MACs", budget.max_macs, costs.macs),
    ):
        if bound is None:
            continue
        if (least := cost(smallest)) > bound:
            rounded = f", its widths rounded to {sizing.multiple}" if sizing.multiple > 1 else ""
            raise OptionError(f"{name}={bound:,}: the smallest sub-network of this base has {least:,} {unit}{rounded}")
        bounds.append((bound, cost))
    if budget.max_latency_ms is not None and latency is not None:  # a guess: whoever measures refuses
        bounds.append((budget.max_latency_ms, latency))

    def fits(counts: Counts) -> bool:
        return all(cost(counts) <= bound for bound, cost in bounds)

    low, high, best = 0.0, 1.0, smallest  # the ratio is too small, and large enough
    if fits(everything := sizing.counts(0.0)):
        return everything
    for _ in range(STEPS):
        middle = (low + high) / 2
        counts = sizing.counts(middle)
        if fits(counts):
            high, best = middle, counts
        else:
            low = middle
    return best if latency is not None else _filled(sizing, best, fits)


def _filled(sizing: Sizing, counts: Counts, fits: Callable[[Counts], bool]) -> Counts:
    """Give back units, one after the other, while they fit: at one ratio all layers of a size change at once.

    Next comes the layer that keeps the smallest share of its units, of equal ones that whose next unit scores highest;
    where the split is global, scores come first.
    """
    counts, waiting = dict(counts), list[tuple[float, float, str]]()

    def queue(name: str) -> None:
        kept, size = counts[name], len(sizing.order.units[name])
        if kept < size:
            score = sizing.order.scores[name][sizing.order.units[name][kept]]
            keys = (kept / size, -float(score))
            heapq.heappush(waiting, (*(keys[::-1] if sizing.split == "global" else keys), name))

    steps = {layer.name: sizing.step(layer) for layer in sizing.layers if layer.name not in sizing.exceptions}
    for name in steps:
        queue(name)
    while waiting:
        *_, name = heapq.heappop(waiting)
        more = counts | {name: min(len(sizing.order.units[name]), counts[name] + steps[name])}
        if fits(more):
            counts = more
            queue(name)
    return counts


def ratio_of(counts: Mapping[str, int], layers: list[PrunableLayer]) -> float:
    """The share of all units that is gone."""
    return 1.0 - sum(counts.values()) / max(1, sum(layer.size for layer in layers))
