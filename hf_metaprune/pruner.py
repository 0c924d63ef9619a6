"""`MetaPruner`: from a bank and a data set to a small model. The main job on one page."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .bank.bank import Bank, open_bank
from .bank.entry import Entry
from .config import AdaptOptions, TrainingOptions, override, split_options
from .costs import latency_ms, machine_kind, measured_energy
from .data import ImageSet
from .errors import BankError, OptionError
from .heads import make_head
from .hub.client import public_name
from .markup import counted
from .models.modeling import MetaPrunedForImageClassification
from .models.slicing import count_parameters
from .reading import read_task_data
from .recipes import SIMILARITY, recipe
from .report import AdaptReport
from .result import AdaptResult
from .similarity import Neighbour, Query, Similarity, get_similarity
from .strategies import Start, first_model
from .task import TaskData
from .training import (
    Callback,
    TrainingResult,
    count_flops,
    fine_tune,
    pick_device,
    predict_logits,
    recalibrate,
    versions,
)
from .voting import agreement, vote_shares

RIVAL = "no-bank"
SHARED = frozenset({"steps", "batch_size", "flip", "shift", "precision", "eval_steps"})
"""Training options that hold for what a model is compared with, too; the others are its own recipe's."""
METHODS = {"mvp": "mvp", "no-bank": "activation", "random": "random"}


