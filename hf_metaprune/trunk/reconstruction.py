"""The first weights of a trunk: what read units that are gone is fitted to those that stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..data.images import ImageSet
from ..masks.mask import Mask
from ..models.architectures.layers import kept_indices, tensor_axes
from ..models.base_model import BaseModel
from ..models.modeling import MetaPrunedForImageClassification
from ..training.importance import ActivationRecorder

IMAGES, BATCH, ROWS_PER_IMAGE = 512, 32, 40
"""Images that are looked at, as many at a time, and the places of each at which a convolution is fitted."""
PENALTY = 1e-3
"""The ridge penalty on the distance from the base's weights, as a share of the inputs' mean square."""


def contribution_order(base: BaseModel, images: ImageSet, device: torch.device, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the order of units by what those that read them would lose, the most important first.

    A unit's score is the share of its readers' variance that it brings by itself: the variance of its activation, times
    its squared weights in units of the variance of each output. Units that nothing reads, because they are added to the
    stream, are ordered by their mean absolute activation.

    Args:
        base: the base model.
        images: the images; at most `IMAGES` are drawn.
        device: where to compute.
        seed: seed of the draw.

    Returns:
        int64 (units,), a permutation, by layer.
    """
    model = base.whole(["a", "b"]).to(device=device, memory_format=torch.channels_last).eval()
    readers = _readers(model)
    inputs, outputs = ({name: _Moments() for name in readers} for _ in range(2))
    with ActivationRecorder(model) as recorder, ExitStack() as hooks:
        for name in readers:
            hooks.enter_context(_watched(model.network.get_submodule(name), (inputs[name], outputs[name])))
        for pixels in _batches(images, device, seed):
            with torch.inference_mode():
                model.features(pixels)
        scores = recorder.scores()
    axes = tensor_axes(model.layers)
    read_scores: dict[str, torch.Tensor] = {}
    for name in readers:
        weight = model.network.get_parameter(f"{name}.weight").detach().double().cpu()
        shares = weight.square().flatten(2).sum(2) if weight.ndim > 2 else weight.square()
        shares = (shares / outputs[name].variance()[:, None].clamp(min=1e-12)).sum(0) * inputs[name].variance()
        for axis, layer in axes[f"{name}.weight"]:
            if axis.dim == 1:
                score = shares.view(axis.outer, -1, axis.inner).sum((0, 2))
                read_scores[layer.name] = read_scores.get(layer.name, 0) + score
    return {
        layer: np.argsort(-(read_scores.get(layer, score)).numpy(), kind="stable") for layer, score in scores.items()
    }


