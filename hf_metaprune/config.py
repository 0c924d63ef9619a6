"""Frozen dataclasses that hold every option once; the CLI and the docs come from their fields and help texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from .errors import OptionError
from .files.names import OWNER, is_repo_id
from .options import check, current_names, given_options, option, option_fields, override, unknown_option

OPTIMIZERS = ("sgd", "adamw")
AUTO = "auto"
"""The strategy that the bank decides."""
VOTED = ("mvp", "smsp")
"""Strategies that need neighbors."""
BASELINE = "no-bank"
"""The strategy that models of a bank are compared with."""
BY_VOTE = {"strategy": VOTED}


def check_ratio(ratio: float) -> float:
    """Return `ratio` as a float.

    Raises:
        OptionError: the ratio does not lie strictly between 0 and 1.
    """
    if not 0.0 < ratio < 1.0:
        raise OptionError(f"the pruning ratio must lie strictly between 0 and 1, not {ratio}; 0.9 removes 90% of units")
    return float(ratio)


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of fine-tuning.

    An option that is None is open. In an adaptation, the recipe for the base and the task's size decides it; elsewhere
    it has the value of MVP, Section 5.1 (see `closed`).

    Example:
        >>> options = TrainingOptions(steps=200)
        >>> options.optimizer is None, options.closed().optimizer
        (True, 'sgd')
    """

    panel: ClassVar[str] = "Fine-tuning"
    by_recipe: ClassVar[bool] = True  # recipes decide open options

    steps: int = option(100, "Optimizer steps.", low=0, high=1_000_000)
    batch_size: int = option(128, "Images per step; fewer if the task has fewer.", low=2, high=65536)
    optimizer: str | None = option(None, "Optimizer of the weights.", choices=OPTIMIZERS, fallback="sgd")
    lr: float | None = option(
        None,
        "Peak learning rate. Some recipes lower it if many units stay and images are few.",
        low=0.0,
        high=100.0,
        fallback=0.01,
    )
    momentum: float | None = option(
        None, "Momentum of SGD.", low=0.0, high=0.9999, only={"optimizer": ("sgd",)}, fallback=0.9
    )
    weight_decay: float = option(0.0, "Weight decay, on weights but not on biases and norms.", low=0.0, high=1.0)
    schedule: str = option("cosine", "Learning rate after warm-up.", choices=("cosine", "constant"))
    warmup_steps: int | None = option(
        None, "Steps in which the learning rate rises to its peak.", low=0, high=1_000_000, fallback=0
    )
    ema: float | None = option(
        None,
        "Decay of the moving average of the weights that becomes the model; 0: no average.",
        low=0.0,
        high=0.9999,
        fallback=0.0,
    )
    start_share: float | None = option(
        None,
        "Share of the weights from before the training in those of the model; 0: none.",
        low=0.0,
        high=1.0,
        fallback=0.0,
    )
    mixup: float | None = option(
        None, "Mixup: both parameters of its Beta distribution; 0: no mixup.", low=0.0, high=100.0, fallback=0.0
    )
    label_smoothing: float = option(0.0, "Label smoothing.", low=0.0, high=0.999)
    loss: str | None = option(
        None,
        "What is learned. labels: the labels, and the base's answers to photos without labels; features: with a trunk, "
        "the base's features of all images, after which the classifier is computed again.",
        choices=("labels", "features"),
        fallback="labels",
    )
    distill_weight: float = option(
        10.0,
        "Weight of the loss of photos without labels, beside that of the labeled images.",
        low=0.0,
        high=1000.0,
        only={"loss": ("labels",)},
    )
    distill_temperature: float = option(
        2.0, "Temperature of the base's answers to them.", low=0.1, high=100.0, only={"loss": ("labels",)}
    )
    clip_norm: float | None = option(None, "Largest norm of the gradient; 0: no clipping.", low=0.0, fallback=0.0)
    freeze_stem: bool | None = option(None, "Do not train the layers before the first prunable layer.", fallback=False)
    flip: bool = option(True, "Mirror images at random.")
    shift: float = option(0.125, "Largest random shift, as a share of the image's side.", low=0.0, high=0.5)
    precision: str = option(
        "auto",
        "Arithmetic of forward passes; auto: bf16 where the device computes it fast, else fp32.",
        choices=("auto", "fp32", "bf16"),
    )
    eval_steps: tuple[int, ...] = option(
        (0, 20, 50, 100), "Steps after which accuracy is measured, besides the last step."
    )
    patience: int = option(
        0,
        "Stop after this many evaluations without a better accuracy; 0: never. The test images then choose the model.",
        low=0,
    )

    def __post_init__(self) -> None:
        check(self)

    def closed(self) -> TrainingOptions:
        """Return a copy in which each open option has the value of MVP, Section 5.1.

        Returns:
            Options of which none is None.
        """
        open_fields = [f for f in fields(self) if getattr(self, f.name) is None]
        return replace(self, **{f.name: f.metadata["fallback"] for f in open_fields})


