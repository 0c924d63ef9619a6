"""The weights that a training ends with: averages over its steps, and of its end and its start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class FinalWeights:
    """The weights that a model would have if its training ended now.

    They are ``(1 - start_share) * now + start_share * start``, where *start* are the weights before the training
    (Wortsman et al., 2022, "Robust fine-tuning of zero-shot models", Section 3), and *now* those of the last step, or
    with `ema` their exponential moving average. Buffers stay as they are: batch norm statistics are moving averages
    already, and averaged indices of kept channels would be rounded to other channels.

    Args:
        model: the model, before its training.
        ema: decay of the moving average of the weights, in [0, 1); 0: no average.
        start_share: share of the weights from before the training, in [0, 1].

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> final = FinalWeights(model, start_share=0.5)
        >>> _ = nn.init.ones_(model.weight)
        >>> with final.applied():
        ...     print(model.weight.tolist())
        [[0.5, 0.5]]
        >>> model.weight.tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, model: nn.Module, ema: float = 0.0, start_share: float = 0.0) -> None:
        self.model, self.start_share = model, start_share
        self.start = self._copy() if start_share else None
        self.average = self._copy() if ema else None
        self._update = get_ema_multi_avg_fn(ema)

    def _copy(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.model.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's weights after a step into the moving average."""
        if self.average is not None:
            self._update(self.average, [parameter.detach() for parameter in self.model.parameters()], 1)

    @torch.no_grad()
    def apply(self) -> None:
        """Give the model these weights for good."""
        parameters = list(self.model.parameters())
        for parameter, value in zip(parameters, self.average or [], strict=False):
            parameter.copy_(value)
        for parameter, value in zip(parameters, self.start or [], strict=False):
            parameter.lerp_(value, self.start_share)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model these weights inside the block."""
        saved = self._copy() if self.average is not None or self.start is not None else []
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.model.parameters(), saved, strict=False):
                    parameter.copy_(value)
