"""A job: the checked options and the images of one adaptation, which is all that can fail before long work."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ..bank.bank import Bank
from ..config import AUTO, BASELINE, VOTED, AdaptOptions, TrainingOptions
from ..data.images import ImageSet
from ..data.loading import read_task_data
from ..data.photos import read_photos
from ..data.task import TaskData
from ..errors import BankError, DataError, OptionError
from ..options import option_fields, unused_options
from ..similarity import get_similarity
from ..sizing.fitting import check_bounds, is_even, make_budget
from ..sizing.order import layer_exceptions
from ..text import quantity
from ..training.hardware import pick_device
from ..training.record import RunRecord
from ..trunk import Trunk
from .plan import json_values, resolve_options

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The checked options and the images of one adaptation."""

    data: TaskData
    """The labeled images."""
    options: AdaptOptions
    """How neighbors are found and vote."""
    training: TrainingOptions
    """How models are trained."""
    given: dict[str, Any]
    """The options that the user has set, by name, as JSON values."""
    record: RunRecord
    """The notes, times and costs so far."""
    photos: ImageSet | None = None
    """The images without labels."""


def prepare_job(
    bank: Bank,
    dataset: Any,
    settings: tuple[AdaptOptions, TrainingOptions, dict[str, Any]],
    unlabeled: Any = None,
    progress: bool = False,
) -> Job:
    """Check the options, and read the images.

    Args:
        bank: the bank.
        dataset: images and labels, as for `MetaPruner.adapt`.
        settings: the options, as `merge_options` returns them.
        unlabeled: images without labels, as for `MetaPruner.adapt`.
        progress: show progress bars.

    Raises:
        MetaPruneError: an option, the data, or the bank cannot be used.
    """
    record = RunRecord()
    options, training, given = settings
    options = replace(options, strategy=chosen_strategy(bank, options, given))
    if options.by is not None:
        get_similarity(options.by)
    pick_device(options.device)
    _check_bank(bank, options)
    with record.timed("read images"):
        data = _read(bank, dataset, options, progress)
        photos = _read_photos(bank, unlabeled, progress)
    if photos is not None and photos.skipped_images:
        record.note(f"{quantity(len(photos.skipped_images), 'photo')} without labels could not be read")
    if options.compare and not len(data.evaluation):
        raise OptionError("compare=True needs images to measure on: an evaluation_share above 0, or a test split")
    recipe = bank.base.family.recipe
    closed = resolve_options(options, training, data.images_per_class, recipe, photos is not None)
    _check_learning(*closed)
    for closed_options in closed:
        for sentence in unused_options(given, closed_options):
            log.warning(sentence)
    return Job(data, options, training, json_values(given), record, photos)


def chosen_strategy(bank: Bank, options: AdaptOptions, given: Collection[str]) -> str:
    """Return the strategy of the options; instead of ``auto`` the trunk if it can make the model, else MVP.

    Args:
        bank: the bank.
        options: the options.
        given: the names of the options that the user has set; one that only a vote has asks for a vote.

    Raises:
        MetaPruneError: the bank's trunk cannot be used.
    """
    if options.strategy != AUTO:
        return options.strategy
    fields = option_fields(AdaptOptions)
    strategies = [fields[name].metadata.get("only", {}).get("strategy", ()) for name in given if name in fields]
    asks_for_vote = any(names and "trunk" not in names for names in strategies)
    has_vote_head = options.head in ("stitched", "random")
    if options.preset == "paper" or asks_for_vote or has_vote_head or options.prune_stem or bank.trunk is None:
        return "mvp"
    ratio = chosen_ratio(bank, options) if is_even(options) else None
    return "mvp" if ratio is not None and ratio < bank.trunk.ratios[0] else "trunk"


def chosen_ratio(bank: Bank, options: AdaptOptions) -> float | None:
    """Return the ratio of the options, or else the bank's own; None if there is a budget instead.

    Raises:
        BankError: the bank names no ratio.
    """
    if options.ratio is not None or make_budget(options):
        return options.ratio
    if bank.default_ratio is None:
        raise BankError(f"{bank.title} names no default ratio: pass ratio= (--ratio)")
    return bank.default_ratio


def needed_trunk(bank: Bank, options: AdaptOptions) -> Trunk | None:
    """Return the bank's trunk if the options need it.

    Raises:
        BankError: it has none.
        OptionError: the trunk holds no sub-network as large.
    """
    if options.strategy != "trunk" and options.weights != "trunk":
        return None
    trunk = bank.trunk
    if trunk is None:
        raise BankError(f"{bank.title} has no trunk: make one with `hf-metaprune bank trunk`")
    if options.prune_stem:
        raise OptionError("prune_stem=True is not for a trunk, which keeps the layers of the stem whole")
    if is_even(options) and (ratio := chosen_ratio(bank, options)) is not None:
        trunk.mask(ratio)
    return trunk


def _check_bank(bank: Bank, options: AdaptOptions) -> None:
    is_vote = options.strategy in VOTED
    if is_vote and not len(bank):
        raise BankError(f"{bank.title}: there is no entry that could vote: {bank.empty_hint}")
    if options.neighbors is not None and is_vote and options.neighbors > len(bank):
        has = f"{bank.title} has only {quantity(len(bank), 'entry', 'entries')}"
        raise BankError(f"neighbors={options.neighbors}, but {has}")
    if options.compare and options.strategy == BASELINE:
        raise OptionError(f"compare=True compares with strategy {BASELINE!r}, which was chosen already")
    check_bounds(options)
    chosen_ratio(bank, options)
    needed_trunk(bank, options)
    layer_exceptions(
        options.layer_ratios, bank.base.layers_with(options.prune_stem)
    )  # the base is loaded and checked now, too


def _check_learning(options: AdaptOptions, training: TrainingOptions) -> None:
    """Check that what is learned, and the classifier, fit the strategy.

    Raises:
        OptionError: they do not.
    """
    for name, value in (("loss", training.loss), ("head", options.head)):
        if value in ("features", "decoded") and options.strategy != "trunk":
            raise OptionError(f"{name}={value!r} needs strategy='trunk', whose decoder tells the base's features")
    if training.loss == "features" and options.head in ("random", "stitched"):
        raise OptionError(f"head={options.head!r} needs loss='labels': features alone train no classifier")


def _check_preprocessing(bank: Bank, images: ImageSet) -> None:
    if images.preprocessing != bank.base.preprocessing:
        raise DataError(
            f"the data was read for {images.preprocessing}, and the bank's base wants {bank.base.preprocessing}: read "
            "it with read_task_data(source, bank.base.preprocessing), or read_photos"
        )


def _read_photos(bank: Bank, unlabeled: Any, progress: bool) -> ImageSet | None:
    if unlabeled is None:
        return None
    if isinstance(unlabeled, ImageSet):
        _check_preprocessing(bank, unlabeled)
        return unlabeled
    return read_photos(unlabeled, bank.base.preprocessing, progress=progress)


def _read(bank: Bank, dataset: Any, options: AdaptOptions, progress: bool) -> TaskData:
    if isinstance(dataset, TaskData):
        _check_preprocessing(bank, dataset.train)
        return dataset
    return read_task_data(
        dataset,
        bank.base.preprocessing,
        image_column=options.image_column,
        label_column=options.label_column,
        synsets=options.synsets,
        evaluation_share=options.evaluation_share,
        seed=options.seed,
        progress=progress,
    )
