"""Building a bank: one entry after the other, by any number of processes; a killed build can be resumed."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..config import MethodOptions
from ..data.images import ImageSet
from ..data.task import Task, TaskData, pick_classes
from ..errors import BankError, LockedError, OptionError
from ..files.layout import BANK_FILE, BASE_FOLDER, TRUNK_FOLDER
from ..files.names import user_path
from ..files.storage import check_writable, clear_unfinished, fsync_dir, new_folder, write_json
from ..hub.files import LocalFiles
from ..methods import PruningJob, get_method
from ..models.class_means import ClassMeans
from ..models.saving import check_dtype
from ..training.forward import accuracy, extract_features
from ..training.hardware import pick_device
from .bank import Bank
from .entry import Entry
from .folders import copy_entry_files, new_path
from .repair import recover
from .sketch import REFERENCE_IMAGES, Sketcher

FIRST_OPTIONS = {"prune_every": 25, "prune_share": 0.1, "lr": 0.005, "momentum": 0.9}
"""Options that are part of every entry's id, with the values for methods that have no such option.

Ids of banks that were built before depend on these values.
"""
ALWAYS_COUNTED = frozenset({"ratio", "steps", "batch_size", "precision", *FIRST_OPTIONS})
"""Options that are part of an entry's id with any value; others are only if they differ from their defaults."""


