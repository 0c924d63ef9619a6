"""Every option once: frozen dataclasses whose fields carry their help; the CLI and the docs are made from them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from .errors import OptionError
from .files.names import OWNER, is_repo_id

T = TypeVar("T")

FORMER_OPTIONS = {"neighbours": "neighbors", "normalise": "normalize"}
"""Names of options in earlier versions; they still work, with a warning."""
FORMER_VALUES = {("weights", "neighbours"): "neighbors"}
"""Values of options in earlier versions; likewise."""


def option(default: Any, help: str, **metadata: Any) -> Any:
    """Return a dataclass field with its help text.

    Args:
        default: the value if the option is left out. None: the option is open, and a recipe decides.
        help: what the option does, in a sentence.
        metadata: `choices`, `low` and `high`, which `check` checks; `only`, the values of other options that this
            option needs to do anything (see `unused_options`); `fallback`, the value of an open option where there is
            no recipe (see `TrainingOptions.closed`).
    """
    return field(default=default, metadata={"help": help, **metadata})


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_int, "a whole number"),
    "float": (lambda v: _is_int(v) or isinstance(v, float), "a number"),
    "bool": (lambda v: isinstance(v, bool), "True or False"),
    "str": (lambda v: isinstance(v, str), "text"),
    "tuple[int, ...]": (lambda v: isinstance(v, (tuple, list)) and all(map(_is_int, v)), "whole numbers"),
    "tuple[str, ...]": (
        lambda v: isinstance(v, (tuple, list)) and all(isinstance(t, str) for t in v),
        "texts",
    ),
    "tuple[str | None, ...]": (
        lambda v: isinstance(v, (tuple, list)) and all(t is None or isinstance(t, str) for t in v),
        "texts, or None for what is not known",
    ),
}
"""What a field of each type accepts, and how to say so."""


def check(options: Any) -> None:
    """Check every field of an options dataclass against its metadata.

    Raises:
        OptionError: names the option, its value, and what it may be.
    """
    for f in fields(options):
        value, meta = getattr(options, f.name), f.metadata
        if value is None and (str(f.type).endswith("| None") or "fallback" in meta):
            continue
        kind = str(f.type).removesuffix(" | None")
        if not _KINDS[kind][0](value):
            raise OptionError(f"{f.name}={value!r}: must be {_KINDS[kind][1]}")
        if "choices" in meta and value not in meta["choices"]:
            raise OptionError(f"{f.name}={value!r}: must be one of {', '.join(map(str, meta['choices']))}")
        low, high = meta.get("low"), meta.get("high")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            raise OptionError(f"{f.name}={value!r}: must be {bounds}")


def unused_options(given: Collection[str], options: Any) -> list[str]:
    """Return a sentence about each option that does nothing with the others.

    Args:
        given: the names of options that a user has set.
        options: the dataclass that has them, with every choice made.
    """
    return [
        f"{f.name} does nothing with {name}={getattr(options, name)}: it is for {' or '.join(values)}"
        for f in fields(options)
        if f.name in given
        for name, values in f.metadata.get("only", {}).items()
        if getattr(options, name) not in values
    ]


OPTIMIZERS = ("sgd", "adamw")
VOTED = ("mvp", "smsp")
"""Strategies that need neighbors."""
BY_VOTE = {"strategy": VOTED}


def check_ratio(ratio: float) -> float:
    """`ratio` itself, or `OptionError` if it is not inside (0, 1)."""
    if not 0.0 < ratio < 1.0:
        raise OptionError(f"the pruning ratio must lie strictly between 0 and 1, not {ratio}; 0.9 removes 90% of units")
    return float(ratio)


@dataclass(frozen=True)
class TrainingOptions:
    """How a sub-network is fine-tuned.

    None means: as the recipe for the base and the task's size says; outside an adaptation, as MVP, Section 5.1, says
    (see `closed`).
    """

    panel: ClassVar[str] = "Fine-tuning"
    by_recipe: ClassVar[bool] = True  # what is left open in an adaptation

    steps: int = option(100, "Optimizer steps.", low=0, high=1_000_000)
    batch_size: int = option(128, "Images a step; fewer if the task has fewer.", low=2, high=65536)
    optimizer: str = option(None, "Optimizer of the weights.", choices=OPTIMIZERS, fallback="sgd")
    lr: float = option(
        None,
        "Peak learning rate; the recipe's is lower where more of a ViT stays and images are few.",
        low=0.0,
        high=100.0,
        fallback=0.01,
    )
    momentum: float = option(None, "Momentum of SGD.", low=0.0, high=0.9999, only={"optimizer": ("sgd",)}, fallback=0.9)
    weight_decay: float = option(0.0, "Weight decay, on weights but not on biases and norms.", low=0.0, high=1.0)
    schedule: str = option("cosine", "Learning rate after warm-up.", choices=("cosine", "constant"))
    warmup_steps: int = option(
        None, "Steps in which the learning rate rises to its peak.", low=0, high=1_000_000, fallback=0
    )
    ema: float = option(
        None, "Decay of a moving average of the weights, used in the end; 0: none.", low=0.0, high=0.9999, fallback=0.0
    )
    mixup: float = option(
        None, "Mixup: both parameters of its Beta distribution; 0: none.", low=0.0, high=100.0, fallback=0.0
    )
    label_smoothing: float = option(0.0, "Label smoothing.", low=0.0, high=0.999)
    clip_norm: float = option(0.0, "Largest norm of the gradient; 0: not clipped.", low=0.0)
    freeze_stem: bool = option(None, "Leave what comes before the first prunable layer as it is.", fallback=False)
    flip: bool = option(True, "Mirror images at random.")
    shift: float = option(0.125, "Largest random shift, as a share of the image's side.", low=0.0, high=0.5)
    precision: str = option("auto", "Arithmetic of forward passes.", choices=("auto", "fp32", "bf16"))
    eval_steps: tuple[int, ...] = option(
        (0, 20, 50, 100), "Steps after which accuracy is measured; the last always is."
    )
    patience: int = option(
        0, "Stop after so many evaluations without a better accuracy (which then is no fair test); 0: never.", low=0
    )

    def __post_init__(self) -> None:
        check(self)

    def closed(self) -> TrainingOptions:
        """Return the options with MVP's value (Section 5.1) for each that is still open."""
        open_fields = [f for f in fields(self) if getattr(self, f.name) is None]
        return replace(self, **{f.name: f.metadata["fallback"] for f in open_fields})


