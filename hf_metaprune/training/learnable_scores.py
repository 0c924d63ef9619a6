"""Learnable scores: numbers that multiply the units' outputs while a network is trained (AHNP, AMP)."""

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
from ..models.slicing import replace_data
from .importance import layers_with_units


class LearnableScores:
    """One learnable score per unit of a model, which multiplies the unit's output and is trained with the weights.

    The model itself stays as it is: each forward pass uses its gate parameters times the scores.

    Args:
        model: the model to train.
        lr: the scores' learning rate.
        l1: weight of the L1 loss: see `penalty`.
    """

    def __init__(self, model: MetaPrunedForImageClassification, lr: float, l1: float) -> None:
        self.model, self.lr, self.l1 = model, lr, l1
        mask = model.mask()
        self.sizes = mask.sizes
        self.finished_layers: frozenset[str] = frozenset()  # the units of these layers stay: no loss on their scores
        device = next(model.parameters()).device
        self.scores = {
            layer.name: nn.Parameter(torch.ones(len(mask[layer.name]), device=device))
            for layer in layers_with_units(model)
        }

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The scores of each layer, in the order of the network: float32 (kept units,)."""
        return list(self.scores.values())

    def __call__(self, pixel_values: torch.Tensor) -> Any:
        """Return the model's output with each unit multiplied by its score."""
        return functional_call(self.model, self._scaled_parameters(), (pixel_values,))

    def _scaled_parameters(self) -> dict[str, torch.Tensor]:
        scaled_parameters = {}
        for layer in self.model.layers:
            if layer.name in self.scores:
                for gate in layer.gates:
                    parameter = self.model.network.get_parameter(gate.tensor)
                    spread = gate.spread(self.scores[layer.name], parameter.ndim)
                    scaled_parameters[f"network.{gate.tensor}"] = parameter * spread.to(parameter)
        return scaled_parameters

    def penalty(self) -> torch.Tensor:
        """Return the L1 loss: `l1` times the mean absolute score of a layer, averaged over the layers.

        Pruned units count as 0 in the mean of their layer, and layers in `finished_layers` count as 0.

        Returns:
            float32 ().
        """
        means = [
            s.abs().sum() / self.sizes[name] for name, s in self.scores.items() if name not in self.finished_layers
        ]
        return self.l1 * torch.stack(means).sum() / len(self.sizes) if means else torch.zeros(())

    def values(self) -> dict[str, torch.Tensor]:
        """Return the absolute scores: float32 (kept units,) by layer, on the CPU."""
        return {name: score.detach().abs().float().cpu() for name, score in self.scores.items()}

    def shrink(self, current: Mask, target: Mask, optimizer: torch.optim.Optimizer) -> None:
        """Remove the scores of pruned units, and the optimizer's state for them.

        Args:
            current: the mask before pruning.
            target: the mask after pruning.
            optimizer: the optimizer that trains the scores.
        """
        positions = target.positions_in(current)
        for name, score in self.scores.items():
            index = torch.as_tensor(positions[name], device=score.device)
            for key, value in optimizer.state.get(score, {}).items():
                if torch.is_tensor(value) and value.shape == score.shape:
                    optimizer.state[score][key] = value[index].clone()
            replace_data(score, score.data[index].clone())

    @contextmanager
    def temporarily_folded(self) -> Iterator[None]:
        """Multiply the scores into the model's weights for a block of code, to measure what training gives so far."""
        saved_values = {name: self.model.get_parameter(name).detach().clone() for name in self._scaled_parameters()}
        self.fold()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in saved_values.items():
                    self.model.get_parameter(name).copy_(value)

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the scores into the model's weights for good. This object cannot be used any more after that."""
        for name, scaled_parameter in self._scaled_parameters().items():
            self.model.get_parameter(name).copy_(scaled_parameter)


class ScoreHistory:
    """The history of all units' scores in one training, which begins with 1 for each unit.

    Args:
        sizes: units of each layer, by name.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self.last_scores = {name: np.ones(size, dtype=np.float32) for name, size in sizes.items()}
        self.sums = {name: np.ones(size, dtype=np.float64) for name, size in sizes.items()}
        self.n_records = dict.fromkeys(sizes, 1)

    def record(self, mask: Mask, values: dict[str, torch.Tensor]) -> None:
        """Record the current scores.

        Args:
            mask: the units that are kept now.
            values: float32 (kept units,) by layer, for the layers to record.
        """
        for name, scores in values.items():
            self.last_scores[name][mask[name]] = scores.numpy()
            self.sums[name][mask[name]] += scores.numpy()
            self.n_records[name] += 1

    def last(self) -> ScoreMask:
        """Return the score that each unit had when it was last recorded."""
        return ScoreMask(self.last_scores)

    def mean(self) -> ScoreMask:
        """Return each unit's mean over all records of its layer, in which the unit counts as 0 once it is pruned."""
        return ScoreMask({name: values / self.n_records[name] for name, values in self.sums.items()})
