"""`AdaptReport`: what was measured while a model was adapted, and its text."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..config import AdaptOptions, TrainingOptions
from ..errors import printable
from ..files.names import TOKEN, is_repo_id, public_name, public_source
from ..text import escape_markdown, quantity

USAGE = [
    "To use it, in any program that has `transformers`:",
    "",
    "```python",
    "import hf_metaprune  # pip install hf-metaprune; makes transformers know the model",
    "from transformers import pipeline",
    "",
    'print(pipeline("image-classification", "THIS FOLDER")("photo.jpg"))',
    "```",
]
CONFIDENCE = 1.96
"""Standard deviations of a two-sided interval with 95% confidence."""
FORMER_NAMES = {
    "neighbours": "neighbors",
    "iou_with_neighbours": "iou_with_neighbors",
    "rivals": "baselines",
    "alternatives": "baseline_flops",
}
"""Names of fields in reports of earlier versions, with their names now."""
OPTION_NAMES = frozenset(option.name for options in (AdaptOptions, TrainingOptions) for option in fields(options))
"""The options that a model can be made with; a stranger's report may name others."""
NEIGHBOR_KEYS = frozenset({"id", "labels", "sha256", "repo_id", "revision", "path", "score", "share", "masks"})
"""What a report says about a neighbor."""
LIBRARIES = ("hf_metaprune", "torch", "transformers", "timm", "numpy")
"""The libraries that results depend on."""
VERSION_PATTERN = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!-]{0,40}")
PATH_PATTERN = re.compile(rf"[/\\~=]|{TOKEN}")
"""What is in paths, addresses, settings and tokens, and in no text of a report."""
ENTRY_PATH_PATTERN = re.compile(r"\.|tasks(/[a-z0-9][a-z0-9._-]*){1,2}")
SHOWN_OPTIONS = (
    *("neighbors", "by", "vote", "head", "statistics"),
    *("steps", "batch_size", "lr", "warmup_steps", "ema", "start_share", "freeze_stem"),
)
"""Options that a report shows; `options` has them all."""


