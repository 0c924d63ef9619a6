"""Building a bank: one entry after the other, by any number of processes; a killed build goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..config import MethodOptions
from ..data.images import ImageSet
from ..data.task import Task, TaskData, pick_classes
from ..errors import LockedError, OptionError
from ..files.layout import BANK_FILE, BASE_FOLDER
from ..files.storage import check_writable, clear_unfinished, fsync_dir, new_folder, write_json
from ..hub.files import LocalFiles
from ..methods import PruningJob, get_method
from ..models.saving import check_dtype
from ..training.forward import accuracy
from ..training.hardware import pick_device
from .bank import Bank
from .entry import Entry
from .folders import new_path
from .repair import recover
from .sketch import IMAGES, Sketcher

FIRST_OPTIONS = {"prune_every": 25, "prune_share": 0.1, "lr": 0.005, "momentum": 0.9}
"""Options that count in every entry's id, with what counts for a method that has no such option."""
ALWAYS_COUNTED = frozenset({"ratio", "steps", "batch_size", "precision", *FIRST_OPTIONS})
"""Options that count in an entry's id with any value; the others count where they differ from their defaults."""


def entry_id(task: Task, method: str, options: MethodOptions, seed: int) -> str:
    """A readable id from the labels, made unique by a digest of labels, method, options and seed.

    The images are not in it: other images of the same labels belong in another bank.
    """
    text = "-".join(re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") for label in task.labels)
    chosen = FIRST_OPTIONS | {
        f.name: getattr(options, f.name)
        for f in fields(options)
        if f.name in ALWAYS_COUNTED or getattr(options, f.name) != f.default
    }
    key = repr((task.labels, method, sorted(chosen.items()), seed))
    return f"{text[:80].strip('-') or 'task'}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def task_seed(seed: int, name: str) -> int:
    """The seed of one task of a build: the same whoever builds it, and in whatever order."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big") >> 1


@dataclass
class _Build:
    """What all entries of a build have in common."""

    bank: Bank
    data: TaskData
    tasks: Sequence[Sequence[int]]
    method: str
    options: MethodOptions
    seed: int
    dtype: str
    device: torch.device
    progress: bool

    @cached_property
    def sketcher(self) -> Sketcher:
        """Fits sketches on images of the classes that tasks have, and of no other."""
        known, labels = sorted({c for classes in self.tasks for c in classes}), self.data.task.labels
        few = self.data.train.stratified(IMAGES * len(labels) // len(known), self.seed)
        return Sketcher(self.bank.base, pick_classes(few, known), self.device)

    def prune(self, data: TaskData, seed: int) -> tuple[Any, dict[str, Any]]:
        """Prune the bank's base for one task: the model, and what was measured."""
        task, options = data.task, self.options
        job = PruningJob(
            self.bank.base, data.train, task.labels, options, self.device, seed, task.synsets, progress=self.progress
        )
        model, result = get_method(self.method).prune(job)
        model.config.dataset, model.config.seed = data.source, seed
        metrics = {
            "accuracy": round(accuracy(model, data.evaluation, self.device), 4),
            "test_images": len(data.evaluation),
            "train_images": len(data.train),
            "steps": options.steps,
            "training_flops": result.flops,
            "seconds": round(result.seconds, 2),
        }
        return model, metrics

    def need(self) -> int:
        """Bytes that an entry probably takes: as many as the largest so far, or at most those of the base."""
        return max((entry.size for entry in self.bank if entry.repo_id is None), default=self.bank.base_bytes)

    def make(self, classes: Sequence[int], wait: bool) -> Entry | None:
        """The entry of a task, unless it is there, or another process is at it (and `wait` is not set)."""
        bank, task = self.bank, self.data.task
        chosen = Task(tuple(task.labels[c] for c in classes), tuple(task.synsets[c] for c in classes))
        name = entry_id(chosen, self.method, self.options, self.seed)
        if name in bank:
            return None
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(bank.lock(name, timeout=-1 if wait else 0))
            except LockedError:
                return None
            bank.reload()
            if name in bank:
                return None
            folder = bank.root / new_path(name, len(bank))
            clear_unfinished(folder)
            check_writable(folder, overwrite=True, need=self.need())
            model, metrics = self.prune(self.data.select(classes), task_seed(self.seed, name))
            return bank.add(model, name, dtype=self.dtype, metrics=metrics, sketch=self.sketcher(model))


def entry_ids(task: Task, tasks: Sequence[Sequence[int]], method: str, options: MethodOptions, seed: int) -> list[str]:
    """The ids of the entries of `tasks`, each some class numbers of `task`."""
    return [entry_id(Task(tuple(task.labels[c] for c in classes)), method, options, seed) for classes in tasks]


def build_bank(
    bank: Bank,
    data: TaskData,
    tasks: Sequence[Sequence[int]],
    *,
    method: str = "ifp",
    options: MethodOptions | None = None,
    seed: int = 0,
    dtype: str = "float16",
    device: torch.device | None = None,
    progress: bool = False,
) -> Iterator[Entry]:
    """Make an entry for every task (class numbers of `data`) that the bank lacks; yields each new one.

    Several processes may build into one folder: each takes tasks that no other one holds. Nothing that is finished
    is lost or made again when a process is killed.

    Raises:
        BaseMismatchError, StorageError, OptionError: before any training.
    """
    kind = get_method(method).options
    options = options or kind()
    if not isinstance(options, kind):
        raise OptionError(f"method {method!r} takes {kind.__name__}, not {type(options).__name__}")
    check_dtype(dtype)
    build = _Build(bank, data, tasks, method, options, seed, dtype, device or pick_device(), progress)
    if recovered := recover(bank):
        _add_sketches(bank, [bank[i] for i in recovered], build.sketcher)
    for wait in (False, True):  # at last wait for other processes: what one leaves undone when it dies is made here
        for classes in tasks:
            entry = build.make(classes, wait)
            if entry is not None:
                yield entry


def sketch_bank(
    bank: Bank, images: ImageSet, *, device: torch.device | None = None, progress: bool = False
) -> list[str]:
    """Make the sketches of entries that have none; their ids.

    Args:
        images: of as many classes like those of the bank as there are; see `Sketcher`.

    Raises:
        FormatError: an entry is damaged. StorageError: the folder cannot be written.
    """
    todo = [entry for entry in bank if entry.sketch is None]
    if todo:
        _add_sketches(bank, todo, Sketcher(bank.base, images, device or pick_device()), progress)
    return sorted(entry.id for entry in todo)


def _add_sketches(bank: Bank, entries: Sequence[Entry], sketcher: Sketcher, progress: bool = False) -> None:
    made: dict[str, Entry | None] = {}
    for entry in tqdm(entries, desc="sketching", disable=not progress, leave=False):
        entry.verify()
        made[entry.id] = replace(entry, sketch=sketcher(entry.load_model()))
    bank.update_index(made, known_only=True)


def subset(bank: Bank, path: str | Path, ids: Sequence[str], name: str | None = None) -> Bank:
    """A copy of a bank with only some of its entries.

    Raises:
        BankError: an id is unknown. StorageError: `path` exists, or cannot be written.
    """
    root = Path(path).expanduser()
    chosen = {i: bank[i] for i in ids}
    with new_folder(root) as work:
        shutil.copytree(bank.base_folder, work / BASE_FOLDER)
        for entry in chosen.values():
            shutil.copytree(entry.folder, work / entry.path)
        write_json(work / BANK_FILE, bank.meta | ({"name": name} if name else {}))
        Bank(LocalFiles(work), bank.meta).write_index(chosen)
        fsync_dir(work)
    return Bank.open(root)
