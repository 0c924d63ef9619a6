"""`MetaPruner`: from a bank and a data set to a small model. The main job on one page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .adapt.class_votes import MAX_COUNT, vote_on_classes
from .adapt.heads import Heads
from .adapt.job import Job, chosen_ratio, needed_trunk, prepare_job
from .adapt.measuring import measure
from .adapt.normalization import final_statistics, set_first_statistics
from .adapt.plan import Plan, resolve_options
from .adapt.retrieval import find_voters
from .adapt.strategies import STRATEGIES, first_model, note_unheld
from .adapt.teacher import make_soft_labels, make_teacher
from .adapt.voters import ClassVotes, Voters
from .bank.bank import Bank, open_bank
from .config import BASELINE, NOT_SWEPT, VOTED, AdaptOptions, TrainingOptions, check_ratio, merge_options
from .errors import OptionError
from .models.class_means import to_text
from .result import AdaptResult
from .similarity import Neighbor, Query
from .sizing.fitting import check_reachable, is_even, select_mask
from .sizing.inputs import AdaptInputs
from .training.hardware import pick_device
from .training.loop import Callback, fine_tune
from .training.record import RunRecord

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .bank.bank import OpenOptions
    from .overrides import Overrides, SizeOverrides

SHARED = frozenset({"steps", "batch_size", "flip", "shift", "precision", "eval_steps"})
"""Training options that hold for what a model is compared with, too; the others are its own recipe's."""


