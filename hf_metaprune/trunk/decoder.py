"""Decoders: affine maps of a sub-network's features to those of its base, whose channels it has only some of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

PENALTY = 1e-3
"""The ridge penalty, as a share of the features' mean variance; it holds channels that are never active at 0."""


@dataclass(frozen=True)
class Decoder:
    """An affine map of the features of a sub-network to those of its base.

    Example:
        >>> features = torch.eye(3)
        >>> decoder = fit_decoder(features, 2 * features)
        >>> decoder(features).round().tolist()
        [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
        >>> layer = decoder.layer()  # which can be trained
        >>> Decoder.of(layer).weight.equal(decoder.weight)
        True
    """

    weight: torch.Tensor
    """float32 (features of the base, features of the sub-network)."""
    bias: torch.Tensor
    """float32 (features of the base,)."""

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return the base's features as the sub-network's features tell them.

        Args:
            features: float (images, features of the sub-network).

        Returns:
            (images, features of the base), of the same dtype.
        """
        return features @ self.weight.to(features).T + self.bias.to(features)

    @classmethod
    def of(cls, layer: nn.Linear) -> Decoder:
        """Return the map of a layer that was trained, see `layer`.

        Args:
            layer: the layer.

        Returns:
            A copy, on the CPU.
        """
        return cls(layer.weight.detach().cpu(), layer.bias.detach().cpu())

    def layer(self) -> nn.Linear:
        """Return the map as a layer of its own, which can be trained.

        Returns:
            The layer, in float32.
        """
        layer = nn.Linear(self.weight.shape[1], self.weight.shape[0])
        layer.load_state_dict({"weight": self.weight, "bias": self.bias})
        return layer


def fit_decoder(features: torch.Tensor, base_features: torch.Tensor) -> Decoder:
    """Return the affine map with the least squared error, by ridge regression.

    Args:
        features: features of the sub-network for some images: float (images, features of the sub-network).
        base_features: features of the base for the same images: float (images, features of the base).
    """
    x, y = features.double(), base_features.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    products = x.T @ x
    penalty = PENALTY * products.diagonal().mean().clamp(min=1e-12)
    weight = torch.linalg.solve(products + penalty * torch.eye(len(products), dtype=x.dtype), x.T @ y).T
    return Decoder(weight.float(), (y_mean - weight @ x_mean).float())