@dataclass(frozen=True)
class MethodOptions:
    """How a bank entry is pruned from the base model, whatever the method; a method adds its own in a class below this.

    The defaults are those of MVP, Section 3.1.
    """

    panel: ClassVar[str] = "Pruning"
    by_recipe: ClassVar[bool] = False

    ratio: float = option(0.9, "r: share of units removed in every layer.")
    steps: int = option(1000, "J: optimizer steps.", low=1, high=1_000_000)
    batch_size: int = option(128, "Images per step.", low=2, high=65536)
    precision: str = option("auto", "Arithmetic of forward passes.", choices=("auto", "fp32", "bf16"))

    def __post_init__(self) -> None:
        check(self)
        check_ratio(self.ratio)


@dataclass(frozen=True)
class SearchOptions:
    """Which single models on the Hub make a bank; owners are named like ``me``, repos like ``me/model``."""

    panel: ClassVar[str] = "Search of the Hub"
    by_recipe: ClassVar[bool] = False

    author: str | None = option(None, "Only models of this owner.")
    tags: tuple[str, ...] = option((), "Only models with all of these tags.")
    limit: int | None = option(None, "Most models.", low=1, high=1_000_000)
    allow: tuple[str, ...] = option((), "Owners or repos; if there are any, nobody else's models are used.")
    deny: tuple[str, ...] = option((), "Owners or repos whose models are not used.")
    trusted: tuple[str, ...] = option((), "Owners or repos, signed off by you, that are looked at before the others.")

    def __post_init__(self) -> None:
        check(self)
        if self.author is not None and not OWNER.fullmatch(self.author):
            raise OptionError(f"author={self.author[:100]!r} is no owner: name one like me, not me/model")
        for name in (*self.allow, *self.deny, *self.trusted):
            if not OWNER.fullmatch(name) and not is_repo_id(name):
                raise OptionError(f"{name[:100]!r} names neither an owner nor a repo (owner/name)")

    def admits(self, repo_id: str) -> bool:
        """Return whether the model of a repo may be used.

        Args:
            repo_id: ``owner/name``.
        """
        names = {repo_id.lower(), repo_id.partition("/")[0].lower()}
        denied, allowed = ({name.lower() for name in some} for some in (self.deny, self.allow))
        return not names & denied and (not allowed or bool(names & allowed))

    @property
    def first_owners(self) -> list[str]:
        """Owners to list before the others: the trusted ones, and those of trusted repos."""
        owners = dict.fromkeys(name.partition("/")[0] for name in self.trusted)
        return [owner for owner in owners if self.author in (None, owner)]


