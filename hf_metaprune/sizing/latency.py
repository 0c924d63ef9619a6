"""The latency of sub-networks of given sizes on this device: estimated from a table, or measured."""

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
from .cost_model import task_cost_model
from .inputs import AdaptInputs
from .order import Counts, Sizing
from .timing import WARM_UPS, latency_ms

RATIOS = (0.0, 0.3, 0.6, 0.8, 0.9, 1.0)
"""Ratios of the sub-networks that the table is made from."""
REST = "(rest)"  # no path of a module
"""Where the table holds what no module with parameters accounts for."""
REPEATS = 7
"""Number of passes over which a module's median time is taken."""


class LatencyTable:
    """A table of module times, from which the latency of any sub-network is estimated.

    The table holds the time of each module with parameters in a few sub-networks. The time of a module of another size
    is interpolated by the number of its parameters. The rest of a whole pass is interpolated likewise, by the number of
    all parameters. The estimate is the sum; `measure` makes a sub-network and times it as a whole.

    Args:
        inputs: the base, the images and the device.
        sizing: how a ratio becomes the sizes of layers.
        measure_ms: times a model on pixels, in milliseconds.
        ratios: ratios of the sub-networks to make the table from.
    """

    def __init__(
        self,
        inputs: AdaptInputs,
        sizing: Sizing,
        measure_ms: Callable[[nn.Module, torch.Tensor], float] = latency_ms,
        ratios: Sequence[float] = RATIOS,
    ) -> None:
        self.inputs, self.sizing, self._measure_ms = inputs, sizing, measure_ms
        images = inputs.images
        self.pixels = images.preprocessing.normalize(images.images[:1]).to(inputs.device)
        self._costs = task_cost_model(inputs)
        self.points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.measured_ms: dict[tuple[int, ...], float] = {}
        for ratio in ratios:
            self._add(sizing.counts(ratio))

    def __call__(self, counts: Counts) -> float:
        """Return the estimated time of a sub-network for one image, in milliseconds."""
        sizes = self._costs.module_sizes(counts)
        rest_ms = self._interpolate(REST, sum(sizes.values()))
        return rest_ms + sum(self._interpolate(path, size) for path, size in sizes.items())

    def measure(self, counts: Counts) -> float:
        """Return the measured time of a sub-network for one image, in milliseconds; each is measured once."""
        key = tuple(counts.values())
        if key not in self.measured_ms:
            self.measured_ms[key] = self._measure_ms(self._make_model(counts), self.pixels)
        return self.measured_ms[key]

    def check_reachable(self, bound: float) -> None:
        """Check that the smallest sub-network is within a bound.

        Args:
            bound: milliseconds per image.

        Raises:
            OptionError: the smallest one takes longer; the message says how long.
        """
        smallest_ms = self.measure(self.sizing.counts(1.0))
        if smallest_ms > bound:
            raise OptionError(
                f"max_latency_ms={bound:g}: the smallest sub-network of this base takes {smallest_ms:.2f} ms on this "
                f"machine{self.sizing.limits_text}"
            )

    def _make_model(self, counts: Counts) -> MetaPrunedForImageClassification:
        """Return a sub-network on the device."""
        base = self.inputs.base
        config = base.config(self.sizing.order.mask(counts), self.inputs.task.labels)
        return base.slice(config).to(device=self.inputs.device, memory_format=torch.channels_last).eval()

    def _add(self, counts: Counts) -> None:
        """Add a sub-network's times to the table."""
        sizes, whole_ms = self._costs.module_sizes(counts), self.measure(counts)
        parts_ms = _module_ms(self._make_model(counts), list(sizes), self.pixels)
        for path, size in sizes.items():
            self.points[path][size].append(parts_ms[path])
        self.points[REST][sum(sizes.values())].append(whole_ms - sum(parts_ms.values()))

    def _interpolate(self, path: str, size: int) -> float:
        points = self.points[path]
        table_sizes = sorted(points)
        return float(np.interp(size, table_sizes, [statistics.median(points[n]) for n in table_sizes]))


@torch.inference_mode()
def _module_ms(model: MetaPrunedForImageClassification, paths: Sequence[str], pixels: torch.Tensor) -> dict[str, float]:
    """Return the median milliseconds of modules in a forward pass, by their paths; 0 if a module has submodules."""
    times: dict[str, list[float]] = {path: [] for path in paths}
    starts: dict[str, float] = {}

    def now() -> float:
        if pixels.is_cuda:
            torch.cuda.synchronize(pixels.device)
        return time.perf_counter()

    def before(path: str) -> Any:
        return lambda *_: starts.__setitem__(path, now())

    def after(path: str) -> Any:
        return lambda *_: times[path].append(1000 * (now() - starts[path]))

    handles = []
    for path in times:
        module = model.network.get_submodule(path)
        if any(module.children()):  # such as a transformer, which has the class token itself
            continue
        handles += [module.register_forward_pre_hook(before(path)), module.register_forward_hook(after(path))]
    for _ in range(WARM_UPS + REPEATS):
        model(pixels)
    for handle in handles:
        handle.remove()
    return {path: statistics.median(ms[WARM_UPS:]) if ms[WARM_UPS:] else 0.0 for path, ms in times.items()}
