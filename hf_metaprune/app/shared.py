"""What all visitors of a page share: its bank, what its models cost, the examples, and who is here.

The page is there before the bank is: torch and transformers take most of a start, and nobody needs them in order to
read, or to choose photos. So the modules of the page import them where they are used.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import reason
from .limits import UploadLimits
from .visitor import Visitor, Visitors
from .waiting_line import WaitingLine

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import gradio as gr

    from ..bank.reader import BankReader
    from ..models.base_model import BaseModel
    from ..pruner import MetaPruner
    from ..sizing.cost_model import CostModel
    from .speeds import Speeds
    from .uploads import Photos

MOST_WAITING = 30
"""Visitors in the line; each takes a thread of the server."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Of every event: the page is for people."""
AS_FILE: dict[str, Any] = {"type": "filepath", "image_mode": None}
"""Of every picture that comes: as the file that came, to be read within our limits, and deleted."""

Update = dict[Any, Any]
"""What becomes of some components."""


def within_limits(slider: gr.Slider) -> gr.Slider:
    """The slider, whose number may be typed, too: one that is out of its range, or missing, is taken as the nearest."""
    low, high, usual = slider.minimum, slider.maximum, slider.value

    def taken(payload: float | None) -> float:
        return min(max(usual if payload is None else payload, low), high)

    slider.preprocess = taken  # type: ignore[method-assign]
    return slider


@dataclass(frozen=True)
class Opened:
    """A bank that is open."""

    pruner: MetaPruner
    speeds: Speeds
    whole: tuple[int, int]
    """Parameters of the base, and MACs of an image."""

    def cost(self, ratio: float, labels: int) -> tuple[int, int]:
        """Parameters, and MACs of an image, of a model of so many classes that lacks a share of each layer."""
        from ..masks.mask import keep_count

        costs = _costs(self.base, labels)
        counts = {name: keep_count(size, ratio) for name, size in self.base.sizes.items()}
        return costs.params(counts), costs.macs(counts)

    @property
    def bank(self) -> BankReader:
        return self.pruner.bank

    @property
    def base(self) -> BaseModel:
        return self.bank.base

    @property
    def ratio(self) -> float:
        """The share of units that its models lack."""
        return self.bank.default_ratio or 0.9


class SharedState:
    """A bank with its visitors; `open` opens the bank in the background, and `opened` waits for it."""

    def __init__(self, bank: str | Path, examples: str | Path | None, limits: UploadLimits | None = None) -> None:
        self.where = bank
        self.limits = limits or UploadLimits()
        self.visitors = Visitors(self._no_photos)
        self.examples = _examples(examples)
        self.waiting_line = WaitingLine(MOST_WAITING)
        self._opening: Future[Opened] = Future()
        self._lock = threading.Lock()
        self._asked = False

    def open(self) -> None:
        """Begin to open the bank, once."""
        with self._lock:
            if not self._asked:
                self._asked = True
                threading.Thread(target=self._open, daemon=True).start()

    @property
    def opened(self) -> Opened:
        """The bank, when it is open.

        Raises:
            MetaPruneError: it cannot be opened.
        """
        self.open()
        return self._opening.result()

    def example_classes(self) -> list[tuple[str, str]]:
        """The example tasks with the classes that they have, in words."""
        return [(name, ", ".join(_labels(folder))) for name, folder in self.examples.items()]

    def visitor(self, request: gr.Request) -> Visitor:
        """Who asks."""
        return self.visitors.get(request.session_hash or "")

    def _open(self) -> None:
        try:
            self._opening.set_result(_opened(self.where))
        except BaseException as error:
            self._opening.set_exception(error)

    def _no_photos(self) -> Photos:
        from .uploads import Photos

        return Photos(self.opened.base.preprocessing, self.limits)


def _opened(where: str | Path) -> Opened:
    from ..pruner import MetaPruner
    from .speeds import Speeds

    pruner = MetaPruner.from_hub(where)
    base = pruner.bank.base
    costs = _costs(base, 1)
    return Opened(pruner, Speeds(base), (costs.params(base.sizes), costs.macs(base.sizes)))


def _costs(base: BaseModel, labels: int) -> CostModel:
    import torch

    from ..masks.mask import Mask
    from ..sizing.cost_model import get_cost_model

    config = base.config(Mask.full(base.sizes), [str(i) for i in range(labels)])
    return get_cost_model(config, torch.empty(1, *base.preprocessing.input_size))


def _labels(folder: Path) -> list[str]:
    """The classes of an example, from its folders or its Parquet file; none if they are told otherwise."""
    file = folder / "train.parquet"
    try:
        found = _stored_labels(file) if file.exists() else _folders(folder)
    except (OSError, ValueError, LookupError, TypeError) as error:  # no Parquet, or labels without names
        log.warning("the classes of %s are not shown: %s", folder, reason(error))
        return []
    return sorted(name.replace("_", " ") for name in found)


def _folders(folder: Path) -> list[str]:
    """The names of the folders, unless they are splits."""
    from ..data.sources import EVALUATION_NAMES, TRAIN_NAMES

    found = [path.name for path in folder.iterdir() if path.is_dir()]
    return [] if {name.lower() for name in found} & {*TRAIN_NAMES, *EVALUATION_NAMES} else found


def _stored_labels(file: Path) -> list[str]:
    """The names that `datasets` wrote for the labels that there are."""
    import json

    import pyarrow.parquet as pq

    column = pq.read_table(file, columns=["label"])
    told = json.loads(column.schema.metadata[b"huggingface"])
    names = told["info"]["features"]["label"]["names"]
    return [names[i] for i in set(column["label"].to_pylist())]


def _examples(folder: str | Path | None) -> dict[str, Path]:
    """The example tasks in a folder, by a name that people read."""
    if folder is None:
        return {}
    found = sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    return {path.name.replace("_", " "): path for path in found}
