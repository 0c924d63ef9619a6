"""`MetaPruner`: from a bank and a data set to a small model. The main job on one page."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .adapt.classifier import make_head
from .adapt.measuring import is_constant, make_report
from .adapt.plan import Plan, plain, settle_options
from .adapt.retrieval import nearest, ranked
from .adapt.strategies import STRATEGIES, Start, first_model
from .bank.bank import Bank, open_bank
from .config import NOT_SWEPT, VOTED, AdaptOptions, TrainingOptions, check_ratio, override, split_options, unused
from .data.loading import read_task_data
from .data.task import TaskData
from .errors import BankError, DataError, OptionError
from .files.names import public_name
from .reporting.misclassified import worst_mistakes
from .result import AdaptResult
from .similarity import Neighbour, Query, get_similarity
from .sizing.fitting import budget_of, check_bounds, check_reach, cut, is_even
from .sizing.sizes import layer_exceptions
from .text import counted
from .training.energy import measured_energy
from .training.forward import predict_logits
from .training.hardware import pick_device
from .training.loop import Callback, fine_tune
from .training.statistics import recalibrate

log = logging.getLogger(__name__)

RIVAL = "no-bank"
SHARED = frozenset({"steps", "batch_size", "flip", "shift", "precision", "eval_steps"})
"""Training options that hold for what a model is compared with, too; the others are its own recipe's."""


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
        data, wanted, training, phases = self._prepare(dataset, options, progress)
        plan = self._plan(data, wanted, training, phases, progress)
        plan.given = plain(options)
        result = self.make(plan, callbacks=callbacks, progress=progress)
        if wanted.compare:
            rival = replace(wanted, strategy=RIVAL, preset="default", head=None, recalibrate=None)
            shared = {name: value for name, value in training.items() if name in SHARED}
            compared = self.make(self._plan(data, rival, shared, {}, progress), progress=progress)
            result.report.rivals["without a bank"] = compared.report.accuracy_at_step
        return result

    def plan(self, dataset: Any, *, progress: bool = False, **options: Any) -> Plan:
        """The first half of `adapt`: find the neighbours, and let them vote; `make` does the rest, for any size.

        Args:
            dataset: as of `adapt`.
            options: as of `adapt`, but for `compare`.

        Raises:
            MetaPruneError: as of `adapt`.
        """
        if options.get("compare"):
            raise OptionError("compare is not for a plan: make one with strategy='no-bank', and compare the results")
        data, wanted, training, phases = self._prepare(dataset, options, progress)
        plan = self._plan(data, wanted, training, phases, progress, any_size=True)
        plan.given = plain(options)
        return plan

    def sweep(
        self, dataset: Any, ratios: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95), *, progress: bool = False,
        **options: Any,
    ) -> list[AdaptResult]:  # fmt: skip
        """Models of several sizes, from one vote: what accuracy costs, to pick from.

        Args:
            dataset: as of `adapt`.
            ratios: shares of units to remove, one for each model.
            options: any field of `AdaptOptions` but a ratio or a budget, and of `TrainingOptions`.

        Raises:
            MetaPruneError: as of `adapt`.
        """
        given = sorted(NOT_SWEPT & set(options))
        if given:
            raise OptionError(f"{given[0]} is not for a sweep, which has sizes of its own: pass ratios")
        ratios = _checked_ratios(ratios)
        data, wanted, training, phases = self._prepare(dataset, options | {"ratio": ratios[0]}, progress)
        if not len(data.evaluation):
            raise OptionError("a sweep compares accuracies: it needs an evaluation_share above 0, or a test split")
        plan = self._plan(data, wanted, training, phases, progress, any_size=True)
        plan.given = plain(options)
        return [self.make(plan, progress=progress, ratio=ratio) for ratio in ratios]

    def nearest(self, query: Query, options: AdaptOptions) -> list[Neighbour]:
        """The entries that would vote, nearest first; see `neighbours.nearest`."""
        return nearest(self.bank, query, options)

    def _prepare(
        self, dataset: Any, options: dict[str, Any], progress: bool
    ) -> tuple[TaskData, AdaptOptions, dict[str, Any], dict[str, float]]:
        """The data, the options, and the phases' seconds so far, after all checks that need no training."""
        phases: dict[str, float] = {}
        adapt_changes, training = split_options(options)
        wanted = override(AdaptOptions(), adapt_changes)
        override(TrainingOptions(), training)  # a wrong option is found before images are read
        if wanted.by is not None:
            get_similarity(wanted.by)
        pick_device(wanted.device)
        self._check_bank(wanted)
        with _timed(phases, "read images"):
            data = self._read(dataset, wanted, progress)
        if wanted.compare and not len(data.evaluation):
            raise OptionError("compare=True needs images to measure on: an evaluation_share above 0, or a test split")
        given = [name for name, value in options.items() if value is not None]
        for made in settle_options(wanted, training, data.images_per_class, self.bank.base.family.optimizer):
            for sentence in unused(given, made):
                log.warning(sentence)
        return data, wanted, training, phases

    def _plan(
        self,
        data: TaskData,
        wanted: AdaptOptions,
        training_changes: dict[str, Any],
        phases: dict[str, float],
        progress: bool,
        any_size: bool = False,
    ) -> Plan:
        """Find neighbours, and let them vote."""
        base, device = self.bank.base, pick_device(wanted.device)
        chosen, training = settle_options(wanted, training_changes, data.images_per_class, base.family.optimizer)
        notes = list(self.bank.left_out.values())
        energy: dict[str, float] = {}
        ratio = self._ratio(chosen) if is_even(chosen) and not any_size else None
        start = Start(base, data.task, data.train, chosen, ratio, device)
        check_reach(start)
        with measured_energy(energy):
            with _timed(phases, "find neighbours"):
                query = Query(
                    data.task, data.train, device, chosen.leep_samples, chosen.seed, progress, self.bank.strict,
                    notes=notes,
                )  # fmt: skip
                if chosen.strategy in VOTED:
                    start.neighbours, start.runners_up = ranked(self.bank, query, chosen)
            with _timed(phases, "vote and average"):
                order = STRATEGIES[chosen.strategy](start)
        return Plan(data, chosen, training, start, order, query.flops, notes, phases, energy)

    def make(
        self, plan: Plan, *, callbacks: Sequence[Callback] = (), progress: bool = False, **size: Any
    ) -> AdaptResult:
        """One model of a plan: cut, its classifier set, fine-tuned, measured.

        Args:
            callbacks, progress: as of `adapt`.
            size: a ratio, a budget, or how it is split over layers, in place of the plan's own: see `config.SIZES`.

        Raises:
            OptionError: another option, a value out of range, or a budget out of reach.
        """
        plan = plan.sized(size)
        data, chosen, start, phases, notes = plan.data, plan.options, plan.start, plan.phases, plan.notes
        device, began = start.device, time.perf_counter()
        energy: dict[str, float] = {}
        with measured_energy(energy):
            mask, ratio = cut(start, plan.order, self._ratio(chosen), notes)
            training = plan.training_at(ratio)
            model = first_model(start, mask, plan.order.scores, ratio)
            phases["vote and average"] += time.perf_counter() - began
            with _timed(phases, "recalibrate and set the classifier"):
                passed = recalibrate(model, data.train, device, seed=chosen.seed) if chosen.recalibrate else 0
                entries = [n.entry for n in start.neighbours]
                head = make_head(chosen.head or "auto", model, data.train, data.task, entries, device)
            began = time.perf_counter()
            result = fine_tune(
                model, data.train, training, evaluation=data.evaluation if len(data.evaluation) else None,
                device=device, seed=chosen.seed, callbacks=callbacks, statistics=bool(chosen.recalibrate),
                progress=progress,
            )  # fmt: skip
            phases["fine-tune"] = result.seconds
            phases["evaluate"] = time.perf_counter() - began - result.seconds
        logits = predict_logits(model, data.evaluation, device)
        report = make_report(model, data, start, result, head, self.bank.reference(), logits, training)
        passed += len(data.train) if chosen.head != "random" else 0
        report.emissions = {name: plan.energy.get(name, 0.0) + value for name, value in energy.items()}
        report.retrieval_flops = plan.retrieval_flops
        report.preparation_flops = start.flops + passed * 2 * report.macs
        report.seconds = {phase: round(s, 3) for phase, s in phases.items()}
        report.options, report.given = plain(asdict(chosen) | asdict(training)), plan.given
        if is_constant(logits):
            notes.append(
                "every image gets the same answer: what stays of the network does not look at it (a class token "
                "without attention, say); a larger size, or layer_ratios that keep some heads, does better"
            )
        took, bound = report.latency_ms.get("model", 0.0), chosen.max_latency_ms
        if bound is not None and took > bound:
            notes.append(f"an image took {took:.2f} ms at the end, more than the {bound:g} that were asked for")
        report.notes, report.skipped_images = notes, data.skipped
        model.config.dataset = public_name(data.source)
        if report.test_images:
            model.config.metrics = {"accuracy": round(report.accuracy, 4), "test_images": report.test_images}
        mistakes = worst_mistakes(logits, data.evaluation, data.task.labels)
        return AdaptResult(model, self.bank.base.preprocessing, report, device, mistakes)

    def _check_bank(self, options: AdaptOptions) -> None:
        voted = options.strategy in VOTED
        if voted and not len(self.bank):
            raise BankError(f"{self.bank.title}: there is no entry that could vote: {self.bank.why_empty}")
        if options.neighbours is not None and voted and options.neighbours > len(self.bank):
            has = f"{self.bank.title} has only {counted(len(self.bank), 'entry', 'entries')}"
            raise BankError(f"neighbours={options.neighbours}, but {has}")
        if options.compare and options.strategy == RIVAL:
            raise OptionError(f"compare=True compares with strategy {RIVAL!r}, which was chosen already")
        check_bounds(options)
        self._ratio(options)
        layer_exceptions(
            options.layer_ratios, self.bank.base.layers_with(options.prune_stem)
        )  # the base is loaded and checked now, too

    def _ratio(self, options: AdaptOptions) -> float | None:
        """The ratio of the options, or the bank's own; None where a budget takes its place."""
        if options.ratio is not None or budget_of(options):
            return options.ratio
        if self.bank.default_ratio is None:
            raise BankError(f"{self.bank.title} names no default ratio: pass ratio= (--ratio)")
        return self.bank.default_ratio

    def _read(self, dataset: Any, options: AdaptOptions, progress: bool) -> TaskData:
        if isinstance(dataset, TaskData):
            if dataset.train.preprocessing != self.bank.base.preprocessing:
                raise DataError(
                    f"the data was read for {dataset.train.preprocessing}, and the bank's base wants "
                    f"{self.bank.base.preprocessing}: read it with read_task_data(source, bank.base.preprocessing)"
                )
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


def _checked_ratios(ratios: Any) -> tuple[float, ...]:
    """The ratios of a sweep.

    Raises:
        OptionError: there is none, one is outside (0, 1), or two have the same name.
    """
    try:
        found = tuple(check_ratio(float(ratio)) for ratio in ratios)
    except TypeError as error:
        raise OptionError(f"ratios={ratios!r}: must be numbers, such as (0.5, 0.9)") from error
    if not found:
        raise OptionError("a sweep needs at least one ratio")
    if len({f"{ratio:g}" for ratio in found}) < len(found):
        raise OptionError(f"ratios={found}: two of them are the same")
    return found


@contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    phases[name] = time.perf_counter() - began