@dataclass(repr=False)
class AdaptReport:
    """Everything that was measured while a model was adapted; plain numbers and text throughout.

    Accuracies are shares in [0, 1], and NaN if nothing was measured. Seconds are wall time. MACs count the forward pass
    of one image at the input size, and a MAC is two FLOPs.

    Example:
        >>> report = AdaptReport(accuracy=0.9, test_images=100, evaluated_on="the test split")
        >>> report.headline()
        '90.0% (83% to 94% with 95% confidence) on 100 images (the test split)'
        >>> report.to_dict()["accuracy"]
        0.9
        >>> "the test split" in report.to_markdown()
        True
    """

    accuracy: float = float("nan")
    """Share of the test images that the model classifies correctly."""
    evaluated_on: str = ""
    """The test images in words, or the reason why there are none."""
    accuracy_at_step: dict[int, float] = field(default_factory=dict)
    """Accuracy after so many steps of fine-tuning."""
    baselines: dict[str, dict[int, float]] = field(default_factory=dict)
    """Accuracy after so many steps of the models that this one was compared with, by name."""
    accuracy_per_class: dict[str, float | None] = field(default_factory=dict)
    """Accuracy by label; None or NaN for a class without a test image."""
    confusion: list[list[int]] = field(default_factory=list)
    """Test images by true class (rows) and predicted class (columns)."""
    labels: list[str] = field(default_factory=list)
    """The classes, in the order of the classifier's rows."""
    train_images: int = 0
    """Images that the model learnt from."""
    unlabeled_images: int = 0
    """Images without labels that the base taught the model on."""
    test_images: int = 0
    """Images that the accuracy was measured on."""
    source: str = ""
    """The data set's id on the Hub, or the last part of its path."""
    strategy: str = ""
    """The origin of the mask and the first weights: mvp, smsp, no-bank or random."""
    ratio: float = float("nan")
    """Share of the units that were removed."""
    bank: dict[str, Any] = field(default_factory=dict)
    """The bank's `name`; for a bank on the Hub also its `repo_id` and `revision`."""
    neighbors: list[dict[str, Any]] = field(default_factory=list)
    """The entries that voted: identity (see `Entry.reference`), `score`, `share` of the kept units' votes, `masks`."""
    vote_agreement: dict[str, dict[int, int]] = field(default_factory=dict)
    """By layer and number of neighbors: how many of the kept units that many neighbors keep."""
    iou_with_neighbors: dict[str, list[float]] = field(default_factory=dict)
    """By layer: intersection over union of the kept units with those of each neighbor."""
    head: str = ""
    """The origin of the classifier's first weights."""
    params: int = 0
    """Trainable parameters of the model."""
    base_params: int = 0
    """Trainable parameters of the base with a classifier for these classes."""
    macs: int = 0
    """MACs per image of the model."""
    base_macs: int = 0
    """MACs per image of the base."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    """Median milliseconds per image, one at a time, of the `model` and the `base`."""
    machine: str = ""
    """The kind of processor that was timed."""
    emissions: dict[str, float] = field(default_factory=dict)
    """``energy_kwh`` and ``co2_kg``, if CodeCarbon is installed."""
    training_flops: int = 0
    """FLOPs of all training steps."""
    retrieval_flops: int = 0
    """FLOPs of the ranking of the bank's entries."""
    preparation_flops: int = 0
    """FLOPs of the forward passes before training: the base's activations, BatchNorm statistics, the classifier."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by phase."""
    peak_memory_mb: float = float("nan")
    """Most memory in use, in MB: of the device's allocator on CUDA, of the process elsewhere."""
    baseline_flops: dict[str, int] = field(default_factory=dict)
    """Training FLOPs of pruning without a bank, by method; they were computed, not measured."""
    losses: list[float] = field(default_factory=list)
    """The loss of each step."""
    options: dict[str, Any] = field(default_factory=dict)
    """All options, with the values that were used."""
    given: dict[str, Any] = field(default_factory=dict)
    """The options that the user has set."""
    seed: int = 0
    """Seed of every random choice."""
    versions: dict[str, Any] = field(default_factory=dict)
    """Versions of the libraries that results depend on."""
    device: str = ""
    """The device that the model was trained on."""
    skipped_images: list[str] = field(default_factory=list)
    """Images that could not be read, and why."""
    notes: list[str] = field(default_factory=list)
    """Sentences that the user should know."""

    def __repr__(self) -> str:
        return f"AdaptReport({self.headline()}; {self.params:,} of {self.base_params:,} parameters)"

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the accuracy, by Wilson's score interval (Wilson, 1927): two shares."""
        n, z2 = self.test_images, CONFIDENCE**2
        if not n or math.isnan(self.accuracy):
            return 0.0, 1.0
        middle = (self.accuracy + z2 / (2 * n)) / (1 + z2 / n)
        half = CONFIDENCE / (1 + z2 / n) * math.sqrt(self.accuracy * (1 - self.accuracy) / n + z2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def skipped_summary(self) -> str:
        """A sentence about images that could not be read, or an empty text."""
        n = len(self.skipped_images)
        return f"{quantity(n, 'image')} could not be read, and {'was' if n == 1 else 'were'} left out" if n else ""

    @property
    def training_data(self) -> str:
        """What the model learnt from, in words, escaped for Markdown."""
        text = f"{quantity(self.train_images, 'image')} of {escape_markdown(self.source)}"
        if self.unlabeled_images:
            text += f", and from the base's answers to {quantity(self.unlabeled_images, 'photo')} without labels"
        return text

    @property
    def learning_curves(self) -> dict[str, dict[int, float]]:
        """Accuracy by step of this model, and of the models that it was compared with."""
        return {"this model": self.accuracy_at_step, **self.baselines}

    def with_baseline(self, name: str, accuracy_at_step: dict[int, float]) -> AdaptReport:
        """Return this report with the learning curve of a baseline that was made for the same data.

        Args:
            name: the baseline in words, such as ``without a bank``.
            accuracy_at_step: accuracy of the baseline's model, in [0, 1], by the number of steps before it.
        """
        return replace(self, baselines=self.baselines | {name: accuracy_at_step})

    def headline(self) -> str:
        """Return the accuracy, its confidence interval and the test images in one line.

        Returns:
            One line of plain text.
        """
        evaluated_on = printable(self.evaluated_on)
        if math.isnan(self.accuracy):
            return f"not measured: {evaluated_on}"
        low, high = self.accuracy_interval
        images = f"{self.test_images} image{'s' if self.test_images != 1 else ''}"
        return f"{self.accuracy:.1%} ({low:.0%} to {high:.0%} with 95% confidence) on {images} ({evaluated_on})"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and `accuracy_interval` as JSON values; numbers that are not finite become None.

        Returns:
            A dict that ``json.dumps`` accepts.
        """
        return json.loads(json.dumps(replace_nonfinite(asdict(self) | {"accuracy_interval": self.accuracy_interval})))

    def to_markdown(self, pictures: Mapping[str, str] | None = None) -> str:
        """Return the report as Markdown.

        Args:
            pictures: file names of pictures to show, by title.

        Returns:
            Markdown with tables. Names that come from others are escaped.
        """
        learnt_from = f"Learnt from {self.training_data}."
        parts = [
            [f"# {len(self.labels)} classes: {', '.join(escape_markdown(label) for label in self.labels[:8])}"],
            [f"Accuracy {escape_markdown(self.headline())}. {learnt_from}"],
            self._sizes(),
            self._accuracies(),
            self._voters(),
            self._classes(),
            self._costs(),
            [f"- {escape_markdown(note)}" for note in self.notes],
            [f"{self.skipped_summary}."] if self.skipped_summary else [],
            *([f"![{title}]({name})"] for title, name in (pictures or {}).items()),
            USAGE,
            self._options(),
        ]
        return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"

    def _sizes(self) -> list[str]:
        return [
            f"| ratio {self.ratio:g} | this model | base | share |",
            "| --- | ---: | ---: | ---: |",
            f"| parameters | {self.params:,} | {self.base_params:,} | {self.params / max(1, self.base_params):.1%} |",
            f"| MACs per image | {self.macs:,} | {self.base_macs:,} | {self.macs / max(1, self.base_macs):.1%} |",
            *self._latency(),
        ]

    def _latency(self) -> list[str]:
        if not self.latency_ms:
            return []
        model_ms, base_ms = self.latency_ms["model"], self.latency_ms["base"]
        share = model_ms / max(1e-9, base_ms)
        return [f"| ms per image, one at a time | {model_ms:.1f} | {base_ms:.1f} | {share:.1%} |"]

    def _accuracies(self) -> list[str]:
        curves = self.learning_curves
        steps = sorted({step for curve in curves.values() for step in curve})
        if not steps:
            return []
        lines = ["| accuracy after step | " + " | ".join(map(str, steps)) + " |", "| --- |" + " ---: |" * len(steps)]
        for name, curve in curves.items():
            shares = [f"{curve[step]:.1%}" if step in curve else "" for step in steps]
            lines.append(f"| {escape_markdown(name)} | " + " | ".join(shares) + " |")
        return lines

    def _voters(self) -> list[str]:
        if not self.neighbors:
            return []
        score = escape_markdown(f"score ({self.options.get('by')})")
        lines = [f"| neighbor | {score} | labels |", "| --- | ---: | --- |"]
        for neighbor in self.neighbors:
            name, labels = escape_markdown(voter_name(neighbor)), escape_markdown(", ".join(neighbor["labels"]))
            lines.append(f"| {name} | {neighbor['score']:.3f} | {labels} |")
        voters = len(self.neighbors)
        units_by_votes = dict.fromkeys(range(voters, -1, -1), 0)
        for votes in self.vote_agreement.values():
            for k in votes.keys() & units_by_votes.keys():
                units_by_votes[k] += votes[k]
        shares = [
            f"{units} by {'none' if k == 0 else 'all' if k == voters else k}"
            for k, units in units_by_votes.items()
            if units
        ]
        if voters == 1:
            return [
                *lines,
                "",
                f"It keeps {units_by_votes[1]} of the {sum(units_by_votes.values())} units that this model keeps.",
            ]
        beginning = f"The model keeps {sum(units_by_votes.values())} units. Neighbors that keep them, too"
        return [*lines, "", f"{beginning}: {', '.join(shares)}."]

    def _classes(self) -> list[str]:
        if not self.test_images:
            return []
        lines = ["| class | accuracy |", "| --- | ---: |"]
        for label, accuracy in self.accuracy_per_class.items():
            is_measured = accuracy is not None and not math.isnan(accuracy)
            lines.append(f"| {escape_markdown(label)} | {f'{accuracy:.1%}' if is_measured else 'no test image'} |")
        return lines

    def _costs(self) -> list[str]:
        lines = ["| phase | seconds |", "| --- | ---: |"]
        lines += [f"| {escape_markdown(phase)} | {seconds:.2f} |" for phase, seconds in self.seconds.items()]
        gflops = [self.retrieval_flops, self.preparation_flops, self.training_flops]
        retrieval, preparation, training = (f"{flops / 1e9:.1f}" for flops in gflops)
        unit = "two FLOPs per MAC"
        return [*lines, "", f"GFLOPs ({unit}): {retrieval} to rank, {preparation} to prepare, {training} to train."]

    def _options(self) -> list[str]:
        versions = ", ".join(f"{library} {version}" for library, version in self.versions.items())
        shown_options = [f"{name} {self.options[name]}" for name in SHOWN_OPTIONS if self.options.get(name) is not None]
        lines = [f"Options: {escape_markdown(', '.join(shown_options))}."] if shown_options else []
        return [*lines, f"Seed {self.seed}, device {escape_markdown(self.device)}, {escape_markdown(versions)}."]

    def public_copy(self, mask_bytes: int = 0) -> AdaptReport:
        """Return a copy to publish, without what may tell about this machine.

        Notes, names of files, paths and values that this library does not know are left out.

        Args:
            mask_bytes: bytes of a packed mask of the model; neighbors' masks of another length are left out.
        """
        hidden_counts = {"note": len(self.notes), "unreadable image": len(self.skipped_images)}
        notes = [
            f"{quantity(count, noun)}: see the report where it was made"
            for noun, count in hidden_counts.items()
            if count
        ]
        known_options = {
            name: {key: value for key, value in getattr(self, name).items() if key in OPTION_NAMES}
            for name in ("options", "given")
        }
        bank = {key: value for key, value in self.bank.items() if key in ("name", "repo_id", "revision")}
        if "name" in bank:
            bank["name"] = public_name(str(bank["name"]))
        neighbors = [_public_neighbor(facts, mask_bytes) for facts in self.neighbors]
        versions = {
            name: version
            for name, version in self.versions.items()
            if name in LIBRARIES and VERSION_PATTERN.fullmatch(str(version))
        }
        values = {
            f.name: without_paths(getattr(self, f.name)) for f in fields(self) if f.name not in ("labels", "confusion")
        }
        known_labels = set(self.labels)
        shares = {label: share for label, share in self.accuracy_per_class.items() if label in known_labels}
        values |= known_options | {"versions": versions, "accuracy_per_class": shares}
        values = without_paths(values) | {"bank": _public_place(bank), "neighbors": neighbors}
        values["accuracy_per_class"] = shares
        source = public_source(self.source) or "unnamed images"
        return replace(self, **values | {"notes": notes, "skipped_images": [], "source": source})


def _public_place(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what identifies a bank or a voter, without what is no id of the Hub."""
    place = {key: value for key, value in without_paths(facts).items() if key != "repo_id"}
    repo_id = facts.get("repo_id")
    return place | ({"repo_id": repo_id} if isinstance(repo_id, str) and is_repo_id(repo_id) else {})


def _public_neighbor(facts: dict[str, Any], mask_bytes: int) -> dict[str, Any]:
    neighbor = _public_place({key: value for key, value in facts.items() if key in NEIGHBOR_KEYS - {"labels", "masks"}})
    if isinstance(path := facts.get("path"), str) and ENTRY_PATH_PATTERN.fullmatch(path) and public_name(path):
        neighbor["path"] = path
    with suppress(TypeError, ValueError):
        if len(base64.b64decode(facts.get("masks", ""), validate=True)) == mask_bytes:
            neighbor["masks"] = facts["masks"]
    return {"id": ""} | neighbor | {"labels": facts["labels"]}


def without_paths(value: Any) -> Any:
    """Return a value without texts that may be a path, an address or a token, at all levels.

    Such a text becomes an empty one, and a key with one is left out.

    Example:
        >>> without_paths({"device": "cpu", "/home/ada": 1, "machine": "see /home/ada"})
        {'device': 'cpu', 'machine': ''}
    """
    if isinstance(value, str):
        return "" if PATH_PATTERN.search(value) else value
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items() if without_paths(key) == key}
    return [without_paths(item) for item in value] if isinstance(value, list) else value


def voter_name(neighbor: dict[str, Any]) -> str:
    """Return a neighbor's name for people: the id of its entry, or the repo of a single model on the Hub."""
    repo = neighbor.get("repo_id")
    return repo if isinstance(repo, str) and neighbor.get("path") == "." else neighbor["id"]


def replace_nonfinite(value: Any) -> Any:
    """Return a value with None for numbers that are not finite, because JSON has no NaN."""
    if isinstance(value, dict):
        return {key: replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
