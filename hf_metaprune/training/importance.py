"""Importance of units: mean activations and first-order Taylor effects, measured while a model runs, and magnitudes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..models.architectures.layers import Axis, PrunableLayer
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import ScatterBatchNorm2d


class ActivationRecorder:
    """Recorder of the mean absolute activation of every unit that a model has (Molchanov et al., 2016).

    It is a context manager for the forward passes to record; `scores` gives the means over all images of these passes.
    A unit that writes into the residual stream is measured before the addition.

    Args:
        model: the model to observe.

    Example:
        With a model and its preprocessed pixels::

            with ActivationRecorder(model) as recorder:
                model(pixels)
            recorder.scores()["layer1.0.conv1"]
    """

    def __init__(self, model: MetaPrunedForImageClassification) -> None:
        self.model = model
        self.sums: dict[str, torch.Tensor] = {}
        self.images: dict[str, int] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> ActivationRecorder:
        for layer in layers_with_units(self.model):
            module = self.model.network.get_submodule(layer.probe.module)
            if layer.probe.at_input:
                hook = self._record(layer)
                self._handles.append(module.register_forward_pre_hook(lambda m, args, hook=hook: hook(m, args[0])))
            else:
                hook = self._record(layer)
                self._handles.append(module.register_forward_hook(lambda m, _args, out, hook=hook: hook(m, out)))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _record(self, layer: PrunableLayer) -> Callable[[nn.Module, torch.Tensor], None]:
        def record(module: nn.Module, activations: torch.Tensor) -> None:
            values = activations.detach().abs().movedim(layer.probe.dim, 1).unflatten(1, (-1, layer.probe.inner))
            means = values.mean(dim=tuple(range(2, values.ndim)), dtype=torch.float32).sum(0)
            # This batch norm puts its channels at their places in the full stream: take only those that it has.
            if isinstance(module, ScatterBatchNorm2d) and len(means) > len(module.kept):
                means = means[module.index]
            self.sums[layer.name] = self.sums.get(layer.name, 0) + means
            self.images[layer.name] = self.images.get(layer.name, 0) + activations.shape[0]

        return record

    def scores(self) -> dict[str, torch.Tensor]:
        """Return the mean activation of each unit: float32 (kept units,) by layer, on the CPU."""
        return {name: (total / self.images[name]).cpu() for name, total in self.sums.items()}


class TaylorRecorder:
    """Recorder of the squared first-order effect on the loss of removing each unit, averaged over backward passes.

    The gates of a unit scale its output: the weight and bias of its batch norm, or the columns of the layer that reads
    it. The sum of weight * gradient over the gates is therefore the derivative of the loss by a gate on the whole unit
    (Molchanov et al., 2019, Section 3). The recorder is a context manager for the training steps to record.

    Args:
        model: the model to observe.
    """

    def __init__(self, model: MetaPrunedForImageClassification) -> None:
        self.model = model
        self.squares: dict[str, torch.Tensor] = {}
        self.passes = 0
        self._effects: dict[str, torch.Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> TaylorRecorder:
        for layer in layers_with_units(self.model):
            for gate in layer.gates:
                parameter = self.model.network.get_parameter(gate.tensor)
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._hook(layer, gate)))
        first = self.model.network.get_submodule(layers_with_units(self.model)[0].probe.module)
        self._handles.append(first.register_forward_pre_hook(lambda *_: self._square_effects()))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, layer: PrunableLayer, gate: Axis) -> Callable[[torch.Tensor], None]:
        def record(parameter: torch.Tensor) -> None:
            effect = gate.by_unit((parameter.detach() * parameter.grad).float())  # type: ignore[operator]
            self._effects[layer.name] = self._effects.get(layer.name, 0) + effect

        return record

    def _square_effects(self) -> None:
        """Add the squares of the effects that the last backward pass has summed."""
        if self._effects:
            self.passes += 1
            for name, effect in self._effects.items():
                self.squares[name] = self.squares.get(name, 0) + effect.square()
            self._effects = {}

    def scores(self) -> dict[str, torch.Tensor]:
        """Return the mean squared effect of each unit: float32 (kept units,) by layer, on the CPU."""
        self._square_effects()
        return {name: (total / self.passes).cpu() for name, total in self.squares.items()}


def layers_with_units(model: MetaPrunedForImageClassification) -> list[PrunableLayer]:
    """Return the prunable layers that have a unit left in the model."""
    mask = model.mask()
    return [layer for layer in model.layers if len(mask[layer.name])]


def magnitude_scores(network: nn.Module, layers: Sequence[PrunableLayer]) -> dict[str, torch.Tensor]:
    """Return the L1 norm of the weights that compute each unit (Li et al., 2017).

    Args:
        network: the network.
        layers: its prunable layers.

    Returns:
        float32 (units,) by layer.
    """
    return {
        layer.name: sum(
            (axis.by_unit(network.get_parameter(axis.tensor).detach().float().abs()) for axis in layer.filters),
            torch.zeros(()),
        )
        for layer in layers
    }
