"""How much each unit matters, measured while a model runs: activations and first-order Taylor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..models.architectures.architecture import Axis, PrunableLayer
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import ScatterBatchNorm2d


class ActivationRecorder:
    """Mean absolute activation of every held unit over all images that pass while recording (Molchanov 2016).

    Use as a context manager around forward passes; `scores` gives float64 arrays by layer, in the order of held
    units. A unit that writes into the residual stream is measured before the addition.
    """

    def __init__(self, model: MetaPrunedForImageClassification) -> None:
        self.model = model
        self.sums: dict[str, torch.Tensor] = {}
        self.images: dict[str, int] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> ActivationRecorder:
        for layer in held_layers(self.model):
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
        def record(module: nn.Module, seen: torch.Tensor) -> None:
            values = seen.detach().abs().movedim(layer.probe.dim, 1).unflatten(1, (-1, layer.probe.inner))
            means = values.mean(dim=tuple(range(2, values.ndim)), dtype=torch.float32).sum(0)
            if isinstance(module, ScatterBatchNorm2d) and len(means) > len(module.kept):
                means = means[module.index]
            self.sums[layer.name] = self.sums.get(layer.name, 0) + means
            self.images[layer.name] = self.images.get(layer.name, 0) + seen.shape[0]

        return record

    def scores(self) -> dict[str, torch.Tensor]:
        """Mean activation by layer, float32 (held units,), on the CPU."""
        return {name: (total / self.images[name]).cpu() for name, total in self.sums.items()}


class TaylorRecorder:
    """Squared first-order effect on the loss of removing each held unit, averaged over backward passes.

    The gates of a unit (its batch norm's weight and bias; its columns of what reads it) scale its output, so that
    weight * gradient, summed over them, is the derivative of the loss by a gate on the whole unit (Molchanov et al.,
    2019, Section 3).
    """

    def __init__(self, model: MetaPrunedForImageClassification) -> None:
        self.model = model
        self.squares: dict[str, torch.Tensor] = {}
        self.passes = 0
        self._effects: dict[str, torch.Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> TaylorRecorder:
        for layer in held_layers(self.model):
            for gate in layer.gates:
                parameter = self.model.network.get_parameter(gate.tensor)
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._hook(layer, gate)))
        self._handles.append(self.model.register_forward_pre_hook(lambda *_: self._close()))
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

    def _close(self) -> None:
        """Square what one backward pass has summed."""
        if self._effects:
            self.passes += 1
            for name, effect in self._effects.items():
                self.squares[name] = self.squares.get(name, 0) + effect.square()
            self._effects = {}

    def scores(self) -> dict[str, torch.Tensor]:
        """Mean squared effect by layer, float32 (held units,), on the CPU."""
        self._close()
        return {name: (total / self.passes).cpu() for name, total in self.squares.items()}


def held_layers(model: MetaPrunedForImageClassification) -> list[PrunableLayer]:
    """The layers of which the model holds any unit."""
    mask = model.mask()
    return [layer for layer in model.layers if len(mask[layer.name])]


def magnitude_scores(network: nn.Module, layers: Sequence[PrunableLayer]) -> dict[str, torch.Tensor]:
    """L1 norm of the weights that compute each unit (Li et al., 2017): float32 (units,) by layer."""
    return {
        layer.name: sum(
            (axis.by_unit(network.get_parameter(axis.tensor).detach().float().abs()) for axis in layer.filters),
            torch.zeros(()),
        )
        for layer in layers
    }