def option_fields(cls: type) -> dict[str, Field]:
    """Return the fields of an options dataclass by name."""
    return {f.name: f for f in fields(cls) if f.default is not MISSING}


def override(options: T, changes: Mapping[str, Any]) -> T:
    """Return a copy of an options dataclass with some fields changed; None leaves a field as it is.

    Raises:
        OptionError: no such option (the nearest names are suggested), or a value out of range.
    """
    known = option_fields(type(options))
    for name in changes:
        if name not in known:
            raise unknown_option(name, known)
    return replace(options, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[type-var]


def current_names(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes under the names that options have now; a former name is warned about.

    Raises:
        OptionError: an option is given under both names.
    """
    renamed: dict[str, Any] = {}
    for name, value in changes.items():
        current = FORMER_OPTIONS.get(name, name)
        if current != name:
            warnings.warn(f"option {name!r} is called {current!r} now", FutureWarning, stacklevel=4)
        if current in renamed:
            raise OptionError(f"{name!r} and {current!r} are the same option: pass one of them")
        if isinstance(value, str) and (current, value) in FORMER_VALUES:
            warnings.warn(
                f"{current}={value!r} is called {FORMER_VALUES[current, value]!r} now", FutureWarning, stacklevel=4
            )
            value = FORMER_VALUES[current, value]
        renamed[current] = value
    return renamed


def unknown_option(name: str, known: Any) -> OptionError:
    """Return the error for an option that does not exist."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    return OptionError(f"there is no option {name!r}; {hint}")


@dataclass(frozen=True)
class AdaptOptions:
    """How a sub-network for a new task is made from a bank; None means: as the recipe for the task's size says."""

    panel: ClassVar[str] = "Neighbors, vote and classifier"
    by_recipe: ClassVar[bool] = True  # what is left open in an adaptation

    strategy: str = option(
        "mvp",
        "Where the mask and the weights come from: votes of masks, votes of score masks, the base, chance.",
        choices=("mvp", "smsp", "no-bank", "random"),
    )
    preset: str = option("default", "Where options left open come from.", choices=("default", "paper"))
    ratio: float | None = option(None, "Share of units removed in every layer; the bank's own if left out.")
    max_params: int | None = option(None, "Most parameters, instead of a ratio.", low=1)
    max_macs: int | None = option(None, "Most MACs an image, instead of a ratio.", low=1)
    max_latency_ms: float | None = option(
        None, "Most milliseconds an image, one at a time on this device, instead of a ratio.", low=1e-6
    )
    split: str = option(
        "layer",
        "What is removed: the same share of each layer, or the units that score lowest of all layers.",
        choices=("layer", "global"),
    )
    layer_ratios: tuple[str, ...] = option(
        (), "Ratios of single layers, such as layer1.*=0.5; 0 keeps a layer whole, 1 leaves as little as can be."
    )
    prune_stem: bool = option(False, "Prune what comes before the first branch, too; such a model does not vote.")
    round_to: int = option(1, "Multiple that widths are rounded to, but for attention heads.", low=1, high=1024)
    neighbors: int | None = option(None, "N: how many entries vote.", low=1, high=100_000, only=BY_VOTE)
    by: str | None = option(
        None,
        "Similarity that finds the neighbors; auto is leep+labels, in a large bank of a shortlist.",
        only=BY_VOTE,
    )
    vote: str | None = option(
        None,
        "Draw units by Equation 1, or take those with most votes.",
        choices=("sample", "top"),
        only={"strategy": ("mvp",)},
    )
    votes_per_owner: int | None = option(
        None,
        "Most neighbors of one owner in a search of the Hub; fewer than half if left out.",
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
        "How score masks are made comparable: by each layer's mean, by the mean of all layers, or not at all.",
        choices=("layer", "global", "none"),
        only={"strategy": ("smsp",)},
    )
    activations: float | None = option(
        None,
        "How much the base's activations on the task's images count, beside the neighbors' scores, in the order of "
        "units that no neighbor holds.",
        low=0.0,
        high=1.0,
        only={"strategy": ("smsp",)},
    )
    weights: str | None = option(
        None,
        "First weights of voted units: the neighbors' where they hold a unit and the base's elsewhere, or the base's; "
        "auto: the neighbors' if they hold two fifths of the units that stay, of a ViT three quarters.",
        choices=("auto", "neighbors", "base"),
        only=BY_VOTE,
    )
    head: str | None = option(None, "The classifier's start.", choices=("auto", "ridge", "stitched", "random"))
    recalibrate: bool | None = option(
        None, "Take batch norm statistics anew from the task's images, before and after training."
    )
    leep_samples: int = option(100, "Images that LEEP looks at.", low=2, high=1_000_000, only=BY_VOTE)
    evaluation_share: float = option(
        0.2, "Part of each class held back if there is no test split; 0: learn from all.", low=0.0, high=0.9
    )
    compare: bool = option(False, "Also adapt without the bank, as well as can be, and report both.")
    image_column: str | None = option(None, "The column of images in parquet or a data set, if it cannot be found.")
    label_column: str | None = option(None, "The column of labels, if it cannot be found.")
    synsets: tuple[str | None, ...] | None = option(
        None,
        "WordNet synsets (dog.n.01) or ImageNet ids of the classes, in the order of their labels; left empty: unknown.",
    )
    seed: int = option(0, "Seed of every random choice.", low=0, high=2**31 - 1)
    device: str | None = option(None, "Device to run on, such as cpu or cuda:0; the best one if left out.")

    def __post_init__(self) -> None:
        check(self)
        if self.ratio is not None:
            check_ratio(self.ratio)


NOT_SWEPT = frozenset({"ratio", "max_params", "max_macs", "max_latency_ms", "compare"})
"""Options of `AdaptOptions` that make no sense where several sizes are made."""


SIZE_OPTIONS = frozenset({"ratio", "max_params", "max_macs", "max_latency_ms", "split", "layer_ratios", "round_to"})
"""Options of `AdaptOptions` that say how large a model is, and nothing else."""


def given_options(options: Any) -> dict[str, Any]:
    """Return the fields of an options dataclass that differ from their defaults."""
    return {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) != f.default}


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
    merged = override(options or AdaptOptions(), {k: v for k, v in changes.items() if k in adapt_fields})
    trained = override(training or TrainingOptions(), {k: v for k, v in changes.items() if k in training_fields})
    given = {k: v for k, v in changes.items() if v is not None}
    given = given | {k: v for k, v in (given_options(merged) | given_options(trained)).items() if k not in given}
    return merged, trained, given
