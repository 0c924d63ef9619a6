"""State that all visitors of a page share: the bank, the costs of its models, the examples, and the visitors.

The page is served before the bank is open. Most of the start is the import of torch and transformers, and a visitor who
reads or chooses photos needs neither. So the modules of the page import them inside functions.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradio.utils import get_upload_folder

from ..errors import reason
from .arrivals import Arrivals
from .limits import ArrivalLimits, UploadLimits
from .visitor import Visitor, Visitors
from .waiting_line import WaitingLine

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import gradio as gr

    from ..bank.reader import BankReader
    from ..models.base_model import BaseModel
    from ..pruner import MetaPruner
    from ..sizing.cost_model import CostModel
    from .latencies import Latencies
    from .uploads import Photos

MAX_WAITING = 30
"""Most visitors in the waiting line; each takes a thread of the server."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Arguments of every event: the page is for people, and has no public API."""
AS_FILE: dict[str, Any] = {"type": "filepath", "image_mode": None}
"""Arguments of every image component: the file stays as it was sent; we read it within our limits, and delete it."""
Update = dict[Any, Any]
"""New values or ``gr.update`` of some components, by component."""


@dataclass(frozen=True)
class OpenedBank:
    """A bank that is open, with what its models cost."""

    pruner: MetaPruner
    """The pruner that makes models from the bank."""
    latencies: Latencies
    """Milliseconds per image of the bank's models."""
    base_cost: tuple[int, int]
    """Parameters of the base, and its MACs per image."""

    def cost(self, ratio: float, n_classes: int) -> tuple[int, int]:
        """Return the parameters, and the MACs per image, of a model at a ratio for a number of classes."""
        from ..masks.mask import keep_count

        cost_model = _cost_model(self.base, n_classes)
        counts = {name: keep_count(size, ratio) for name, size in self.base.sizes.items()}
        return cost_model.params(counts), cost_model.macs(counts)

    @property
    def reader(self) -> BankReader:
        """The bank itself."""
        return self.pruner.bank

    @property
    def base(self) -> BaseModel:
        """The base model of the bank."""
        return self.reader.base

    @property
    def ratio(self) -> float:
        """The ratio of the bank's own models."""
        return self.reader.default_ratio or 0.9


class SharedState:
    """The state that all visitors of a page share.

    Args:
        bank: a folder, or an id on the Hub.
        examples: a folder of example tasks.
        limits: limits of what one visitor may send.
        arrival_limits: limits of one request, and of what the server holds.
    """

    def __init__(
        self,
        bank: str | Path,
        examples: str | Path | None,
        limits: UploadLimits | None = None,
        arrival_limits: ArrivalLimits | None = None,
    ) -> None:
        self.bank_location = bank
        self.limits = limits or UploadLimits()
        self.visitors = Visitors(
            self._make_photos,
            delete=lambda path: self.arrivals.delete(path),
            arrived_at=lambda path: self.arrivals.arrived_at(path),
        )
        self.arrival_limits = arrival_limits or ArrivalLimits()
        self.arrivals = Arrivals(Path(get_upload_folder()), self.arrival_limits, self.visitors.are_using)
        self.examples = _find_examples(examples)
        self.waiting_line = WaitingLine(MAX_WAITING)
        self._opening: Future[OpenedBank] = Future()
        self._lock = threading.Lock()
        self._has_started = False

    def start_opening(self) -> None:
        """Start to open the bank in the background; later calls do nothing."""
        with self._lock:
            if not self._has_started:
                self._has_started = True
                threading.Thread(target=self._open, daemon=True).start()

    def sweep_regularly(self, ended: threading.Event) -> None:
        """Forget idle visitors, and delete files that nobody uses, in a thread of its own until an event."""

        def run() -> None:
            while not ended.wait(self.arrival_limits.unused_seconds / 5):
                try:
                    self.visitors.forget_idle()
                    self.arrivals.sweep()
                except OSError as error:
                    log.warning("uploads could not be swept: %s", error)

        threading.Thread(target=run, daemon=True, name="sweep").start()

    @property
    def opened_bank(self) -> OpenedBank:
        """The bank; the first access opens it, and every access waits until it is open.

        Raises:
            MetaPruneError: the bank cannot be opened.
        """
        self.start_opening()
        return self._opening.result()

    def example_classes(self) -> list[tuple[str, str]]:
        """Return the name of each example task, and its classes as text."""
        return [(name, ", ".join(_example_labels(folder))) for name, folder in self.examples.items()]

    def visitor(self, request: gr.Request) -> Visitor:
        """Return the visitor who has sent a request."""
        return self.visitors.get(request.session_hash or "")

    def _open(self) -> None:
        try:
            self._opening.set_result(_open_bank(self.bank_location))
        except BaseException as error:
            self._opening.set_exception(error)

    def _make_photos(self) -> Photos:
        from .uploads import Photos

        max_bytes = self.arrival_limits.pixel_bytes
        return Photos(self.opened_bank.base.preprocessing, self.limits, lambda: self.visitors.pixel_bytes >= max_bytes)


def _open_bank(location: str | Path) -> OpenedBank:
    from ..pruner import MetaPruner
    from .latencies import Latencies

    pruner = MetaPruner.from_hub(location)
    base = pruner.bank.base
    cost_model = _cost_model(base, 1)
    return OpenedBank(pruner, Latencies(base), (cost_model.params(base.sizes), cost_model.macs(base.sizes)))


def _cost_model(base: BaseModel, n_classes: int) -> CostModel:
    import torch

    from ..masks.mask import Mask
    from ..sizing.cost_model import get_cost_model

    config = base.config(Mask.full(base.sizes), [str(i) for i in range(n_classes)])
    return get_cost_model(config, torch.empty(1, *base.preprocessing.input_size))


def _example_labels(folder: Path) -> list[str]:
    """Return the classes of an example from its Parquet file or its folders; none if neither names them."""
    file = folder / "train.parquet"
    try:
        labels = _stored_labels(file) if file.exists() else _class_folders(folder)
    except (OSError, ValueError, LookupError, TypeError) as error:  # no Parquet, or labels without names
        log.warning("the classes of the example %s are not shown: %s", folder, reason(error))
        return []
    return sorted(label.replace("_", " ") for label in labels)


def _class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in an example; none if they are splits."""
    from ..data.folders import SPLIT_NAMES

    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return [] if {name.lower() for name in names} & SPLIT_NAMES else names


def _stored_labels(file: Path) -> list[str]:
    """Return the class names that `datasets` wrote into a Parquet file, as far as images have them."""
    import json

    import pyarrow.parquet as pq

    column = pq.read_table(file, columns=["label"])
    metadata = json.loads(column.schema.metadata[b"huggingface"])
    names = metadata["info"]["features"]["label"]["names"]
    return [names[i] for i in set(column["label"].to_pylist())]


def _find_examples(folder: str | Path | None) -> dict[str, Path]:
    """Return the folders of the example tasks by a readable name."""
    if folder is None:
        return {}
    folders = sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    return {path.name.replace("_", " "): path for path in folders}
