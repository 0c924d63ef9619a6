"""Learnable scores: a number multiplied to every unit of a network while it is trained (AHNP, AMP)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from ..masks.mask import Mask
from ..masks.scores import ScoreMask
from ..models.modeling import MetaPrunedForImageClassification
from .importance import held_layers


class LearnableScores:
    """A score for every unit that a model holds, multiplied to the unit's output, and learnt with the weights.

    The model itself stays as it is: each forward pass takes its gate parameters times the scores. `penalty` is the L1
    loss: `l1` times the mean absolute score of each layer's units in the base, those that are gone counted as 0, and
    averaged over the layers. A layer of `settled` adds nothing: what it holds is to stay.
    """

    def __init__(self, model: MetaPrunedForImageClassification, lr: float, l1: float) -> None:
        self.model, self.lr, self.l1 = model, lr, l1
        mask = model.mask()
        self.sizes = mask.sizes
        self.settled: frozenset[str] = frozenset()
        device = next(model.parameters()).device
        self.scores = {
            layer.name: nn.Parameter(torch.ones(len(mask[layer.name]), device=device)) for layer in held_layers(model)
        }

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The scores, by layer in the order of the network: float32 (held units,)."""
        return list(self.scores.values())

    def __call__(self, pixel_values: torch.Tensor) -> Any:
        """The model's output with each unit times its score."""
        return functional_call(self.model, self._scaled(), (pixel_values,))

    def _scaled(self) -> dict[str, torch.Tensor]:
        scaled = {}
        for layer in self.model.layers:
            if layer.name in self.scores:
                for gate in layer.gates:
                    parameter = self.model.network.get_parameter(gate.tensor)
                    spread = gate.spread(self.scores[layer.name], parameter.ndim)
                    scaled[f"network.{gate.tensor}"] = parameter * spread.to(parameter)
        return scaled

    def penalty(self) -> torch.Tensor:
        """The L1 loss of the scores."""
        means = [s.abs().sum() / self.sizes[name] for name, s in self.scores.items() if name not in self.settled]
        return self.l1 * torch.stack(means).sum() / len(self.sizes) if means else torch.zeros(())

    def values(self) -> dict[str, torch.Tensor]:
        """Absolute scores by layer: float32 (held units,), on the CPU."""
        return {name: score.detach().abs().float().cpu() for name, score in self.scores.items()}

    def shrink(self, current: Mask, target: Mask, optimizer: torch.optim.Optimizer) -> None:
        """Forget the scores of units that are gone, the optimizer's state of them included."""
        positions = target.positions_in(current)
        for name, score in self.scores.items():
            index = torch.as_tensor(positions[name], device=score.device)
            for key, value in optimizer.state.get(score, {}).items():
                if torch.is_tensor(value) and value.shape == score.shape:
                    optimizer.state[score][key] = value[index].clone()
            score.data = score.data[index].clone()
            score.grad = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The scores multiplied into the model's weights inside the block: what it is, were it done now."""
        saved = {name: self.model.get_parameter(name).detach().clone() for name in self._scaled()}
        self.fold()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in saved.items():
                    self.model.get_parameter(name).copy_(value)

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the scores into the model's weights for good; nothing else is to be done with them then."""
        for name, scaled in self._scaled().items():
            self.model.get_parameter(name).copy_(scaled)


class ScoreKeeper:
    """What scores were in a training, step by step; 1 at first."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.found = {name: np.ones(size, dtype=np.float32) for name, size in sizes.items()}
        self.sums = {name: np.ones(size, dtype=np.float64) for name, size in sizes.items()}
        self.times = dict.fromkeys(sizes, 1)

    def note(self, mask: Mask, values: dict[str, torch.Tensor]) -> None:
        """Take down the scores of the units that are held now, in the layers of `values`."""
        for name, scores in values.items():
            self.found[name][mask[name]] = scores.numpy()
            self.sums[name][mask[name]] += scores.numpy()
            self.times[name] += 1

    def last(self) -> ScoreMask:
        """Each unit at the value it had when it was last noted."""
        return ScoreMask(self.found)

    def mean(self) -> ScoreMask:
        """Each unit's mean over all times that its layer was noted, 0 where the unit was not there."""
        return ScoreMask({name: values / self.times[name] for name, values in self.sums.items()})