class MetaPruner:
    """Makes small models for new tasks from the pruned models of similar tasks.

    ``MetaPruner.from_hub("space/demo_bank").adapt("photos")`` finds the nearest tasks of the bank, lets their masks
    vote, averages their weights, sets the classifier, and fine-tunes for about 100 steps (MVP, Algorithm 1).
    """

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    @classmethod
    def from_hub(cls, bank: str | Path, **options: Any) -> MetaPruner:
        """From a bank on the Hub (``org/resnet50-bank``) or in a folder.

        Of a bank on the Hub the revision is resolved once; its index is fetched now, the base and the weights of
        entries when they are needed, into the ordinary cache of huggingface_hub.

        Args:
            bank: a Hub id, or a path.
            options: `revision` (a branch, tag or commit), `token` (if left out, that of the user's login or of
                ``HF_TOKEN``), `cache_dir`, `local_files_only` (ask nothing of the Hub), and `strict`: whether a bad
                entry is an error or left out with a note. See `open_bank`.

        Raises:
            FormatError: there is no bank, it is damaged, or of a newer format version.
            HubError: the Hub cannot be reached, or has no such repo or revision.
        """
        return cls(open_bank(bank, **options))

    @classmethod
    def from_search(cls, base_model: str | Path | Bank, **options: Any) -> MetaPruner:
        """From single models that anybody has published on the Hub.

        Args:
            base_model: the base that they must belong to, or a bank of it: a folder, a Hub id, or an opened bank.
            options: `author`, `tags`, `limit`, `allow`, `deny` and `trusted` (see `SearchOptions`), `revision`,
                `token`, `cache_dir`, `strict` and `progress` (see `Bank.from_search`).

        Raises:
            HubError: the Hub cannot be reached, or the token is wrong.
            FormatError: there is no such base; or a model is bad, and `strict` is set.
        """
        return cls(Bank.from_search(base_model, **options))

    def adapt(
        self, dataset: Any, *, callbacks: Sequence[Callback] = (), progress: bool = False, **options: Any
    ) -> AdaptResult:
        """A small model for the data set's classes.

        Args:
            dataset: a ``datasets.Dataset`` or ``DatasetDict``, a folder of class folders, parquet, a torch data set, a
                list of (image, label), or a `TaskData`.
            callbacks: told after each step and evaluation.
            progress: show progress bars.
            options: any field of `AdaptOptions` and `TrainingOptions`.

        Raises:
            MetaPruneError: an option, the data, or the bank cannot be used; raised before any training.
        """
        phases: dict[str, float] = {}
        adapt_changes, training_changes = split_options(options)
        wanted = override(AdaptOptions(), adapt_changes)
        override(TrainingOptions(), training_changes)  # a wrong option is found before images are read
        if wanted.by is not None:
            get_similarity(wanted.by)
        device = pick_device(wanted.device)
        self._check_bank(wanted)
        with _timed(phases, "read images"):
            data = self._read(dataset, wanted, progress)
        if wanted.compare and not len(data.evaluation):
            raise OptionError("compare=True needs images to measure on: an evaluation_share above 0, or a test split")
        result = self._adapt(data, wanted, training_changes, device, phases, callbacks, progress)
        if wanted.compare:
            rival = replace(wanted, strategy=RIVAL, preset="default", head=None, recalibrate=None)
            shared = {name: value for name, value in training_changes.items() if name in SHARED}
            compared = self._adapt(data, rival, shared, device, {}, (), progress)
            result.report.rivals["without a bank"] = compared.report.accuracy_at_step
        return result

    def _adapt(
        self,
        data: TaskData,
        wanted: AdaptOptions,
        training_changes: dict[str, Any],
        device: torch.device,
        phases: dict[str, float],
        callbacks: Sequence[Callback],
        progress: bool,
    ) -> AdaptResult:
        chosen, training = settle_options(wanted, training_changes, data.images_per_class)
        notes = list(self.bank.left_out.values())
        energy: dict[str, float] = {}
        with measured_energy(energy):
            with _timed(phases, "find neighbours"):
                query = Query(
                    data.task,
                    data.train,
                    device,
                    chosen.leep_samples,
                    chosen.seed,
                    progress,
                    self.bank.strict,
                    notes=notes,
                )
                neighbours = self.nearest(query, chosen) if chosen.strategy == "mvp" else []
            start = Start(self.bank.base, data.task, data.train, chosen, self._ratio(chosen), device, neighbours)
            with _timed(phases, "vote and average"):
                model = first_model(start, METHODS[chosen.strategy])
            with _timed(phases, "recalibrate and set the classifier"):
                if chosen.recalibrate:
                    recalibrate(model, data.train, device, seed=chosen.seed)
                head = make_head(
                    chosen.head or "auto", model, data.train, data.task, [n.entry for n in neighbours], device
                )
            began = time.perf_counter()
            result = fine_tune(
                model, data.train, training, evaluation=data.evaluation if len(data.evaluation) else None,
                device=device, seed=chosen.seed, callbacks=callbacks, progress=progress,
            )  # fmt: skip
            phases["fine-tune"] = result.seconds
            phases["evaluate"] = time.perf_counter() - began - result.seconds
        report = self._report(model, data, start, result, head, device)
        passes = int(chosen.recalibrate or False) + (chosen.head != "random")
        report.emissions, report.retrieval_flops = energy, query.flops
        report.preparation_flops = start.flops + passes * len(data.train) * 2 * report.macs
        report.seconds = {phase: round(s, 3) for phase, s in phases.items()}
        report.options = _options(chosen, training)
        report.notes, report.skipped_images = notes, data.skipped
        model.config.dataset = public_name(data.source)
        if report.test_images:
            model.config.metrics = {"accuracy": round(report.accuracy, 4), "test_images": report.test_images}
        return AdaptResult(model, self.bank.base.preprocessing, report, device)

    def nearest(self, query: Query, options: AdaptOptions) -> list[Neighbour]:
        """The N entries nearest to the task, nearest first; `options` say which similarity, and N (None: all).

        An entry that is damaged, or not what the index says, is left out with a note; nor has an owner of single
        models more than ``votes_per_owner`` of them among the N.

        Raises:
            BankError: fewer than N can be used. MetaPruneError: one is bad, and the bank is strict.
        """
        wanted = options.neighbours or len(self.bank)
        allowed = votes_per_owner(options, wanted, list(self.bank))
        found: list[Neighbour] = []
        owners: Counter[str | None] = Counter()
        capped = False
        for neighbour in _ranked(get_similarity(options.by or SIMILARITY), query, list(self.bank)):
            owner = neighbour.entry.owner
            if owner is not None and owners[owner] >= allowed:
                capped = True
                continue
            if not query.usable(neighbour.entry, neighbour.entry.verify):
                continue
            owners[owner] += 1
            found.append(neighbour)
            if len(found) == wanted:
                break
        if found and capped and len(found) < wanted:
            query.note(f"{len(found)} vote, not {wanted}: an owner has at most {allowed} (votes_per_owner)")
        elif not found or (options.neighbours and len(found) < options.neighbours):
            why = "; ".join(query.notes[-3:])
            raise BankError(f"only {len(found)} of {self._entries()} of {self.bank.title} can be used: {why}")
        return found

    def _check_bank(self, options: AdaptOptions) -> None:
        if options.strategy == "mvp" and not len(self.bank):
            raise BankError(f"{self.bank.title}: there is no entry that could vote: {self.bank.why_empty}")
        if options.neighbours is not None and options.strategy == "mvp" and options.neighbours > len(self.bank):
            has = f"{self.bank.title} has only {self._entries()}"
            raise BankError(f"neighbours={options.neighbours}, but {has}")
        if options.compare and options.strategy == RIVAL:
            raise OptionError(f"compare=True compares with strategy {RIVAL!r}, which was chosen already")
        self._ratio(options)
        self.bank.base  # noqa: B018  (loaded and checked now)

    def _entries(self) -> str:
        return counted(len(self.bank), "entry", "entries")

    def _ratio(self, options: AdaptOptions) -> float:
        ratio = options.ratio if options.ratio is not None else self.bank.default_ratio
        if ratio is None:
            raise BankError(f"{self.bank.title} names no default ratio: pass ratio= (--ratio)")
        return ratio

    def _read(self, dataset: Any, options: AdaptOptions, progress: bool) -> TaskData:
        if isinstance(dataset, TaskData):
            return dataset
        return read_task_data(
            dataset,
            self.bank.base.preprocessing,
            image_column=options.image_column,
            label_column=options.label_column,
            synsets=options.synsets,
            evaluation_share=options.evaluation_share,
            seed=options.seed,
            progress=progress,
        )

    def _report(
        self,
        model: MetaPrunedForImageClassification,
        data: TaskData,
        start: Start,
        result: TrainingResult,
        head: str,
        device: torch.device,
    ) -> AdaptReport:
        predicted = predict_logits(model, data.evaluation, device, "fp32").argmax(1).numpy()
        true, labels = data.evaluation.targets.numpy(), data.task.labels
        confusion = np.zeros((len(labels), len(labels)), dtype=int)
        np.add.at(confusion, (true, predicted), 1)
        tested = confusion.sum(1)
        per_class = np.where(tested, confusion.diagonal() / tested.clip(1), np.nan)
        mask, masks = model.mask(), [n.entry.mask for n in start.neighbours]
        overlaps = [mask.iou_per_layer(m) for m in masks]
        image = data.train.images[:1]
        base = start.base
        full = base.whole(labels).eval()
        shares = vote_shares(mask, masks, start.weights)
        return AdaptReport(
            accuracy=float((predicted == true).mean()) if len(true) else math.nan,
            evaluated_on=data.evaluation_split,
            accuracy_at_step=result.accuracy_at_step,
            accuracy_per_class={label: float(a) for label, a in zip(labels, per_class, strict=True)},
            confusion=confusion.tolist(),
            labels=list(labels),
            train_images=len(data.train),
            test_images=len(data.evaluation),
            source=public_name(data.source),
            strategy=start.options.strategy,
            ratio=start.ratio,
            bank=self.bank.reference(),
            neighbours=[
                n.entry.reference() | {"score": round(n.score, 6), "share": round(share, 4)}
                for n, share in zip(start.neighbours, shares, strict=True)
            ],
            vote_agreement=agreement(mask, masks) if masks else {},
            iou_with_neighbours={name: [round(o[name], 4) for o in overlaps] for name in mask} if masks else {},
            head=head,
            params=count_parameters(model),
            base_params=count_parameters(full),
            macs=count_flops(model, image)[0] // 2,
            base_macs=count_flops(full, image)[0] // 2,
            latency_ms={"model": _latency(model, data.train, device), "base": _latency(full, data.train, device)},
            machine=machine_kind(device),
            training_flops=result.flops,
            losses=[round(loss, 5) for loss in result.losses],
            peak_memory_mb=peak_memory_mb(device),
            seed=start.options.seed,
            versions=versions(),
            device=str(device),
        )  # fmt: skip


