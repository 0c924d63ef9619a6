"""Teaching a trunk: the base teaches all sizes of a nested sub-network at once, on images that need no labels."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ..config import TrunkOptions
from ..data.images import ImageSet, augment, crop_at_random
from ..errors import DataError
from ..masks.mask import Mask, keep_count
from ..models.architectures.layers import tensor_axes
from ..models.base_model import BaseModel
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import is_statistic, slice_state
from ..training.feature_teacher import LOSS_SCALE, feature_distance
from ..training.forward import extract_features
from ..training.hardware import autocast
from ..training.statistics import recalibrate
from .decoder import Decoder, fit_decoder
from .reconstruction import contribution_order, reconstruct
from .trunk import Trunk

DECODER_IMAGES = 8192
"""Most images on which the decoders are fitted."""
WARMUP_STEPS, MOMENTUM = 100, 0.9
PEAK_RATES = {"sgd": 0.2, "adamw": 0.002}
"""Peak learning rates by optimizer."""
MAX_NORM = 10.0
"""Largest norm of the gradient; without a limit the first steps may destroy the base's weights."""


class _Features(nn.Module):
    """A model that computes features, because `functional_call` calls ``forward``."""

    def __init__(self, model: MetaPrunedForImageClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.features(pixels)


class _Stream:
    """The stream of a model after each stage, as its last forward pass left it: float, by the stage's path."""

    def __init__(self, model: MetaPrunedForImageClassification) -> None:
        self.after: dict[str, torch.Tensor] = {}
        for path in model.architecture.stages(model.network):
            model.network.get_submodule(path).register_forward_hook(partial(self._keep, path))

    def _keep(self, path: str, _module: nn.Module, _args: Any, output: Any) -> None:
        self.after[path] = output[0] if isinstance(output, tuple) else output

    def take(self) -> dict[str, torch.Tensor]:
        """Return the stream, and keep it no longer."""
        after, self.after = self.after, {}
        return after


class _Size:
    """One size of the nested network: an empty sub-network that borrows its weights from the largest one."""

    def __init__(self, base: BaseModel, mask: Mask, largest: Mask, device: torch.device) -> None:
        self.mask = mask
        self.model = base.slice(base.config(mask, ["a", "b"]))
        self.model.to(device=device, memory_format=torch.channels_last)
        self.module, self.stream = _Features(self.model), _Stream(self.model)
        relative = mask.positions_in(largest)
        axes, self.positions = tensor_axes(base.layers), dict[str, list[tuple[int, torch.Tensor]]]()
        for name in axes:
            self.positions[name] = [
                (axis.dim, torch.as_tensor(axis.indices(relative[layer.name], len(largest[layer.name])), device=device))
                for axis, layer in axes[name]
                if len(mask[layer.name]) < len(largest[layer.name])
            ]

    def parts(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return this size's part of the largest size's weights, by name; gradients flow back."""
        parts = dict(weights)
        for name, positions in self.positions.items():
            for dim, indices in positions if name in parts else ():
                parts[name] = parts[name].index_select(dim, indices)
        return parts

    def features(self, weights: Mapping[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of images, computed with this size's part of the largest size's weights."""
        parts = {f"model.network.{name}": tensor for name, tensor in self.parts(weights).items()}
        return functional_call(self.module, parts, (pixels,))


class Teaching:
    """One run of teaching, step by step; all that is random depends on the seed and the step alone.

    Args:
        base: the teacher.
        images: the images; their classes are not used.
        options: sizes, schedule and losses.
        device: where to compute.
        seed: seed of order, batches, augmentation and sizes.
    """

    def __init__(
        self, base: BaseModel, images: ImageSet, options: TrunkOptions, device: torch.device, seed: int = 0
    ) -> None:
        if len(images) < 2:
            raise DataError("a trunk needs at least two images to be taught on")
        self.base, self.images, self.options, self.device, self.seed = base, images, options, device, seed
        self.order = contribution_order(base, images, device, seed)
        masks = [_mask_at(self.order, ratio) for ratio in options.ratios]
        self.sizes = [_Size(base, mask, masks[0], device) for mask in masks]
        self.teacher = base.whole(["a", "b"]).to(device=device, memory_format=torch.channels_last).eval()
        self.stream = _Stream(self.teacher)
        largest = reconstruct(base, masks[0], images, device, seed)
        own = f"{base.family.classifier_name(base.network)}."
        self.weights = trainable(largest, device)
        width = base.family.classifier(base.network).in_features
        channels = {f"{own}weight": torch.eye(width)}
        self.decoders: dict[str, torch.Tensor] = {}
        for number, mask in enumerate(masks):  # the channels that a size has stand for those of the base at first
            (weight,) = slice_state(channels, base.layers, mask).values()
            tensors = {"weight": weight.clone(), "bias": torch.zeros(width)}
            self.decoders |= {f"decoder.{number}.{n}": t.to(device).requires_grad_() for n, t in tensors.items()}
        """For each size an affine map of its features to those of the base, of which most channels may be removed."""
        self._begin()

    def _begin(self) -> None:
        """Make the optimizer of the weights and the decoders."""
        self.parameters, options = self.weights | self.decoders, self.options
        matrices, vectors = ([t for t in self.parameters.values() if (t.ndim > 1) == big] for big in (True, False))
        groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = _make_optimizer(groups, options, self.base.family.recipe.optimizer)
        self.step_number, self.seconds = 0, 0.0
        self.orders: dict[int, np.ndarray] = {}

    def step(self) -> float:
        """Take one step, and return the loss of the smallest size, in units of the variance of the base's features."""
        start, options, step = time.perf_counter(), self.options, self.step_number
        (step_seed,) = np.random.SeedSequence([self.seed, step]).generate_state(1)
        generator = torch.Generator().manual_seed(int(step_seed))
        pixels = self._pixels(step, generator)
        with torch.no_grad(), autocast(self.device, options.precision):
            targets, hints = self.teacher.features(pixels).float(), self.stream.take()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * _rate(step, options.steps)
        self.optimizer.zero_grad()
        loss = math.nan
        for size in self._sizes_of_step(generator):
            size.model.train()
            with autocast(self.device, options.precision):
                features = size.features(self.weights, pixels).float()
            number = self.sizes.index(size)
            decoder = (self.decoders[f"decoder.{number}.{part}"] for part in ("weight", "bias"))
            features = F.linear(features, *decoder)
            distance, stream = feature_distance(features, targets), size.stream.take()
            total = distance
            if options.hint_weight:
                distances = [stream_distance(stream[path], hints[path]) for path in hints]
                total = distance + options.hint_weight * torch.stack(distances).mean()
            total.mul(LOSS_SCALE).backward()
            loss = distance.item()
        if not math.isfinite(loss):
            raise DataError(f"the loss is {loss} at step {step + 1}: use a smaller lr")
        nn.utils.clip_grad_norm_(self.parameters.values(), MAX_NORM)
        self.optimizer.step()
        self.step_number += 1
        self.seconds += time.perf_counter() - start
        return loss

    def _pixels(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """Return the images of a step, augmented: float32 (batch, 3, height, width)."""
        n, batch = len(self.images), min(self.options.batch_size, len(self.images))
        first = step * batch
        passes = range(first // n, (first + batch - 1) // n + 1)
        self.orders = {number: self._order(number) for number in passes}
        rows = np.concatenate(list(self.orders.values()))[first - passes[0] * n :][:batch]
        images, _ = self.images.__getitems__(rows)
        pixels = self.images.preprocessing.normalize(images.to(self.device))
        pixels = augment(crop_at_random(pixels, generator, self.options.smallest_crop), generator)
        if torch.rand((), generator=generator) < self.options.mixup:
            weights = torch.rand(len(pixels), 1, 1, 1, generator=generator).to(self.device)
            pixels = weights * pixels + (1 - weights) * pixels[torch.randperm(len(pixels), generator=generator)]
        return pixels.contiguous(memory_format=torch.channels_last)

    def _order(self, number: int) -> np.ndarray:
        """Return the order of the images in a pass over them, int64 (images,)."""
        is_known = number in self.orders
        return (
            self.orders[number]
            if is_known
            else np.random.default_rng([self.seed, number]).permutation(len(self.images))
        )

    def _sizes_of_step(self, generator: torch.Generator) -> list[_Size]:
        """Return the largest size, random ones between, and the smallest (the sandwich rule of Yu & Huang, 2019)."""
        middle = self.sizes[1:-1]
        chosen = torch.randperm(len(middle), generator=generator)[: self.options.random_sizes].tolist()
        return list(dict.fromkeys([self.sizes[0], *(middle[i] for i in chosen), self.sizes[-1]]))

    def trunk(self) -> Trunk:
        """Return the trunk as it is now, with statistics and a decoder of its own for each ratio.

        The decoders are fitted again in closed form, because those of the training have seen other statistics.
        """
        weights = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        statistics: dict[float, dict[str, torch.Tensor]] = {}
        rows = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.seed))[:DECODER_IMAGES]
        sample, decoders = self.images.subset(rows), dict[float, Decoder]()
        base_features = extract_features(self.teacher, sample, self.device, self.options.precision)
        for ratio, size in zip(self.options.ratios, self.sizes, strict=True):
            size.model.network.load_state_dict(size.parts(weights), strict=False)
            recalibrate(size.model, self.images, self.device, seed=self.seed)
            buffers = size.model.network.state_dict()
            statistics[ratio] = {name: buffers[name].detach().cpu().clone() for name in buffers if is_statistic(name)}
            features = extract_features(size.model, sample, self.device, self.options.precision)
            decoders[ratio] = fit_decoder(features, base_features)
        options = dataclasses.asdict(self.options) | {"ratios": list(self.options.ratios)}
        facts = {
            "options": options, "seed": self.seed, "images": len(self.images),
            "steps": self.step_number, "seconds": round(self.seconds, 1),
        }  # fmt: skip
        return Trunk(self.base, self.order, {n: t.cpu() for n, t in weights.items()}, statistics, decoders, facts)


def stream_distance(stream: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared distance of two streams in units of the target's variance.

    Args:
        stream: float (batch, ...).
        target: float, of the same shape.
    """
    target = target.float()
    return (stream.float() - target).square().mean() / target.var(correction=0).clamp(min=1e-12)


def trainable(state: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Return copies of a network's weights that can be trained, which its statistics cannot."""
    return {
        name: tensor.detach().clone().to(device).requires_grad_()
        for name, tensor in state.items()
        if tensor.is_floating_point() and not is_statistic(name)
    }


def _make_optimizer(groups: list[dict[str, Any]], options: TrunkOptions, name: str) -> torch.optim.Optimizer:
    """Return the optimizer of a family, whose groups remember their peak rate."""
    peak = PEAK_RATES[name] if options.lr is None else options.lr
    for group in groups:
        group["peak"] = peak
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=peak)
    return torch.optim.SGD(groups, lr=peak, momentum=MOMENTUM, nesterov=True)


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a warm-up, then half a cosine."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _mask_at(order: Mapping[str, np.ndarray], ratio: float) -> Mask:
    sizes = {name: len(units) for name, units in order.items()}
    return Mask({name: units[: keep_count(len(units), ratio)] for name, units in order.items()}, sizes)