def entry_id(task: Task, method: str, options: MethodOptions, seed: int) -> str:
    """Return a readable id: the labels, and a digest of labels, method, options and seed that makes it unique.

    The digest does not cover the images: other images of the same labels belong in another bank.
    """
    prefix = "-".join(re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") for label in task.labels)
    counted_options = FIRST_OPTIONS | {
        f.name: getattr(options, f.name)
        for f in fields(options)
        if f.name in ALWAYS_COUNTED or getattr(options, f.name) != f.default
    }
    key = repr((task.labels, method, sorted(counted_options.items()), seed))
    return f"{prefix[:80].strip('-') or 'task'}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def task_seed(seed: int, name: str) -> int:
    """Return the seed of one task of a build; it does not depend on the process or the order of the tasks."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big") >> 1


@dataclass
class _Build:
    """The data and the options that all entries of a build share."""

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
        """A sketcher with reference images of the classes that the tasks have, and of no others."""
        classes, labels = sorted({number for task in self.tasks for number in task}), self.data.task.labels
        reference_data = self.data.train.stratified(REFERENCE_IMAGES * len(labels) // len(classes), self.seed)
        return Sketcher(self.bank.base, pick_classes(reference_data, classes), self.device)

    @cached_property
    def class_means(self) -> ClassMeans:
        """The means of the base's features for each class of the data."""
        return base_class_means(self.bank, self.data, self.device)

    def prune(self, data: TaskData, seed: int) -> tuple[Any, dict[str, Any]]:
        """Prune the bank's base for one task; return the model and its metrics."""
        task, options, method = data.task, self.options, get_method(self.method)
        job = PruningJob(
            self.bank.base, data.train, task.labels, options, self.device, seed, task.synsets,
            trunk=self.bank.trunk if method.uses_trunk else None, progress=self.progress,
        )  # fmt: skip
        model, result = method.prune(job)
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

    def entry_bytes(self) -> int:
        """Estimate the bytes of one entry: those of the largest so far, or of the base if there is none."""
        return max((entry.size for entry in self.bank if entry.repo_id is None), default=self.bank.base_bytes)

    def build_entry(self, classes: Sequence[int], wait: bool) -> Entry | None:
        """Build the entry of a task; return None if it exists, or if another process builds it and `wait` is unset."""
        bank, task = self.bank, self.data.task
        entry_task = Task(
            tuple(task.labels[number] for number in classes), tuple(task.synsets[number] for number in classes)
        )
        new_id = entry_id(entry_task, self.method, self.options, self.seed)
        if new_id in bank:
            return None
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(bank.lock(new_id, timeout=-1 if wait else 0))
            except LockedError:
                return None
            bank.reload()
            if new_id in bank:
                return None
            folder = bank.root / new_path(new_id, len(bank))
            clear_unfinished(folder)
            check_writable(folder, overwrite=True, need=self.entry_bytes())
            model, metrics = self.prune(self.data.select(classes), task_seed(self.seed, new_id))
            means = self.class_means.select(classes).pack()
            return bank.add(
                model, new_id, dtype=self.dtype, metrics=metrics, sketch=self.sketcher(model), class_means=means
            )


def entry_ids(task: Task, tasks: Sequence[Sequence[int]], method: str, options: MethodOptions, seed: int) -> list[str]:
    """Return the ids of the entries that `build_bank` makes.

    Args:
        task: all classes of the data.
        tasks: class numbers of `task`, for each entry.
        method: name of the pruning method.
        options: its options.
        seed: seed of the build.
    """
    return [
        entry_id(Task(tuple(task.labels[number] for number in classes)), method, options, seed) for classes in tasks
    ]


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
    """Prune the bank's base for every task that the bank lacks.

    Several processes may build into one folder: each takes tasks that no other process works on. If a process is
    killed, finished entries stay, and the next build goes on with the others.

    Args:
        bank: a bank in a folder, see `Bank.create`.
        data: images and labels of all classes.
        tasks: class numbers of `data`, for each entry.
        method: name of the pruning method, such as ``ifp``.
        options: options of that method; if left out, its defaults.
        seed: seed of the build.
        dtype: how the weights are stored: ``float32``, ``float16`` or ``bfloat16``.
        device: where to train; if left out, the best device that this machine has.
        progress: show progress bars.

    Yields:
        Each new entry, once it is in the index.

    Raises:
        OptionError: the method or the dtype is unknown, or `options` belong to another method; before any training.
        BankError: the method begins with a trunk, and the bank has none.
        BaseMismatchError: the bank's base is not the one that ``bank.json`` names.
        StorageError: the folder cannot be written, or has too little space.

    Example:
        ::

            for entry in build_bank(bank, data, [(0, 1, 2), (2, 3, 4)]):
                print(entry.id, entry.metrics["accuracy"])
    """
    options_class = get_method(method).options
    options = options or options_class()
    if issubclass(options_class, type(options)):  # fewer options than the method has: the others are its defaults
        options = options_class(**asdict(options))
    if not isinstance(options, options_class):
        raise OptionError(f"method {method!r} takes {options_class.__name__}, not {type(options).__name__}")
    check_dtype(dtype)
    if get_method(method).uses_trunk and bank.trunk is None:
        raise BankError(f"method {method!r} needs the bank's trunk: make one with `hf-metaprune bank trunk`")
    build = _Build(bank, data, tasks, method, options, seed, dtype, device or pick_device(), progress)
    if recovered_ids := recover(bank):
        _add_sketches(bank, [bank[i] for i in recovered_ids], build.sketcher)
    for wait in (False, True):  # the second round waits for other processes, and builds what one left when it died
        for classes in tasks:
            entry = build.build_entry(classes, wait)
            if entry is not None:
                yield entry


def sketch_bank(
    bank: Bank, images: ImageSet, *, device: torch.device | None = None, progress: bool = False
) -> list[str]:
    """Make the sketches of the entries that have none.

    Args:
        bank: a bank in a folder.
        images: reference images; many classes that are like those of the bank give the best sketches, see `Sketcher`.
        device: where to compute; if left out, the best device that this machine has.
        progress: show a progress bar.

    Returns:
        The ids of the entries that got a sketch.

    Raises:
        FormatError: an entry is damaged.
        StorageError: the folder cannot be written.
    """
    entries = [entry for entry in bank if entry.sketch is None]
    if entries:
        _add_sketches(bank, entries, Sketcher(bank.base, images, device or pick_device()), progress)
    return sorted(entry.id for entry in entries)


def base_class_means(bank: Bank, data: TaskData, device: torch.device) -> ClassMeans:
    """Return the mean features of a bank's base for each class of a data set.

    Args:
        bank: the bank.
        data: images and labels.
        device: where to compute.
    """
    features = extract_features(bank.base.whole(data.task.labels), data.train, device)
    return ClassMeans.of(features.numpy(), data.train.targets.numpy(), len(data.task.labels))


def add_class_means(bank: Bank, data: TaskData, *, device: torch.device | None = None) -> list[str]:
    """Give class means to the entries that have none, and all of whose classes a data set has.

    Args:
        bank: a bank in a folder.
        data: images and labels; classes of the same label or synset are the same.
        device: where to compute; if left out, the best device that this machine has.

    Returns:
        The ids of the entries that got class means.

    Raises:
        StorageError: the folder cannot be written.
    """
    matches = {entry.id: entry.task.matches(data.task) for entry in bank if entry.class_means is None}
    rows = {i: [found[0] for found in numbers] for i, numbers in matches.items() if all(numbers)}
    if not rows:
        return []
    means = base_class_means(bank, data, device or pick_device())
    packed = {i: means.select(numbers).pack() for i, numbers in rows.items()}  # None where they are too large
    changes: dict[str, Entry | None] = {i: replace(bank[i], class_means=p) for i, p in packed.items() if p is not None}
    bank.update_index(changes, known_only=True)
    return sorted(changes)


def _add_sketches(bank: Bank, entries: Sequence[Entry], sketcher: Sketcher, progress: bool = False) -> None:
    changes: dict[str, Entry | None] = {}
    for entry in tqdm(entries, desc="sketching", disable=not progress, leave=False):
        entry.verify()
        changes[entry.id] = replace(entry, sketch=sketcher(entry.load_model()))
    bank.update_index(changes, known_only=True)


def copy_subset(bank: Bank, path: str | Path, ids: Sequence[str], name: str | None = None) -> Bank:
    """Copy a bank with only some of its entries.

    Args:
        bank: the bank to copy from.
        path: the folder of the copy.
        ids: the entries to copy.
        name: the copy's name; if left out, that of the bank.

    Raises:
        BankError: an id is unknown.
        StorageError: `path` exists, or cannot be written.
    """
    root = user_path(path)
    entries = {i: bank[i] for i in ids}
    with new_folder(root) as work:
        bank.base.copy_files(work / BASE_FOLDER)
        for entry in entries.values():
            copy_entry_files(entry.folder, work / entry.path)
        if bank.trunk is not None:
            copy_entry_files(bank.files.path(TRUNK_FOLDER), work / TRUNK_FOLDER)
        write_json(work / BANK_FILE, bank.meta | ({"name": name} if name else {}))
        Bank(LocalFiles(work), bank.meta).write_index(entries)
        fsync_dir(work)
    return Bank.open(root)
