"""The model card of a pruned model: how to use it, its accuracy, its size and its origin."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from ..errors import printable
from ..files.layout import CONFIG, FORMAT_VERSION, SCORES, UNITS_PICTURE, WEIGHTS
from ..files.names import is_repo_id
from ..files.reading import sha256_file
from ..files.storage import read_json
from ..hub.client import LIBRARY, TAG
from ..masks.packing import pack_mask
from ..text import escape_markdown
from .adapted import AdaptedModel
from .card import Card, markdown_table
from .report import AdaptReport, voter_name

PIPELINE = "image-classification"
BASE_RELATION = "finetune"
"""The card's ``base_model_relation``; the Hub knows adapter, merge, quantized and finetune.

The weights are cut out of the base, averaged over fine-tuned sub-networks, and trained. A merge on the Hub is made of
whole models, without training.
"""
MAX_SHOWN_LABELS = 50
PIPELINE_CALL = re.compile(r'"image-classification", "([^"\n]+)"')
"""The call in the snippet that names the model."""
UNITS_TITLE = "Units kept in each layer"
PICTURE_FILES = {UNITS_TITLE: UNITS_PICTURE, "Accuracy by step": "accuracy.png", "Confusion matrix": "confusion.png"}


@dataclass
class ModelCard(Card):
    """The card of one pruned model, made from its report and its config."""

    own_keys: ClassVar[tuple[str, ...]] = (
        *("library_name", "pipeline_tag", "base_model", "base_model_relation", "tags"),
        *("datasets", "metrics", "model-index", "metaprune"),
    )

    name: str
    """The model's name for readers: the repo's id, or the folder's name."""
    config: dict[str, Any]
    """The values of ``config.json`` that the card shows."""
    packed_mask: bytes
    """The kept units of every layer, see `Mask.pack`."""
    report: AdaptReport
    """The measurements; empty if the model came without a report."""
    sha256: str
    """Digest of ``model.safetensors``."""
    size: int
    """Size of ``model.safetensors`` in bytes."""
    license: str | None = None
    """The license to state, such as ``apache-2.0``."""
    scores_sha256: str | None = None
    """Digest of ``mask_scores.safetensors``, if the model has one."""
    pictures: dict[str, str] = field(default_factory=dict)
    """File names of the pictures beside the card, by title."""

    @classmethod
    def from_result(cls, result: AdaptedModel, name: str, license: str | None, folder: Path) -> ModelCard:
        """Make the card of an adapted model whose files are in `folder`."""
        config = result.model.config
        values = {
            key: getattr(config, key) for key in ("base_model", "synsets", "ratio", "method", "metrics", "class_means")
        }
        values["method"] = printable(config.method) if isinstance(config.method, str) else None
        values["labels"] = [config.id2label[i] for i in range(config.num_labels)]
        pictures = {title: file for title, file in PICTURE_FILES.items() if (folder / file).exists()}
        weights = folder / WEIGHTS
        sha256, size = sha256_file(weights), weights.stat().st_size
        values["dtype"] = read_json(folder / CONFIG).get("dtype")
        scores_sha256 = sha256_file(folder / SCORES) if (folder / SCORES).exists() else None
        packed_mask = pack_mask(result.model.mask())
        return cls(name, values, packed_mask, result.report, sha256, size, license, scores_sha256, pictures)

    @property
    def base(self) -> dict[str, Any]:
        """The ``base_model`` block."""
        return self.config.get("base_model") or {}

    @property
    def labels(self) -> list[str]:
        """The class labels, in the order of the classifier's rows."""
        return self.config["labels"]

    @property
    def base_id(self) -> str | None:
        """The Hub id of the base, or of the bank that has the base; never a local path."""
        ids = (self.base.get("repo_id"), self.report.bank.get("repo_id"))
        return next((i for i in ids if isinstance(i, str) and is_repo_id(i)), None)

    def data(self) -> dict[str, Any]:
        source = self.report.source
        return {
            "license": self.license,
            "library_name": LIBRARY,
            "pipeline_tag": PIPELINE,
            "base_model": self.base_id,
            "base_model_relation": BASE_RELATION if self.base_id else None,
            "tags": [TAG, "pruned", "image-classification", "transformers"],
            "datasets": [source] if is_repo_id(source) else None,
            "metrics": ["accuracy"],
            "model-index": self._results(),
            "metaprune": self.facts(),
        }

    def with_own_name(self, text: str) -> str:
        match = PIPELINE_CALL.search(text)
        if match is None:
            return text
        text = text.replace(f"# {escape_markdown(match[1])}\n", f"# {escape_markdown(self.name)}\n", 1)
        return text.replace(match[0], f'"image-classification", "{self.name}"')

    def facts(self) -> dict[str, Any]:
        """Return the ``metaprune`` block: the values of a bank's row, so that a search needs no other file."""
        config = self.config
        return {
            "format_version": FORMAT_VERSION,
            "base_sha256": self.base.get("sha256"),
            "labels": self.labels,
            "synsets": _printable_texts(config.get("synsets")) or [None] * len(self.labels),
            "ratio": config.get("ratio"),
            "method": config.get("method"),
            "masks": base64.b64encode(self.packed_mask).decode(),
            "metrics": _printable_texts(config.get("metrics")) or {},
            "size": self.size,
            "sha256": self.sha256,
            **({"scores_sha256": self.scores_sha256} if self.scores_sha256 else {}),
            **({"class_means": config["class_means"]} if config.get("class_means") else {}),
        }

    def _results(self) -> list[dict[str, Any]] | None:
        report = self.report
        if not report.test_images:
            return None
        source = printable(report.source)
        dataset = {"type": source if is_repo_id(source) else "image-folder", "name": source}
        metric = {"type": "accuracy", "value": round(report.accuracy, 4), "name": "Accuracy", "verified": False}
        result = {
            "task": {"type": PIPELINE, "name": "Image Classification"},
            "dataset": dataset | {"split": printable(report.evaluated_on[:60])},
            "metrics": [metric],
        }
        return [{"name": self.name, "results": [result]}]

    def text(self) -> str:
        parts = [
            f"# {escape_markdown(self.name)}",
            self._summary(),
            "## Use",
            self._usage(),
            "## How good it is",
            *self._accuracy(),
            "## How large and fast it is",
            self._sizes(),
            "## Where it comes from",
            *self._lineage(),
            "## Limits",
            self._limits(),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _summary(self) -> str:
        label_list = ", ".join(escape_markdown(label) for label in self.labels[:MAX_SHOWN_LABELS])
        more_labels = f" and {len(self.labels) - MAX_SHOWN_LABELS} more" if len(self.labels) > MAX_SHOWN_LABELS else ""
        report = self.report
        parameter_share = f": {report.params / report.base_params:.1%} of the parameters" if report.base_params else ""
        return (
            f"Tells {len(self.labels)} classes of images apart: {label_list}{more_labels}. It is a sub-network of "
            f"{self._base_name()}, really cut out{parameter_share}. Made with "
            "[hf-metaprune](https://pypi.org/project/hf-metaprune/) by meta-vote pruning (arXiv 2307.04365)."
        )

    def _base_name(self) -> str:
        library = escape_markdown(str(self.base.get("library") or ""))
        name = f"{escape_markdown(str(self.base.get('architecture')))} ({library})"
        return f"{name} of [{self.base_id}](https://huggingface.co/{self.base_id})" if self.base_id else name

    def _usage(self) -> str:
        return f"```python\n{snippet(self.name)}\n```"

    def _accuracy(self) -> list[str]:
        report = self.report
        if not report.test_images:
            return [self._stated_accuracy()]
        training_data = f"Learnt from {report.training_data}."
        lines = [f"Accuracy {escape_markdown(report.headline())}. {training_data}{self._precision()}"]
        rows = [
            [escape_markdown(label), f"{share:.1%}"]
            for label, share in report.accuracy_per_class.items()
            if share is not None
        ]
        if len(rows) <= MAX_SHOWN_LABELS:
            lines.append(markdown_table(["class", "accuracy"], rows, numbers=1))
        for name, steps in report.baselines.items():
            lines.append(f"For comparison, {escape_markdown(name)}: {list(steps.values())[-1]:.1%}.")
        return lines + [f"![{title}]({name})" for title, name in self.pictures.items() if title != UNITS_TITLE]

    def _stated_accuracy(self) -> str:
        """Return a sentence with the accuracy in the config, for a model that came without a report."""
        metrics = self.config.get("metrics") or {}
        accuracy, images = metrics.get("accuracy"), metrics.get("test_images")
        if not isinstance(accuracy, (int, float)) or not 0 <= accuracy <= 1:
            return "The accuracy was not measured."
        return f"Accuracy {accuracy:.1%}" + (f" on {images} images." if isinstance(images, int) else ".")

    def _precision(self) -> str:
        dtype = self.config.get("dtype") or "float32"
        return (
            ""
            if dtype == "float32"
            else f" It was measured in float32; the weights are stored as {escape_markdown(dtype)}."
        )

    def _sizes(self) -> str:
        report = self.report
        rows = [
            ["parameters", f"{report.params:,}", f"{report.base_params:,}"],
            ["multiply-adds per image", f"{report.macs:,}", f"{report.base_macs:,}"],
        ]
        if report.latency_ms:
            rows.append(["milliseconds per image", *(f"{report.latency_ms[which]:.1f}" for which in ("model", "base"))])
        timing = (
            f"\n\nTime: one image at a time, median, on {escape_markdown(report.machine)}." if report.latency_ms else ""
        )
        sizes = markdown_table(["", "this model", "base"], rows, numbers=2) + timing if report.params else ""
        return (sizes + self._units()).strip()

    def _units(self) -> str:
        return f"\n\n![{UNITS_TITLE}]({self.pictures[UNITS_TITLE]})" if UNITS_TITLE in self.pictures else ""

    def _lineage(self) -> list[str]:
        report = self.report
        lines = [f"- Base: {self._base_name()}, weights' sha256 {escape_markdown(str(self.base.get('sha256'))[:64])}"]
        bank = report.bank.get("repo_id")
        if bank and is_repo_id(bank):
            lines.append(f"- Bank: [{bank}](https://huggingface.co/{bank}) at {_commit(report.bank.get('revision'))}")
        lines.append(
            f"- Method: {escape_markdown(str(self.config.get('method')))}, "
            f"ratio {escape_markdown(str(self.config.get('ratio')))}, seed {escape_markdown(str(report.seed))}"
        )
        steps = escape_markdown(str(report.options.get("steps", "?")))
        lines.append(f"- Training: {steps} steps, {report.training_flops / 1e12:.2f} TFLOPs")
        if report.emissions:
            kwh, grams = report.emissions["energy_kwh"], 1000 * report.emissions["co2_kg"]
            lines.append(f"- Energy: {kwh:.5f} kWh, {grams:.2f} g of CO2 equivalent (measured by CodeCarbon)")
        parts = ["\n".join(lines)]
        if report.neighbors:
            rows = [
                [
                    _voter(neighbor),
                    escape_markdown(", ".join(neighbor["labels"])),
                    f"{neighbor['score']:.3f}",
                    f"{neighbor.get('share', 0):.0%}",
                ]
                for neighbor in report.neighbors
            ]
            score_header = escape_markdown(f"score ({report.options.get('by')})")
            parts.append("Its mask was voted, and its first weights averaged, by:")
            parts.append(markdown_table(["model", "classes", score_header, "share of the votes"], rows, numbers=2))
        return parts

    def _limits(self) -> str:
        license = f"License: {escape_markdown(self.license)}." if self.license else (
            "No license is stated: those of the base, the neighbors and the images apply."
        )  # fmt: skip
        return (
            "It knows only the classes above, and gives one of them for whatever it is shown. The accuracy holds for "
            "images like those it was measured on. What the base has learnt of its own training images, faults "
            f"included, is in its weights. {license}"
        )


def snippet(model: str) -> str:
    """Return a short program that uses a model; a test runs it."""
    return "\n".join(
        [
            "# pip install hf-metaprune; its import makes transformers know the model",
            "import hf_metaprune",
            "from transformers import pipeline",
            "",
            f'classify = pipeline("image-classification", "{model}")',
            'print(classify("photo.jpg"))',
        ]
    )


def _voter(neighbor: dict[str, Any]) -> str:
    """Return a neighbor's name, with a link to the commit that voted if it is on the Hub."""
    name, repo, revision = (
        escape_markdown(voter_name(neighbor)),
        neighbor.get("repo_id"),
        str(neighbor.get("revision") or ""),
    )
    if not (isinstance(repo, str) and is_repo_id(repo) and revision.isalnum()):
        return name
    path = neighbor.get("path") or "."
    address = f"https://huggingface.co/{repo}/tree/{revision}" + ("" if path == "." else f"/{quote(str(path))}")
    source = "" if path == "." else f" of {repo}"
    return f"[{name}]({address}){source} at {_commit(revision[:12])}"


def _commit(revision: Any) -> str:
    return f"`{revision}`" if re.fullmatch(r"[0-9a-f]{1,40}", str(revision)) else escape_markdown(str(revision)[:40])


def _printable_texts(value: Any) -> Any:
    """Return a JSON value whose texts, at all levels, have only characters that can be shown."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _printable_texts(item) for key, item in value.items()}
    return [_printable_texts(item) for item in value] if isinstance(value, (list, tuple)) else value
