"""What an adaptation did: one dataclass, written as JSON, Markdown and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import FormatError
from .storage import read_json, write_bytes, write_json


@dataclass
class AdaptReport:
    """Everything measured while a model was adapted; plain numbers and text throughout.

    Accuracies are shares in [0, 1]; seconds are wall time; MACs count one image's forward pass at the input size;
    FLOPs are two a MAC: `training_flops` of all training steps, `retrieval_flops` of the ranking of the bank, and
    `preparation_flops` of the forward passes between (the base's activations, batch norm statistics, the classifier).
    """

    accuracy: float = float("nan")
    evaluated_on: str = ""
    accuracy_at_step: dict[int, float] = field(default_factory=dict)
    accuracy_per_class: dict[str, float | None] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    train_images: int = 0
    test_images: int = 0
    source: str = ""
    strategy: str = ""
    ratio: float = float("nan")
    neighbours: list[dict[str, Any]] = field(default_factory=list)
    vote_agreement: dict[str, dict[int, int]] = field(default_factory=dict)
    iou_with_neighbours: dict[str, list[float]] = field(default_factory=dict)
    head: str = ""
    params: int = 0
    base_params: int = 0
    macs: int = 0
    base_macs: int = 0
    training_flops: int = 0
    retrieval_flops: int = 0
    preparation_flops: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float = float("nan")
    losses: list[float] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    versions: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    skipped_images: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; numbers that are not finite become None."""
        return json.loads(json.dumps(_finite(asdict(self))))

    @classmethod
    def load(cls, path: Path) -> AdaptReport:
        """From a ``report.json``; fields it lacks keep their defaults, and those unknown here are ignored.

        Raises:
            FormatError: it cannot be read.
        """
        values = read_json(path)
        known = {f.name for f in fields(cls)}
        try:
            report = cls(**{k: v for k, v in values.items() if k in known and v is not None})
            report.accuracy_at_step = {int(k): v for k, v in report.accuracy_at_step.items()}
            report.vote_agreement = {
                layer: {int(k): n for k, n in votes.items()} for layer, votes in report.vote_agreement.items()
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{path} is not a report: {error}") from error
        return report

    def to_markdown(self, pictures: Mapping[str, str] | None = None) -> str:
        """As a page of Markdown; `pictures` maps titles to file names."""
        held = "held" if len(self.neighbours) != 1 else "held by the one neighbour"
        lines = [
            f"# {len(self.labels)} classes at ratio {self.ratio:g}: {self.accuracy:.1%} on {self.evaluated_on}",
            "",
            f"Learnt from {self.train_images} images of {_inline(self.source)}, measured on {self.test_images}.",
            "",
            "| | this model | base | share |",
            "| --- | ---: | ---: | ---: |",
            f"| parameters | {self.params:,} | {self.base_params:,} | {self.params / max(1, self.base_params):.1%} |",
            f"| MACs an image | {self.macs:,} | {self.base_macs:,} | {self.macs / max(1, self.base_macs):.1%} |",
            "",
            "| step | " + " | ".join(str(s) for s in self.accuracy_at_step) + " |",
            "| --- |" + " ---: |" * len(self.accuracy_at_step),
            "| accuracy | " + " | ".join(f"{a:.1%}" for a in self.accuracy_at_step.values()) + " |",
            "",
        ]
        if self.neighbours:
            by = _inline(self.options.get("by") or "similarity")
            lines += [f"| neighbour | {by} | labels |", "| --- | ---: | --- |"]
            for n in self.neighbours:
                lines.append(f"| {_inline(n['id'])} | {n['score']:.3f} | {_inline(', '.join(n['labels']))} |")
            total = {k: sum(t[k] for t in self.vote_agreement.values()) for k in range(len(self.neighbours) + 1)}
            shares = ", ".join(f"{v} by {k}" for k, v in total.items())
            lines += ["", f"Of the kept units, {shares} of the {len(self.neighbours)} neighbours {held}.", ""]
        lines += ["| class | accuracy |", "| --- | ---: |"]
        for label, a in self.accuracy_per_class.items():
            lines.append(f"| {_inline(label)} | {'no test image' if a is None or math.isnan(a) else f'{a:.1%}'} |")
        lines += ["", "| phase | seconds |", "| --- | ---: |"]
        lines += [f"| {phase} | {s:.2f} |" for phase, s in self.seconds.items()]
        gflops = [self.retrieval_flops, self.preparation_flops, self.training_flops]
        retrieval, preparation, training = (f"{n / 1e9:.1f}" for n in gflops)
        lines += ["", f"GFLOPs: {retrieval} to rank the bank, {preparation} to prepare, {training} to train."]
        lines += ["", *(f"- {_inline(note)}" for note in self.notes)]
        if self.skipped_images:
            lines += ["", f"{len(self.skipped_images)} unreadable images were skipped."]
        used = ", ".join(f"{library} {version}" for library, version in self.versions.items())
        for title, name in (pictures or {}).items():
            lines += ["", f"![{title}]({name})"]
        lines += [
            "",
            f"Seed {self.seed}, device {self.device}, {_inline(used)}.",
            "",
        ]
        return "\n".join(lines)

    def save(self, folder: Path) -> None:
        """Write ``report.json``, ``report.md`` and the pictures it shows."""
        from .plots import report_pictures

        folder.mkdir(parents=True, exist_ok=True)
        pictures = {}
        for title, (name, png) in report_pictures(self).items():
            write_bytes(folder / name, png)
            pictures[title] = name
        write_json(folder / "report.json", self.to_dict())
        write_bytes(folder / "report.md", self.to_markdown(pictures).encode())


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _inline(text: str) -> str:
    """Text from others as plain Markdown text: no markup, no line breaks, no table bars."""
    text = " ".join(str(text).split())
    for char in "\\`*_{}[]<>#|!&":
        text = text.replace(char, "&#" + str(ord(char)) + ";") if char in "<>&" else text.replace(char, "\\" + char)
    return text