@dataclass(frozen=True)
class MethodOptions:
    """Settings of pruning a bank entry from the base model. Each method has a subclass with options of its own.

    The defaults are those of MVP, Section 3.1.

    Example:
        >>> MethodOptions(ratio=0.8).steps
        1000
    """

    panel: ClassVar[str] = "Pruning"
    by_recipe: ClassVar[bool] = False

    ratio: float = option(0.9, "r: share of units removed in every layer.")
    steps: int = option(1000, "J: optimizer steps.", low=1, high=1_000_000)
    batch_size: int = option(128, "Images per step.", low=2, high=65536)
    precision: str = option(
        "auto",
        "Arithmetic of forward passes; auto: bf16 where the device computes it fast, else fp32.",
        choices=("auto", "fp32", "bf16"),
    )

    def __post_init__(self) -> None:
        check(self)
        check_ratio(self.ratio)


@dataclass(frozen=True)
class TrunkOptions:
    """How a trunk is taught.

    Example:
        >>> TrunkOptions(steps=5000).ratios
        (0.5, 0.7, 0.8, 0.9, 0.95)
    """

    panel: ClassVar[str] = "Trunk"
    by_recipe: ClassVar[bool] = False

    ratios: tuple[float, ...] = option(
        (0.5, 0.7, 0.8, 0.9, 0.95), "Ratios of the sizes that are taught, from the largest size on."
    )
    steps: int = option(20_000, "Optimizer steps.", low=1, high=10_000_000)
    batch_size: int = option(128, "Images per step.", low=2, high=65536)
    lr: float | None = option(
        None, "Peak learning rate; if left out 0.2 of SGD, or 0.002 of AdamW for transformers.", low=0.0, high=100.0
    )
    hint_weight: float = option(
        1.0,
        "Weight of the distance to the base's stream after each stage, beside that of its features; 0: no such hints.",
        low=0.0,
        high=1000.0,
    )
    random_sizes: int = option(1, "Random sizes per step, beside the largest and the smallest.", low=0, high=100)
    mixup: float = option(0.0, "Share of steps in which pairs of images are mixed.", low=0.0, high=1.0)
    smallest_crop: float = option(
        1.0, "Smallest share of an image that is cropped at random and enlarged; 1: no cropping.", low=0.01, high=1.0
    )
    weight_decay: float = option(5e-4, "Weight decay of matrices and filters.", low=0.0, high=1.0)
    precision: str = option("auto", "Arithmetic of forward passes.", choices=("auto", "fp32", "bf16"))

    def __post_init__(self) -> None:
        check(self)
        for ratio in self.ratios:
            check_ratio(ratio)
        if not self.ratios or list(self.ratios) != sorted(set(self.ratios)):
            raise OptionError(f"ratios={self.ratios}: must be rising numbers, such as 0.5,0.7,0.9")


