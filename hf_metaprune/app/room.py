"""What all visitors of a page share: its bank, what its models cost, the examples, and who is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import torch

from ..cost_model import cost_model_of
from ..masks import Mask
from ..pruner import MetaPruner
from ..uploads import UploadLimits
from .speeds import Speeds
from .turns import Turns
from .visitor import Visitor, Visitors

MOST_WAITING = 30
"""Visitors in the line; each takes a thread of the server."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Of every event: the page is for people."""

Update = dict[Any, Any]
"""What becomes of some components."""


class Room:
    """A bank with its visitors.

    Raises:
        MetaPruneError: the bank cannot be opened.
    """

    def __init__(self, bank: str | Path, examples: str | Path | None, limits: UploadLimits | None = None) -> None:
        self.pruner = MetaPruner.from_hub(bank)
        self.bank, self.base = self.pruner.bank, self.pruner.bank.base
        self.limits = limits or UploadLimits()
        self.visitors = Visitors(self.base.preprocessing, self.limits)
        self.examples = _examples(examples)
        self.ratio = self.bank.default_ratio or 0.9
        self.speeds, self.turns = Speeds(self.base), Turns(MOST_WAITING)
        costs = cost_model_of(
            self.base.config(Mask.full(self.base.sizes), ["any"]), torch.empty(1, *self.base.preprocessing.input_size)
        )
        self.whole = costs.params(self.base.sizes), costs.macs(self.base.sizes)
        """Parameters of the base, and MACs of an image."""

    def visitor(self, request: gr.Request) -> Visitor:
        """Who asks."""
        return self.visitors.get(request.session_hash or "")


def _examples(folder: str | Path | None) -> dict[str, Path]:
    """The example tasks in a folder, by a name that people read."""
    if folder is None:
        return {}
    found = sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    return {path.name.replace("_", " "): path for path in found}
