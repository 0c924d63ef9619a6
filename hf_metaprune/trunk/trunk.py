"""`Trunk`: a sub-network of a base that holds all smaller ones, with one order of units and one set of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import OptionError
from ..masks.mask import Mask, keep_count
from ..models.architectures.layers import kept_indices, tensor_axes
from ..models.base_model import BaseModel
from ..models.configuration import MetaPrunedConfig
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import is_statistic, slice_state
from .decoder import Decoder


@dataclass(frozen=True)
class Trunk:
    """A nested sub-network of a base: the sub-network at a ratio is the first units of each layer, at any ratio.

    All sizes share their weights, as in slimmable networks (Yu et al., 2018, arXiv 1812.08928). Batch norm statistics
    depend on the size, so that each ratio of a grid has its own.

    Example:
        The sub-network of a bank's trunk that keeps a fifth of the units, and the base with the trunk in it::

            trunk = teach_bank(bank, data.train, TrunkOptions(steps=2, lr=0.01))
            model = trunk.slice(bank.base.config(trunk.mask(0.8), ["cat", "dog"]))
            bank.base.network.load_state_dict(trunk.whole_state(trunk.ratios[0]))
            print(trunk.largest_mask.n_kept, trunk.nearest_ratio(0.85))
            told = trunk.decoder(trunk.mask(0.8))(model.eval().features(pixels))  # the base's features
    """

    base: BaseModel
    """The base model."""
    order: Mapping[str, np.ndarray]
    """The order in which units stay: int64 (units,), a permutation, by layer."""
    weights: Mapping[str, torch.Tensor]
    """Tensors of the largest sub-network by their names in the base, without statistics and classifier: float32."""
    statistics: Mapping[float, Mapping[str, torch.Tensor]]
    """Batch norm statistics by the ratio of a sub-network, and by name; empty for networks without batch norms."""
    decoders: Mapping[float, Decoder] = field(default_factory=dict)
    """For each ratio with statistics the map of its features to those of the base."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How it was taught: JSON values by name."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratios with statistics of their own, the lowest first, which is that of the largest sub-network."""
        return tuple(sorted(self.statistics))

    @property
    def largest_mask(self) -> Mask:
        """The units that the trunk holds."""
        return self.mask(self.ratios[0])

    def mask(self, ratio: float) -> Mask:
        """Return the units of the sub-network at a ratio.

        Args:
            ratio: share of units to remove in every layer.

        Returns:
            The mask of the first units of each layer.

        Raises:
            OptionError: the ratio is below the lowest one of the trunk.
        """
        if self.statistics and ratio < self.ratios[0]:
            raise OptionError(f"ratio={ratio:g}: the trunk holds sub-networks of ratio {self.ratios[0]:g} and above")
        return Mask(
            {name: units[: keep_count(len(units), ratio)] for name, units in self.order.items()}, self.base.sizes
        )

    def nearest_ratio(self, ratio: float) -> float:
        """Return the ratio with statistics and a decoder of its own that is nearest to a ratio.

        Args:
            ratio: share of units to remove in every layer.

        Returns:
            One of `ratios`.
        """
        return min(self.ratios, key=lambda known_ratio: abs(known_ratio - ratio))

    def decoder(self, mask: Mask) -> Decoder:
        """Return the map of a sub-network's features to those of the base.

        Args:
            mask: the units of the sub-network.

        Returns:
            The decoder of the nearest ratio. Where features are units, that of the largest sub-network of the grid
            with no feature beyond those of `mask`, or else of the smallest one; features that it lacks count nothing.
        """
        classifier = f"{self.base.family.classifier_name(self.base.network)}.weight"
        axes = tensor_axes(self.base.layers).get(classifier)
        if not axes:
            return self.decoders[self.nearest_ratio(mask.ratio)]
        (kept,) = kept_indices(axes, mask).values()
        features = {ratio: next(iter(kept_indices(axes, self.mask(ratio)).values())) for ratio in self.ratios}
        fitting = [ratio for ratio in self.ratios if np.isin(features[ratio], kept).all()]
        ratio = fitting[0] if fitting else self.ratios[-1]
        decoder = self.decoders[ratio]
        weight = torch.zeros(len(decoder.bias), self.base.state[classifier].shape[1])
        weight[:, features[ratio]] = decoder.weight
        return Decoder(weight[:, kept], decoder.bias)

    def whole_state(self, ratio: float) -> dict[str, torch.Tensor]:
        """Return the tensors of the whole base with those of the trunk in their places.

        Args:
            ratio: the ratio whose statistics to take; between two ratios of the grid, those of the nearer one.

        Returns:
            New tensors in the base's shapes, by name. Units that the trunk does not hold have the base's values.
        """
        axes = tensor_axes(self.base.layers)
        state = {name: tensor.clone() for name, tensor in self.base.state.items()}

        def put(tensors: Mapping[str, torch.Tensor], mask: Mask) -> None:
            for name, tensor in tensors.items():
                places = [torch.arange(n) for n in state[name].shape]
                for dim, indices in kept_indices(axes.get(name, []), mask).items():
                    places[dim] = torch.as_tensor(indices)
                state[name][torch.meshgrid(*places, indexing="ij") if places else ...] = tensor

        put(self.weights, self.largest_mask)
        nearest = self.nearest_ratio(ratio)
        for known_ratio in self.ratios:  # smaller sub-networks last: they hold fewer units
            if known_ratio <= nearest:
                put(self.statistics[known_ratio], self.mask(known_ratio))
        return state

    def slice(self, config: MetaPrunedConfig) -> MetaPrunedForImageClassification:
        """Return the sub-network of ``config.masks`` with the trunk's weights and a new classifier.

        Args:
            config: config of the sub-network, see `BaseModel.config`. Its mask may keep any units; those that the trunk
                does not hold have the base's weights.

        Returns:
            The model, with tensors of its own in float32.

        Raises:
            FormatError: the masks do not fit the base.
        """
        model = MetaPrunedForImageClassification(config)
        mask = config.mask()
        classifier = f"{model.architecture.classifier_name(model.network)}."
        state = slice_state(self.whole_state(mask.ratio), model.layers, mask)
        model.network.load_state_dict({n: t for n, t in state.items() if not n.startswith(classifier)}, strict=False)
        return model


def trunk_tensors(
    base: BaseModel, mask: Mask
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return empty tensors in the shapes of a trunk's weights, statistics and decoder at a mask of its base.

    Args:
        base: the base model.
        mask: units of the base.

    Returns:
        Tensors on the meta device by name.
    """
    classifier = f"{base.family.classifier_name(base.network)}."
    whole = {name: tensor.to("meta") for name, tensor in base.state.items()}
    sliced = slice_state(whole, base.layers, mask)
    tensors = {n: t for n, t in sliced.items() if t.is_floating_point() and not n.startswith(classifier)}
    width, base_width = (state[f"{classifier}weight"].shape[1] for state in (sliced, whole))
    return (
        {name: tensor for name, tensor in tensors.items() if not is_statistic(name)},
        {name: tensor for name, tensor in tensors.items() if is_statistic(name)},
        {
            "weight": torch.empty(base_width, width, device="meta"),
            "bias": torch.empty(base_width, device="meta"),
        },
    )