def reconstruct(
    base: BaseModel, mask: Mask, images: ImageSet, device: torch.device, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return the weights of a sub-network whose readers of units do what the base's do as well as they can.

    One after the other, each convolution or linear layer that reads units is fitted by ridge regression: from what
    stays of its input in the sub-network so far, to what the base's gives. It is known from channel pruning (He et al.,
    2017, arXiv 1707.06168).

    Args:
        base: the base model.
        mask: the units that stay.
        images: the images; at most `IMAGES` are drawn.
        device: where to compute.
        seed: seed of the draw.

    Returns:
        The sub-network's tensors by name, on `device`, without the classifier.
    """
    models = [base.whole(["a", "b"]), base.slice(base.config(mask, ["a", "b"]))]
    whole, small = (m.to(device=device, memory_format=torch.channels_last).eval() for m in models)
    axes = tensor_axes(base.layers)
    batches = list(_batches(images, device, seed))
    for name in _readers(small):
        kept = kept_indices(axes[f"{name}.weight"], mask).get(0)
        _fit(name, whole, small, batches, None if kept is None else torch.as_tensor(kept, device=device), seed)
    classifier = f"{base.family.classifier_name(base.network)}."
    return {name: tensor for name, tensor in small.network.state_dict().items() if not name.startswith(classifier)}


def _fit(
    name: str,
    whole: MetaPrunedForImageClassification,
    small: MetaPrunedForImageClassification,
    batches: list[torch.Tensor],
    kept: torch.Tensor | None,
    seed: int,
) -> None:
    """Fit one module of a sub-network to that of the base, in place; `kept` are its outputs that stay."""
    module: Any = small.network.get_submodule(name)
    weight = module.weight.detach().double().flatten(1)
    has_bias = module.bias is not None
    products: Any = 0.0
    targets: Any = 0.0
    for number, pixels in enumerate(batches):
        generator = torch.Generator().manual_seed(seed + number)
        values, wanted = _Last(), _Last()
        with torch.inference_mode():
            with _watched(module, (values, None)):
                small.features(pixels)
            with _watched(whole.network.get_submodule(name), (None, wanted)):
                whole.features(pixels)
        x, y = _rows(module, values.tensor, wanted.tensor, generator)
        y = y if kept is None else y[:, kept]
        x, y = x.double(), y.double()
        if has_bias:
            x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        products, targets = products + x.T @ x, targets + x.T @ y
    start = torch.cat([weight, module.bias.detach().double()[:, None]], 1) if has_bias else weight
    penalty = PENALTY * products.diagonal().mean().clamp(min=1e-12)
    products = products + penalty * torch.eye(len(products), dtype=products.dtype, device=products.device)
    fitted = torch.linalg.solve(products, targets + penalty * start.T).T
    with torch.no_grad():
        module.weight.copy_(fitted[:, : weight.shape[1]].view_as(module.weight))
        if has_bias:
            module.bias.copy_(fitted[:, -1])


def _readers(model: MetaPrunedForImageClassification) -> list[str]:
    """Return the paths of the modules that read units, in forward order; not the classifier."""
    classifier = model.architecture.classifier_name(model.network)
    tensors = {axis.tensor for layer in model.layers for axis in layer.axes if axis.dim == 1}
    paths = {tensor.removesuffix(".weight") for tensor in tensors if tensor.endswith(".weight")} - {classifier}
    return [path for path, module in model.network.named_modules() if path in paths and _is_linear(module)]


def _is_linear(module: nn.Module) -> bool:
    """Return whether `_rows` knows what a module reads: other classes of convolutions may pad in other ways."""
    is_plain = type(module) in (nn.Conv2d, nn.Linear) and getattr(module, "padding_mode", "zeros") == "zeros"
    return is_plain or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def _batches(images: ImageSet, device: torch.device, seed: int) -> Iterator[torch.Tensor]:
    """Yield preprocessed images, at most `IMAGES`."""
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    for some in rows.split(BATCH):
        pixels = images.preprocessing.normalize(images.images[some].to(device))
        yield pixels.contiguous(memory_format=torch.channels_last)


def _rows(
    module: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a module reads and gives at some places: (rows, weights of an output), (rows, outputs)."""
    if isinstance(module, nn.Conv2d):
        x = F.unfold(_padded(module, x), module.kernel_size, module.dilation, 0, module.stride).transpose(1, 2)
        y = y.flatten(2).transpose(1, 2)
    else:
        x, y = (tensor.reshape(len(tensor), -1, tensor.shape[-1]) for tensor in (x, y))
    places = torch.randperm(x.shape[1], generator=generator)[:ROWS_PER_IMAGE].to(x.device)
    return x[:, places].flatten(0, 1), y[:, places].flatten(0, 1)


def _padded(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return the input of a convolution with its padding."""
    if isinstance(conv.padding, str):  # "same" of a stride of 1
        sides = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return F.pad(x, (sides[1] // 2, sides[1] - sides[1] // 2, sides[0] // 2, sides[0] - sides[0] // 2))
    return F.pad(x, (conv.padding[1], conv.padding[1], conv.padding[0], conv.padding[0]))


class _Last:
    """Keeps the last tensor that it was given."""

    tensor: torch.Tensor

    def __call__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class _Moments:
    """Sums of channels, for their variances over all images and places."""

    def __init__(self) -> None:
        self.count, self.sums, self.squares = 0, torch.zeros(()), torch.zeros(())

    def __call__(self, tensor: torch.Tensor) -> None:
        rows = tensor.movedim(1 if tensor.ndim == 4 else -1, -1).flatten(0, -2).double()
        self.count += len(rows)
        self.sums, self.squares = self.sums + rows.sum(0).cpu(), self.squares + rows.square().sum(0).cpu()

    def variance(self) -> torch.Tensor:
        """Return the variance of each channel: float64 (channels,)."""
        return (self.squares / self.count - (self.sums / self.count).square()).clamp(min=0)


@contextmanager
def _watched(module: nn.Module, watchers: tuple[Any, Any]) -> Iterator[None]:
    """Give the input and the output of a module to two functions, while the context lasts."""

    def hook(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        for watcher, tensor in zip(watchers, (args[0], output), strict=True):
            if watcher is not None:
                watcher(tensor)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
