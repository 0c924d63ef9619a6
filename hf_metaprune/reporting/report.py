"""What an adaptation did: one dataclass, written as JSON, Markdown and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..text import counted, inline

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
CONFIDENCE = 1.96  # standard deviations: 95%
FORMER_NAMES = {
    "neighbours": "neighbors",
    "iou_with_neighbours": "iou_with_neighbors",
    "rivals": "baselines",
    "alternatives": "baseline_flops",
}
"""Fields that reports of earlier versions have under another name."""
CHOSEN = (
    *("neighbors", "by", "vote", "head", "recalibrate"),
    *("steps", "batch_size", "lr", "warmup_steps", "ema", "freeze_stem"),
)
"""Options that a report shows; `options` has them all."""


@dataclass(repr=False)
class AdaptReport:
    """Everything that was measured while a model was adapted; plain numbers and text throughout.

    Accuracies are shares in [0, 1], NaN if nothing was measured. Seconds are wall time. MACs count one image's forward
    pass at the input size, and a MAC is two FLOPs.
    """

    accuracy: float = float("nan")
    """Share of the test images that the model recognizes."""
    evaluated_on: str = ""
    """Which images those are, or why there are none."""
    accuracy_at_step: dict[int, float] = field(default_factory=dict)
    """Accuracy after so many steps of fine-tuning."""
    baselines: dict[str, dict[int, float]] = field(default_factory=dict)
    """The same of what the model was compared with, by its name."""
    accuracy_per_class: dict[str, float | None] = field(default_factory=dict)
    """Accuracy by label; None or NaN for a class without a test image."""
    confusion: list[list[int]] = field(default_factory=list)
    """Test images by true class (rows) and predicted class (columns)."""
    labels: list[str] = field(default_factory=list)
    """The classes, in the order of the classifier's rows."""
    train_images: int = 0
    """Images that the model learnt from."""
    test_images: int = 0
    """Images that the accuracy was measured on."""
    source: str = ""
    """The data set's id on the Hub, or the last part of a path."""
    strategy: str = ""
    """Where the mask and the first weights came from: mvp, smsp, no-bank or random."""
    ratio: float = float("nan")
    """Share of the units that were removed."""
    bank: dict[str, Any] = field(default_factory=dict)
    """The bank's `name`; for a bank on the Hub also its `repo_id` and `revision`."""
    neighbors: list[dict[str, Any]] = field(default_factory=list)
    """The entries that voted: what names each, its `score`, its `share` of the kept units' votes, its `masks`."""
    vote_agreement: dict[str, dict[int, int]] = field(default_factory=dict)
    """By layer: how many of the kept units are held by so many neighbors."""
    iou_with_neighbors: dict[str, list[float]] = field(default_factory=dict)
    """By layer: intersection over union of the kept units with those of each neighbor."""
    head: str = ""
    """How the classifier got its first weights."""
    params: int = 0
    """Trainable numbers of the model."""
    base_params: int = 0
    """Trainable numbers of the base with a classifier for these classes."""
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
    """FLOPs of the forward passes between: the base's activations, batch norm statistics, the classifier."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by phase."""
    peak_memory_mb: float = float("nan")
    """Most memory held: by the device's allocator on CUDA, by the process elsewhere."""
    baseline_flops: dict[str, int] = field(default_factory=dict)
    """Training FLOPs of ways without a bank, by their name; they were counted and not run."""
    losses: list[float] = field(default_factory=list)
    """The loss of each step."""
    options: dict[str, Any] = field(default_factory=dict)
    """All options, with every choice made."""
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
    """What the user should know."""

    def __repr__(self) -> str:
        return f"AdaptReport({self.headline()}; {self.params:,} of {self.base_params:,} parameters)"

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Where the accuracy on ever more images would lie with 95% confidence (Wilson, 1927)."""
        n, z2 = self.test_images, CONFIDENCE**2
        if not n or math.isnan(self.accuracy):
            return 0.0, 1.0
        middle = (self.accuracy + z2 / (2 * n)) / (1 + z2 / n)
        half = CONFIDENCE / (1 + z2 / n) * math.sqrt(self.accuracy * (1 - self.accuracy) / n + z2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def skipped_words(self) -> str:
        """How many images were left out, if any."""
        n = len(self.skipped_images)
        return f"{counted(n, 'image')} could not be read, and {'was' if n == 1 else 'were'} left out" if n else ""

    @property
    def learning_curves(self) -> dict[str, dict[int, float]]:
        """Accuracy by step of this model, and of what it was compared with."""
        return {"this model": self.accuracy_at_step, **self.baselines}

    def headline(self) -> str:
        """The accuracy, how sure it is, and on what it was measured, in one line."""
        if math.isnan(self.accuracy):
            return f"not measured: {self.evaluated_on}"
        low, high = self.accuracy_interval
        images = f"{self.test_images} image{'s' if self.test_images != 1 else ''}"
        return f"{self.accuracy:.1%} ({low:.0%} to {high:.0%} with 95% confidence) on {images} ({self.evaluated_on})"

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, with `accuracy_interval`; numbers that are not finite become None."""
        return json.loads(json.dumps(finite(asdict(self) | {"accuracy_interval": self.accuracy_interval})))

    def to_markdown(self, pictures: Mapping[str, str] | None = None) -> str:
        """As a page of Markdown; `pictures` maps titles to file names."""
        parts = [
            [f"# {len(self.labels)} classes: {', '.join(inline(label) for label in self.labels[:8])}"],
            [f"Accuracy {inline(self.headline())}. Learnt from {self.train_images} images of {inline(self.source)}."],
            self._sizes(),
            self._accuracies(),
            self._voters(),
            self._classes(),
            self._costs(),
            [f"- {inline(note)}" for note in self.notes],
            [f"{self.skipped_words}."] if self.skipped_words else [],
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
            f"| MACs an image | {self.macs:,} | {self.base_macs:,} | {self.macs / max(1, self.base_macs):.1%} |",
            *self._latency(),
        ]

    def _latency(self) -> list[str]:
        if not self.latency_ms:
            return []
        mine, base = self.latency_ms["model"], self.latency_ms["base"]
        return [f"| ms an image, one at a time | {mine:.1f} | {base:.1f} | {mine / max(1e-9, base):.1%} |"]

    def _accuracies(self) -> list[str]:
        ways = self.learning_curves
        steps = sorted({step for way in ways.values() for step in way})
        if not steps:
            return []
        lines = ["| accuracy after step | " + " | ".join(map(str, steps)) + " |", "| --- |" + " ---: |" * len(steps)]
        for name, way in ways.items():
            shares = [f"{way[step]:.1%}" if step in way else "" for step in steps]
            lines.append(f"| {inline(name)} | " + " | ".join(shares) + " |")
        return lines

    def _voters(self) -> list[str]:
        if not self.neighbors:
            return []
        score = inline(f"score ({self.options.get('by')})")
        lines = [f"| neighbor | {score} | labels |", "| --- | ---: | --- |"]
        for n in self.neighbors:
            lines.append(f"| {inline(voter_name(n))} | {n['score']:.3f} | {inline(', '.join(n['labels']))} |")
        voters = len(self.neighbors)
        held = {k: sum(votes.get(k, 0) for votes in self.vote_agreement.values()) for k in range(voters, -1, -1)}
        shares = [f"{n} by {'none' if k == 0 else 'all' if k == voters else k}" for k, n in held.items() if n]
        if voters == 1:
            return [*lines, "", f"It keeps {held[1]} of the {sum(held.values())} units that this model keeps."]
        kept = f"Of the {sum(held.values())} units that this model keeps, its neighbors keep"
        return [*lines, "", f"{kept}: {', '.join(shares)}."]

    def _classes(self) -> list[str]:
        if not self.test_images:
            return []
        lines = ["| class | accuracy |", "| --- | ---: |"]
        for label, a in self.accuracy_per_class.items():
            lines.append(f"| {inline(label)} | {'no test image' if a is None or math.isnan(a) else f'{a:.1%}'} |")
        return lines

    def _costs(self) -> list[str]:
        lines = ["| phase | seconds |", "| --- | ---: |"]
        lines += [f"| {inline(phase)} | {s:.2f} |" for phase, s in self.seconds.items()]
        gflops = [self.retrieval_flops, self.preparation_flops, self.training_flops]
        retrieval, preparation, training = (f"{n / 1e9:.1f}" for n in gflops)
        counted = "two FLOPs a MAC"
        return [*lines, "", f"GFLOPs ({counted}): {retrieval} to rank, {preparation} to prepare, {training} to train."]

    def _options(self) -> list[str]:
        used = ", ".join(f"{library} {version}" for library, version in self.versions.items())
        chosen = [f"{name} {self.options[name]}" for name in CHOSEN if self.options.get(name) is not None]
        lines = [f"Options: {inline(', '.join(chosen))}."] if chosen else []
        return [*lines, f"Seed {self.seed}, device {inline(self.device)}, {inline(used)}."]

    def public(self) -> AdaptReport:
        """What others may see of it: notes, and names of photos that could not be read, may tell of this machine."""
        told = {"note": len(self.notes), "unreadable image": len(self.skipped_images)}
        notes = [f"{counted(n, what)}: see the report where it was made" for what, n in told.items() if n]
        return replace(self, notes=notes, skipped_images=[])


def voter_name(neighbor: dict[str, Any]) -> str:
    """What people call a neighbor: its entry's id, or the repo of a single model on the Hub."""
    repo = neighbor.get("repo_id")
    return repo if isinstance(repo, str) and neighbor.get("path") == "." else neighbor["id"]


def finite(value: Any) -> Any:
    """The value with numbers that are not finite as None: JSON knows no NaN."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