class MetaPruner:
    """Makes small models for new tasks from the pruned models of similar tasks.

    Its steps are those of Algorithm 1 of *Meta-Vote Pruning*.

    Args:
        bank: an open bank; `from_hub` opens one by name.

    Example::

        pruner = MetaPruner.from_hub("demo-bank")
        result = pruner.adapt("photos")  # a folder with one folder of images per class
        print(result.report.headline())
        result.save_pretrained("my_model")
    """

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    @classmethod
    def from_hub(cls, bank: str | Path, **options: Unpack[OpenOptions]) -> MetaPruner:
        """Open a bank: one that comes with the library (``demo-bank``), one in a folder, or one on the Hub.

        The revision of a bank on the Hub is resolved once. Its index is fetched now; the base and the weights of
        entries are fetched when they are needed, into the ordinary cache of huggingface_hub.

        Args:
            bank: ``demo-bank``, ``demo-vit-bank``, a path, or a Hub id such as ``org/resnet50-bank``.
            options: `revision` (a branch, tag or commit), `token` (if left out, that of the user's login or of
                ``HF_TOKEN``), `cache_dir`, `local_files_only` (ask nothing of the Hub), and `strict`: whether a bad
                entry is an error, or is skipped with a note. See `open_bank`.

        Returns:
            A pruner for the bank.

        Raises:
            FormatError: there is no bank, it is damaged, or of a newer format version.
            HubError: the Hub cannot be reached, or has no such repo or revision.
            OptionError: `bank` is empty, or too long for a path.

        Example::

            pruner = MetaPruner.from_hub("org/resnet50-bank", revision="v1")
        """
        return cls(open_bank(bank, **options))

    @classmethod
    def from_search(cls, base_model: str | Path | Bank, **options: Any) -> MetaPruner:
        """Search the Hub for single models of a base that anybody has published.

        Args:
            base_model: the base that they must belong to, or a bank of it: a folder, a Hub id, or an opened bank.
            options: `author`, `tags`, `limit`, `allow`, `deny` and `trusted` (see `SearchOptions`), `revision`,
                `token`, `cache_dir`, `strict` and `progress` (see `Bank.from_search`).

        Returns:
            A pruner whose bank is what the search found.

        Raises:
            HubError: the Hub cannot be reached, or the token is wrong.
            FormatError: there is no such base; or a model is bad, and `strict` is set.
            OptionError: a name is empty, or an option has a value that it cannot have.

        Example::

            pruner = MetaPruner.from_search("demo-bank", author="ada", limit=100)
        """
        return cls(Bank.from_search(base_model, **options))

    def adapt(
        self,
        dataset: Any,
        options: AdaptOptions | None = None,
        training: TrainingOptions | None = None,
        *,
        unlabeled: Any = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
        **changes: Unpack[Overrides],
    ) -> AdaptResult:
        """Make a small model for the data set's classes.

        Args:
            dataset: a ``datasets.Dataset`` or ``DatasetDict``, a folder of class folders or with a ``metadata.csv``,
                parquet, a torch data set, a list of (image, label), or a `TaskData`.
            options: how neighbors are found and vote. The recipe for the task's size decides open options.
            training: how the model is fine-tuned. The recipe decides open options here, too.
            unlabeled: photos like those, without labels: a folder, a ``datasets.Dataset`` or a list. The whole base,
                which knows the classes from the labeled images, teaches the model on them.
            callbacks: called after each step and each evaluation.
            progress: show progress bars.
            changes: single fields of `AdaptOptions` and `TrainingOptions`, which win over `options` and `training`.

        Returns:
            The model with its report.

        Raises:
            MetaPruneError: an option, the data, or the bank cannot be used; raised before any training.

        Example::

            result = pruner.adapt("photos", by="leep", neighbors=2)
            print(result.report.headline())
        """
        job = prepare_job(self.bank, dataset, merge_options(options, training, changes), unlabeled, progress)
        result = self.make(self._plan(job, progress), callbacks=callbacks, progress=progress)
        if job.options.compare:
            shared_options = {name: getattr(job.training, name) for name in SHARED}
            baseline = replace(
                job,
                options=replace(job.options, strategy=BASELINE, preset="default", head=None, statistics=None),
                training=TrainingOptions(**shared_options),
                record=RunRecord(),
            )
            without_bank = self.make(self._plan(baseline, progress), progress=progress)
            result.report = result.report.with_baseline("without a bank", without_bank.report.accuracy_at_step)
        return result

    def plan(
        self,
        dataset: Any,
        options: AdaptOptions | None = None,
        training: TrainingOptions | None = None,
        *,
        unlabeled: Any = None,
        progress: bool = False,
        **changes: Unpack[Overrides],
    ) -> Plan:
        """Find the neighbors and let them vote: the first half of `adapt`. `make` does the rest, for any size.

        Args:
            dataset: images and labels, see `adapt`.
            options: how neighbors are found and vote.
            training: how models are fine-tuned.
            unlabeled: photos without labels, see `adapt`.
            progress: show progress bars.
            changes: single fields of `AdaptOptions` (but for `compare`) and `TrainingOptions`.

        Returns:
            The plan.

        Raises:
            MetaPruneError: what `adapt` raises.

        Example::

            plan = pruner.plan("photos")
            print([neighbor.entry.id for neighbor in plan.neighbors], plan.cost(0.9))
        """
        settings = merge_options(options, training, changes)
        if settings[0].compare:
            raise OptionError("compare is not for a plan: make one with strategy='no-bank', and compare the results")
        return self._plan(prepare_job(self.bank, dataset, settings, unlabeled, progress), progress, any_size=True)

    def nearest(self, query: Query, options: AdaptOptions) -> list[Neighbor]:
        """Return the entries that would vote, nearest first; see `find_voters`.

        Args:
            query: the task, with its images.
            options: which similarity, and how many neighbors.

        Returns:
            The neighbors, as many as `options` asks for, each an entry with its similarity to the task.

        Raises:
            BankError: fewer entries can be used than are asked for.
            OptionError: there is no such similarity.

        Example::

            query = Query(data.task, data.train, torch.device("cpu"))
            print([neighbor.score for neighbor in pruner.nearest(query, AdaptOptions(by="leep", neighbors=2))])
        """
        return list(find_voters(self.bank, query, options).neighbors)

    def sweep(
        self,
        dataset: Any,
        ratios: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95),
        options: AdaptOptions | None = None,
        training: TrainingOptions | None = None,
        *,
        unlabeled: Any = None,
        progress: bool = False,
        **changes: Unpack[Overrides],
    ) -> list[AdaptResult]:
        """Make models of several sizes from one vote, to choose between accuracy and cost.

        Args:
            dataset: images and labels, see `adapt`.
            ratios: shares of units to remove, in (0, 1), one per model.
            options: how neighbors are found and vote.
            training: how models are fine-tuned.
            unlabeled: photos without labels, see `adapt`.
            progress: show progress bars.
            changes: single fields of `AdaptOptions` (but for a ratio, a budget and `compare`) and `TrainingOptions`.

        Returns:
            One result per ratio, in their order.

        Raises:
            MetaPruneError: what `adapt` raises.

        Example::

            for result in pruner.sweep("photos", ratios=(0.8, 0.9)):
                print(result.report.params, result.report.accuracy)
        """
        options, training, given = merge_options(options, training, changes)
        sizes_given = sorted(NOT_SWEPT & given.keys())
        if sizes_given:
            raise OptionError(f"{sizes_given[0]} is not for a sweep: pass ratios=(0.5, 0.9), one per model")
        ratios = _checked_ratios(ratios)
        options = replace(options, ratio=ratios[0])
        job = prepare_job(self.bank, dataset, (options, training, given), unlabeled, progress)
        if not len(job.data.evaluation):
            raise OptionError("a sweep compares accuracies: it needs an evaluation_share above 0, or a test split")
        plan = self._plan(job, progress, any_size=True)
        return [self.make(plan, progress=progress, ratio=ratio) for ratio in ratios]

    def _plan(self, job: Job, progress: bool, any_size: bool = False) -> Plan:
        """Find neighbors, and let them vote."""
        base, data, record = self.bank.base, job.data, job.record.copy()
        record.notes += self.bank.skip_reasons.values()
        options, training = resolve_options(
            job.options, job.training, data.images_per_class, base.family.recipe, job.photos is not None
        )
        ratio = chosen_ratio(self.bank, options) if is_even(options) and not any_size else None
        inputs = AdaptInputs(base, data.task, data.train, options, ratio, pick_device(options.device), job.photos)
        check_reachable(inputs)
        voters = Voters()
        with record.metered():
            with record.timed("find neighbors"):
                if options.strategy in VOTED:
                    query = Query(
                        data.task, data.train, inputs.device, options.leep_samples, options.seed, progress,
                        self.bank.strict, record,
                    )  # fmt: skip
                    voters = find_voters(self.bank, query, options)
            voters = replace(voters, trunk=needed_trunk(self.bank, options))
            with record.timed("vote and average"):
                order = STRATEGIES[options.strategy](inputs, voters, record)
            teacher = soft_labels = None
            if job.photos is not None or training.loss == "features" or options.head == "decoded":
                with record.timed("ask the base"):
                    voters = replace(voters, class_votes=self._class_votes(inputs, voters, record))
                    teacher = make_teacher(inputs, data.evaluation, record, voters.class_votes)
                    if job.photos is not None and training.loss == "labels":
                        soft_labels = make_soft_labels(teacher, job.photos, inputs, record)
        return Plan(data, training, inputs, voters, order, record, job.given, teacher, soft_labels)

    def _class_votes(self, inputs: AdaptInputs, voters: Voters, record: RunRecord) -> ClassVotes | None:
        """Ask the bank's entries about the task's classes, if the options say so and the trunk makes the model.

        Who has as many images as a voice may count needs no other.
        """
        trunk, options = voters.trunk, inputs.options
        is_rich = len(inputs.images) >= MAX_COUNT * len(inputs.task.labels)
        if trunk is None or options.strategy != "trunk" or not options.class_votes or is_rich:
            return None
        n_features = len(trunk.decoders[trunk.ratios[0]].bias)
        return vote_on_classes(list(self.bank), inputs.task, n_features, record)

    def make(
        self, plan: Plan, *, callbacks: Sequence[Callback] = (), progress: bool = False, **size: Unpack[SizeOverrides]
    ) -> AdaptResult:
        """Make one model of a plan: select its units, set its classifier, fine-tune it, and measure it.

        Args:
            plan: the outcome of a vote, see `plan`.
            callbacks: called after each step and each evaluation.
            progress: show progress bars.
            size: a ratio, a budget, or how it is split over layers, instead of the plan's: see `config.SIZE_OPTIONS`.

        Returns:
            The model with its report.

        Raises:
            OptionError: another option, a value out of range, or a budget out of reach.

        Example::

            plan = pruner.plan("photos")
            large, small = (pruner.make(plan, ratio=ratio) for ratio in (0.7, 0.95))
        """
        plan = plan.with_size(dict(size))
        data, options, inputs, record = plan.data, plan.options, plan.inputs, plan.record
        device = inputs.device
        with record.metered():
            with record.timed("vote and average"):
                mask, ratio = select_mask(inputs, plan.order, chosen_ratio(self.bank, options), record.note)
                if options.strategy in VOTED:
                    note_unheld(inputs, plan.voters, mask, record)
                model = first_model(inputs, plan.voters, mask, plan.order.scores, ratio)
            with record.timed("set the statistics and the classifier"):
                statistics, n_forwarded = set_first_statistics(model, inputs, record)
                heads = Heads(plan, mask)
                head = heads.set(model)
                if plan.teacher is not None:
                    model.config.class_means = to_text(plan.teacher.class_means.pack())
            training, start = plan.training_at(ratio), time.perf_counter()
            may_stay = plan.voters.trunk is not None and plan.has_few_images
            training_result = fine_tune(
                model,
                data.train,
                training,
                evaluation=data.evaluation if len(data.evaluation) else None,
                device=device,
                seed=options.seed,
                callbacks=callbacks,
                statistics=final_statistics(str(options.statistics), statistics, may_stay),
                soft_labels=plan.soft_labels,
                teacher=heads.feature_teacher() if training.loss == "features" else None,
                progress=progress,
            )
            record.seconds["fine-tune"] = training_result.seconds
            record.seconds["evaluate"] = time.perf_counter() - start - training_result.seconds
        n_forwarded += len(data.train) if options.head != "random" else 0
        report, mistakes = measure(
            model, plan, training, training_result, head=head, bank=self.bank.reference(), n_forwarded=n_forwarded
        )
        return AdaptResult(model, self.bank.base.preprocessing, report, device, mistakes)


def _checked_ratios(ratios: Any) -> tuple[float, ...]:
    """Return the ratios of a sweep, checked.

    Raises:
        OptionError: there is none, one is outside (0, 1), or two have the same name.
    """
    try:
        checked_ratios = tuple(check_ratio(float(ratio)) for ratio in ratios)
    except TypeError as error:
        raise OptionError(f"ratios={ratios!r}: must be numbers, such as (0.5, 0.9)") from error
    if not checked_ratios:
        raise OptionError("a sweep needs at least one ratio")
    if len({f"{ratio:g}" for ratio in checked_ratios}) < len(checked_ratios):
        raise OptionError(f"ratios={checked_ratios}: two of them are the same")
    return checked_ratios