@dataclass(frozen=True)
class SearchOptions:
    """Which single models on the Hub make a bank; ``me`` names an owner and all their models, ``me/model`` one repo.

    Example:
        >>> options = SearchOptions(deny=("eve", "ada/old-model"))
        >>> options.admits("ada/pets"), options.admits("ada/old-model"), options.admits("eve/pets")
        (True, False, False)
    """

    panel: ClassVar[str] = "Search of the Hub"
    by_recipe: ClassVar[bool] = False

    author: str | None = option(None, "Only models of this owner.")
    tags: tuple[str, ...] = option((), "Only models with all of these tags.")
    limit: int | None = option(None, "Most models.", low=1, high=1_000_000)
    allow: tuple[str, ...] = option((), "Owners or repos; if any are given, only their models are used.")
    deny: tuple[str, ...] = option((), "Owners or repos whose models are not used.")
    trusted: tuple[str, ...] = option((), "Owners or repos that you trust; their models are searched first.")

    def __post_init__(self) -> None:
        check(self)
        if self.author is not None and not OWNER.fullmatch(self.author):
            raise OptionError(f"author={self.author[:100]!r} is not the name of an owner: write me, not me/model")
        for name in (*self.allow, *self.deny, *self.trusted):
            if not OWNER.fullmatch(name) and not is_repo_id(name):
                raise OptionError(f"{name[:100]!r} names neither an owner nor a repo (owner/name)")

    def admits(self, repo_id: str) -> bool:
        """Return whether the model of a repo may be used.

        Args:
            repo_id: ``owner/name``.

        Returns:
            False if `deny` names the repo or its owner, or if `allow` has names and neither of these is among them.
        """
        names = {repo_id.lower(), repo_id.partition("/")[0].lower()}
        denied, allowed = ({name.lower() for name in some} for some in (self.deny, self.allow))
        return not names & denied and (not allowed or bool(names & allowed))

    @property
    def first_owners(self) -> list[str]:
        """Owners to list before the others: the trusted ones, and those of trusted repos."""
        owners = dict.fromkeys(name.partition("/")[0] for name in self.trusted)
        return [owner for owner in owners if self.author in (None, owner)]


@dataclass(frozen=True)
class AdaptOptions:
    """Settings of making a sub-network for a new task from a bank.

    An option that is None is open: the recipe for the base and the task's size decides it.

    Example:
        >>> options = AdaptOptions(ratio=0.8, neighbors=3)
        >>> options.strategy, options.vote is None
        ('auto', True)
    """

    panel: ClassVar[str] = "Neighbors, vote and classifier"
    by_recipe: ClassVar[bool] = True  # recipes decide open options

    strategy: str = option(
        "auto",
        "Source of the mask: mvp, a vote of masks; smsp, a vote of score masks; trunk, the trunk of the bank; no-bank, "
        "the base; random, chance; auto, the trunk if the bank has one and no option of a vote is set, else mvp.",
        choices=("auto", "mvp", "smsp", "trunk", "no-bank", "random"),
    )
    preset: str = option(
        "default",
        "Source of the values of options that are left out: the library's recipes, or the paper.",
        choices=("default", "paper"),
    )
    ratio: float | None = option(None, "Share of units removed in every layer; if left out, the bank's own.")
    max_params: int | None = option(None, "Most parameters, instead of a ratio.", low=1)
    max_macs: int | None = option(None, "Most MACs per image, instead of a ratio.", low=1)
    max_latency_ms: float | None = option(
        None, "Most milliseconds per image, one image at a time on this device, instead of a ratio.", low=1e-6
    )
    split: str = option(
        "layer",
        "Which units go: layer, the same share of each layer; global, those that score lowest among all layers.",
        choices=("layer", "global"),
    )
    layer_ratios: tuple[str, ...] = option(
        (), "Ratios of single layers, such as layer1.*=0.5; 0 keeps a whole layer, 1 keeps as few units as possible."
    )
    prune_stem: bool = option(False, "Also prune the layers before the first branch; such a model does not vote.")
    round_to: int = option(
        1, "Round each layer's width to a multiple of this number; attention heads are not rounded.", low=1, high=1024
    )
    neighbors: int | None = option(None, "N: how many entries vote.", low=1, high=100_000, only=BY_VOTE)
    by: str | None = option(
        None,
        "Similarity that finds the neighbors; auto is leep+labels, which looks at a shortlist of a large bank.",
        only=BY_VOTE,
    )
    vote: str | None = option(
        None,
        "How units are chosen: sample, drawn by Equation 1; top, those with most votes.",
        choices=("sample", "top"),
        only={"strategy": ("mvp",)},
    )
    votes_per_owner: int | None = option(
        None,
        "Most neighbors from one owner in a search of the Hub; if left out, fewer than half of the voters, or one.",
        low=1,
        high=100_000,
        only=BY_VOTE,
    )
    tau: float = option(
        1.0,
        "Temperature of the vote's softmax.",
        low=1e-6,
        high=1e6,
        only={"strategy": ("mvp",), "vote": ("sample",)},
    )
    weighted: bool = option(False, "Weight votes by similarity.", only=BY_VOTE)
    normalize: str = option(
        "layer",
        "What score masks are divided by: layer, each layer's mean; global, the mean of all layers; none, nothing.",
        choices=("layer", "global", "none"),
        only={"strategy": ("smsp",)},
    )
    activations: float | None = option(
        None,
        "For the order of units that no neighbor holds: weight of the base's activations on the task's images, beside "
        "the neighbors' scores.",
        low=0.0,
        high=1.0,
        only={"strategy": ("smsp",)},
    )
    weights: str | None = option(
        None,
        "First weights of the units: neighbors, their average where one has the unit, else the base's; base, those of "
        "the base; trunk, those of the bank's trunk; auto, neighbors if they hold enough of the units that stay, as "
        "the recipe says, else base.",
        choices=("auto", "neighbors", "base", "trunk"),
        only=BY_VOTE,
    )
    head: str | None = option(
        None,
        "First weights of the classifier: ridge, by ridge regression on the images; stitched, the neighbors' rows "
        "where they know a class; auto, ridge with the neighbors' rows as the prior; decoded, with a trunk, ridge on "
        "the base's features as the small model tells them, with the base's classifier as the prior; random.",
        choices=("auto", "ridge", "stitched", "decoded", "random"),
    )
    class_votes: bool = option(
        True,
        "With a trunk, let entries that know a class tell what it is like (the mean of its images in the base's "
        "features) where there are fewer than 100; what does not help the task's own images counts nothing.",
        only={"strategy": ("trunk",)},
    )
    statistics: str | None = option(
        None,
        "Batch norm statistics. own: those of the first weights, fixed in training; new: those of the task's images, "
        "before and after training; moving: own, then the averages of the training; auto: before training those that "
        "suit a classifier in closed form best, after it new ones; with few images a trunk's own ones stay fixed.",
        choices=("auto", "own", "new", "moving"),
    )
    leep_samples: int = option(100, "Images that LEEP looks at.", low=2, high=1_000_000, only=BY_VOTE)
    evaluation_share: float = option(
        0.2,
        "Share of each class that is held back if there is no test split; 0: train on all images.",
        low=0.0,
        high=0.9,
    )
    compare: bool = option(False, "Also adapt without the bank, with the best options for that, and report both.")
    image_column: str | None = option(
        None, "Column of the images in parquet or a data set; if left out, it is found by its type."
    )
    label_column: str | None = option(None, "Column of the labels; if left out, it is found by its type and name.")
    synsets: tuple[str | None, ...] | None = option(
        None,
        "WordNet synsets (dog.n.01) or ImageNet ids of the classes, in the order of the labels; empty: unknown.",
    )
    seed: int = option(0, "Seed of every random choice.", low=0, high=2**31 - 1)
    device: str | None = option(None, "Device, such as cpu or cuda:0; if left out, the fastest one.")

    def __post_init__(self) -> None:
        check(self)
        if self.ratio is not None:
            check_ratio(self.ratio)


