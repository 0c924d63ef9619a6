"""How long sub-networks of given sizes take on this device: guessed by a table, and measured."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import OptionError
from ..models.modeling import MetaPrunedForImageClassification
from .inputs import AdaptInputs
from .order import Counts, Sizing
from .timing import WARM_UPS, latency_ms

RATIOS = (0.0, 0.3, 0.6, 0.8, 0.9, 1.0)
REPEATS = 7


class LatencyTable:
    """Milliseconds of one image: each module's time by its size, from sub-networks of a few ratios, added up.

    Modules that hold parameters are timed one by one, at the widths that the ratios give them; between these the time
    is interpolated by the number of their parameters. What is left of a whole pass is interpolated likewise, by all
    parameters. `measure` makes a sub-network and times it as a whole.
    """

    def __init__(
        self,
        inputs: AdaptInputs,
        sizing: Sizing,
        measured: Callable[[nn.Module, torch.Tensor], float] = latency_ms,
        ratios: Sequence[float] = RATIOS,
    ) -> None:
        self.inputs, self.sizing, self.measured = inputs, sizing, measured
        images = inputs.images
        self.pixels = images.preprocessing.normalize(images.images[:1]).to(inputs.device)
        self.points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.found: dict[tuple[int, ...], float] = {}
        for ratio in ratios:
            self._fit(sizing.counts(ratio))

    def __call__(self, counts: Counts) -> float:
        """What the table says of a sub-network."""
        sizes = _sizes(self._model(counts, empty=True))
        return sum(self._guess(name, size) for name, size in sizes.items())

    def measure(self, counts: Counts) -> float:
        """The median time of the sub-network itself, made and timed once."""
        key = tuple(counts.values())
        if key not in self.found:
            self.found[key] = self.measured(self._model(counts), self.pixels)
        return self.found[key]

    def check_reachable(self, bound: float) -> None:
        """Refuse a bound below the smallest sub-network's time.

        Raises:
            OptionError: says what that takes here.
        """
        least = self.measure(self.sizing.counts(1.0))
        if least > bound:
            raise OptionError(
                f"max_latency_ms={bound:g}: the smallest sub-network of this base takes {least:.2f} ms on this machine"
                f"{self.sizing.limits}"
            )

    def _model(self, counts: Counts, empty: bool = False) -> MetaPrunedForImageClassification:
        base = self.inputs.base
        config = base.config(self.sizing.order.mask(counts), self.inputs.task.labels)
        if empty:
            with torch.device("meta"):
                return MetaPrunedForImageClassification(config)
        return base.slice(config).to(device=self.inputs.device, memory_format=torch.channels_last).eval()

    def _fit(self, counts: Counts) -> None:
        """Add a sub-network's times to the table."""
        model = self._model(counts)
        sizes, whole, parts = _sizes(model), self.measure(counts), _module_ms(model, self.pixels)
        for name, size in sizes.items():
            self.points[name][size].append(parts[name] if name else whole - sum(parts.values()))

    def _guess(self, name: str, size: int) -> float:
        points = self.points[name]
        known = sorted(points)
        return float(np.interp(size, known, [statistics.median(points[n]) for n in known]))


def _sizes(model: nn.Module) -> dict[str, int]:
    """Parameters of each module that holds some itself, by its path; under "" those of all."""
    own = {
        path: sum(p.numel() for p in module.parameters(recurse=False))
        for path, module in model.named_modules()
        if path and next(module.parameters(recurse=False), None) is not None
    }
    return own | {"": sum(own.values())}


@torch.inference_mode()
def _module_ms(model: nn.Module, pixels: torch.Tensor) -> dict[str, float]:
    """Median milliseconds that each module with parameters takes in a forward pass, those in it left out."""
    times: dict[str, list[float]] = {path: [] for path in _sizes(model) if path}
    began: dict[str, float] = {}

    def now() -> float:
        if pixels.is_cuda:
            torch.cuda.synchronize(pixels.device)
        return time.perf_counter()

    def before(path: str) -> Any:
        return lambda *_: began.__setitem__(path, now())

    def after(path: str) -> Any:
        return lambda *_: times[path].append(1000 * (now() - began[path]))

    handles = []
    for path in times:
        module = model.get_submodule(path)
        if any(module.children()):  # a whole network that holds a token or a position itself
            continue
        handles += [module.register_forward_pre_hook(before(path)), module.register_forward_hook(after(path))]
    for _ in range(WARM_UPS + REPEATS):
        model(pixels)
    for handle in handles:
        handle.remove()
    return {path: statistics.median(found[WARM_UPS:]) if found[WARM_UPS:] else 0.0 for path, found in times.items()}