def _ranked(similarity: Similarity, query: Query, entries: list[Entry]) -> Iterator[Neighbour]:
    """Entries from the nearest on: those of the similarity's shortlist, then, if more are asked for, of its next."""
    while entries:
        some = similarity.shortlist(query, entries)
        yield from similarity.rank(query, some)
        seen = {entry.id for entry in some}
        entries = [entry for entry in entries if entry.id not in seen]


def _latency(model: MetaPrunedForImageClassification, images: ImageSet, device: torch.device) -> float:
    pixels = images.preprocessing.normalise(images.images[:1]).to(device)
    return round(latency_ms(model.to(device), pixels), 3)


@contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    phases[name] = time.perf_counter() - began


def settle_options(
    wanted: AdaptOptions, training_changes: dict[str, Any], images_per_class: float
) -> tuple[AdaptOptions, TrainingOptions]:
    """Fill what was left open from the preset's recipe; what the user set stands."""
    plan = recipe(wanted.preset, images_per_class, wanted.strategy)
    names = {f.name for f in fields(AdaptOptions)}
    open_ones = {k: v for k, v in plan.items() if k in names and getattr(wanted, k) is None}
    training = {k: v for k, v in plan.items() if k not in names} | training_changes
    return replace(wanted, **open_ones), override(TrainingOptions(), training)


def votes_per_owner(options: AdaptOptions, neighbours: int, entries: Sequence[Entry]) -> int:
    """How many of the neighbours may be single models of one owner.

    As asked; else fewer than half, but at least one; as many as there are if nobody else has any.
    """
    if options.votes_per_owner is None and len({entry.owner for entry in entries}) == 1:
        return neighbours
    return options.votes_per_owner or max(1, (neighbours - 1) // 2)


def _options(chosen: AdaptOptions, training: TrainingOptions) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in (asdict(chosen) | asdict(training)).items()}


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far, in MB: of the device's allocator on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
    except ImportError:  # Windows
        return float("nan")