NOT_SWEPT = frozenset({"ratio", "max_params", "max_macs", "max_latency_ms", "compare"})
"""Options of `AdaptOptions` that a sweep over several sizes does not have."""
SIZE_OPTIONS = frozenset({"ratio", "max_params", "max_macs", "max_latency_ms", "split", "layer_ratios", "round_to"})
"""Options of `AdaptOptions` that only decide how large a model is."""


def merge_options(
    options: AdaptOptions | None, training: TrainingOptions | None, changes: Mapping[str, Any]
) -> tuple[AdaptOptions, TrainingOptions, dict[str, Any]]:
    """Return the options with single changes (None: no change), and all that was set, by name.

    Raises:
        OptionError: an option that neither class has, or a value out of range.
    """
    changes = current_names(changes)
    adapt_fields, training_fields = option_fields(AdaptOptions), option_fields(TrainingOptions)
    for name in changes:
        if name not in adapt_fields and name not in training_fields:
            raise unknown_option(name, {**adapt_fields, **training_fields})
    options = override(options or AdaptOptions(), {k: v for k, v in changes.items() if k in adapt_fields})
    training = override(training or TrainingOptions(), {k: v for k, v in changes.items() if k in training_fields})
    given = {k: v for k, v in changes.items() if v is not None}
    given = given | {k: v for k, v in (given_options(options) | given_options(training)).items() if k not in given}
    return options, training, given
