"""The model card of a pruned model: what it is, how good, how large, from whom it comes, and how to use it."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from ..files.layout import CONFIG, FORMAT_VERSION, SCORES, UNITS_PICTURE, WEIGHTS
from ..files.names import is_repo_id
from ..files.storage import read_json
from ..hub.client import LIBRARY, TAG
from ..masks.packing import pack_mask
from ..models.base_model import sha256_file
from ..text import inline
from .adapted import Adapted
from .card import Card, table
from .report import AdaptReport, voter_name

PIPELINE = "image-classification"
RELATION = "finetune"
"""``base_model_relation``: of adapter, merge, quantized and finetune, which the Hub knows, the one that is true.

The weights are the base's, cut out, averaged over its fine-tuned sub-networks and trained on; a merge on the Hub is
made of whole models, without training.
"""
SHOWN_LABELS = 50
NAMED = re.compile(r'"image-classification", "([^"\n]+)"')
"""What the snippet calls the model."""
UNITS = "Units kept in each layer"
PICTURES = {UNITS: UNITS_PICTURE, "Accuracy by step": "accuracy.png", "Confusion matrix": "confusion.png"}


@dataclass
class ModelCard(Card):
    """What the card of one pruned model says; made from a report and a config, without any network."""

    own_keys: ClassVar[tuple[str, ...]] = (
        *("library_name", "pipeline_tag", "base_model", "base_model_relation", "tags"),
        *("datasets", "metrics", "model-index", "metaprune"),
    )

    name: str
    """What a reader calls it: the repo's id, or the folder's name."""
    config: dict[str, Any]
    """The values of ``config.json`` that the card shows."""
    packed_mask: bytes
    report: AdaptReport
    sha256: str
    """Of ``model.safetensors``, as is `size`, in bytes."""
    size: int
    license: str | None = None
    scores_sha256: str | None = None
    """Of ``mask_scores.safetensors``, if there is one."""
    pictures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_result(cls, result: Adapted, name: str, license: str | None, folder: Path) -> ModelCard:
        """From an adapted model whose files are in `folder`."""
        config = result.model.config
        shown = {key: getattr(config, key) for key in ("base_model", "synsets", "ratio", "method", "metrics")}
        shown["labels"] = [config.id2label[i] for i in range(config.num_labels)]
        pictures = {title: file for title, file in PICTURES.items() if (folder / file).exists()}
        weights = folder / WEIGHTS
        sha256, size = sha256_file(weights), weights.stat().st_size
        shown["dtype"] = read_json(folder / CONFIG).get("dtype")
        scores = sha256_file(folder / SCORES) if (folder / SCORES).exists() else None
        packed = pack_mask(result.model.mask())
        return cls(name, shown, packed, result.report, sha256, size, license, scores, pictures)

    @property
    def base(self) -> dict[str, Any]:
        """The ``base_model`` block."""
        return self.config.get("base_model") or {}

    @property
    def labels(self) -> list[str]:
        """The classes in order."""
        return self.config["labels"]

    @property
    def base_id(self) -> str | None:
        """The base's Hub id, or that of the bank which holds it; a local path is never shown."""
        ids = (self.base.get("repo_id"), self.report.bank.get("repo_id"))
        return next((i for i in ids if isinstance(i, str) and is_repo_id(i)), None)

    def data(self) -> dict[str, Any]:
        source = self.report.source
        return {
            "license": self.license,
            "library_name": LIBRARY,
            "pipeline_tag": PIPELINE,
            "base_model": self.base_id,
            "base_model_relation": RELATION if self.base_id else None,
            "tags": [TAG, "pruned", "image-classification", "transformers"],
            "datasets": [source] if is_repo_id(source) else None,
            "metrics": ["accuracy"],
            "model-index": self._results(),
            "metaprune": self.facts(),
        }

    def renamed(self, text: str) -> str:
        found = NAMED.search(text)
        if found is None:
            return text
        text = text.replace(f"# {inline(found[1])}\n", f"# {inline(self.name)}\n", 1)
        return text.replace(found[0], f'"image-classification", "{self.name}"')

    def facts(self) -> dict[str, Any]:
        """The ``metaprune`` block: what a bank's row has, so that a search reads no file."""
        config = self.config
        return {
            "format_version": FORMAT_VERSION,
            "base_sha256": self.base.get("sha256"),
            "labels": self.labels,
            "synsets": config.get("synsets") or [None] * len(self.labels),
            "ratio": config.get("ratio"),
            "method": config.get("method"),
            "masks": base64.b64encode(self.packed_mask).decode(),
            "metrics": config.get("metrics") or {},
            "size": self.size,
            "sha256": self.sha256,
            **({"scores_sha256": self.scores_sha256} if self.scores_sha256 else {}),
        }

    def _results(self) -> list[dict[str, Any]] | None:
        report = self.report
        if not report.test_images:
            return None
        dataset = {"type": report.source if is_repo_id(report.source) else "image-folder", "name": report.source}
        metric = {"type": "accuracy", "value": round(report.accuracy, 4), "name": "Accuracy", "verified": False}
        result = {
            "task": {"type": PIPELINE, "name": "Image Classification"},
            "dataset": dataset | {"split": report.evaluated_on[:60]},
            "metrics": [metric],
        }
        return [{"name": self.name, "results": [result]}]

    def text(self) -> str:
        parts = [
            f"# {inline(self.name)}",
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
        shown = ", ".join(inline(label) for label in self.labels[:SHOWN_LABELS])
        more = f" and {len(self.labels) - SHOWN_LABELS} more" if len(self.labels) > SHOWN_LABELS else ""
        r = self.report
        kept = f": {r.params / r.base_params:.1%} of the parameters" if r.base_params else ""
        return (
            f"Tells {len(self.labels)} classes of images apart: {shown}{more}. It is a sub-network of "
            f"{self._base_name()}, really cut out{kept}. Made with "
            "[hf-metaprune](https://pypi.org/project/hf-metaprune/) by meta-vote pruning (arXiv 2307.04365)."
        )

    def _base_name(self) -> str:
        name = f"{inline(str(self.base.get('architecture')))} ({inline(str(self.base.get('library') or ''))})"
        return f"{name} of [{self.base_id}](https://huggingface.co/{self.base_id})" if self.base_id else name

    def _usage(self) -> str:
        return f"```python\n{snippet(self.name)}\n```"

    def _accuracy(self) -> list[str]:
        report = self.report
        if not report.test_images:
            return [self._claimed()]
        learnt = f"Learnt from {report.train_images} images of {inline(report.source)}."
        lines = [f"Accuracy {inline(report.headline())}. {learnt}{self._precision()}"]
        rows = [
            [inline(label), f"{share:.1%}"] for label, share in report.accuracy_per_class.items() if share is not None
        ]
        if len(rows) <= SHOWN_LABELS:
            lines.append(table(["class", "accuracy"], rows, numbers=1))
        for name, steps in report.baselines.items():
            lines.append(f"For comparison, {inline(name)}: {list(steps.values())[-1]:.1%}.")
        return lines + [f"![{title}]({name})" for title, name in self.pictures.items() if title != UNITS]

    def _claimed(self) -> str:
        """What the config says was measured, of a model that came without a report."""
        measured = self.config.get("metrics") or {}
        found, images = measured.get("accuracy"), measured.get("test_images")
        if not isinstance(found, (int, float)) or not 0 <= found <= 1:
            return "It was not measured."
        return f"Accuracy {found:.1%}" + (f" on {images} images." if isinstance(images, int) else ".")

    def _precision(self) -> str:
        dtype = self.config.get("dtype") or "float32"
        return "" if dtype == "float32" else f" It was measured in float32; the weights are stored as {inline(dtype)}."

    def _sizes(self) -> str:
        r = self.report
        rows = [
            ["parameters", f"{r.params:,}", f"{r.base_params:,}"],
            ["multiply-adds an image", f"{r.macs:,}", f"{r.base_macs:,}"],
        ]
        if r.latency_ms:
            rows.append(["milliseconds an image", *(f"{r.latency_ms[k]:.1f}" for k in ("model", "base"))])
        where = f"\n\nTime: one image at a time, median, on {inline(r.machine)}." if r.latency_ms else ""
        sizes = table(["", "this model", "base"], rows, numbers=2) + where if r.params else ""
        return (sizes + self._units()).strip()

    def _units(self) -> str:
        return f"\n\n![{UNITS}]({self.pictures[UNITS]})" if UNITS in self.pictures else ""

    def _lineage(self) -> list[str]:
        r = self.report
        lines = [f"- Base: {self._base_name()}, weights' sha256 {inline(str(self.base.get('sha256'))[:64])}"]
        bank = r.bank.get("repo_id")
        if bank and is_repo_id(bank):
            lines.append(f"- Bank: [{bank}](https://huggingface.co/{bank}) at {_commit(r.bank.get('revision'))}")
        lines.append(
            f"- Method: {inline(str(self.config.get('method')))}, ratio {inline(str(self.config.get('ratio')))}, "
            f"seed {inline(str(r.seed))}"
        )
        steps = inline(str(r.options.get("steps", "?")))
        lines.append(f"- Training: {steps} steps, {r.training_flops / 1e12:.2f} TFLOPs")
        if r.emissions:
            kwh, grams = r.emissions["energy_kwh"], 1000 * r.emissions["co2_kg"]
            lines.append(f"- Energy: {kwh:.5f} kWh, {grams:.2f} g of CO2 equivalent (measured by CodeCarbon)")
        out = ["\n".join(lines)]
        if r.neighbors:
            rows = [
                [_voter(n), inline(", ".join(n["labels"])), f"{n['score']:.3f}", f"{n.get('share', 0):.0%}"]
                for n in r.neighbors
            ]
            by = inline(f"score ({r.options.get('by')})")
            out.append("Its mask was voted, and its first weights averaged, by:")
            out.append(table(["model", "classes", by, "share of the votes"], rows, numbers=2))
        return out

    def _limits(self) -> str:
        license = f"License: {inline(self.license)}." if self.license else (
            "No license is stated: those of the base, the neighbors and the images apply."
        )  # fmt: skip
        return (
            "It knows only the classes above, and gives one of them for whatever it is shown. The accuracy holds for "
            "images like those it was measured on. What the base has learnt of its own training images, faults "
            f"included, is in its weights. {license}"
        )


def snippet(model: str) -> str:
    """A program that uses a model; a test runs it."""
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
    """A neighbor's name, linked to the commit that voted if it is on the Hub."""
    name, repo, revision = inline(voter_name(neighbor)), neighbor.get("repo_id"), str(neighbor.get("revision") or "")
    if not (isinstance(repo, str) and is_repo_id(repo) and revision.isalnum()):
        return name
    path = neighbor.get("path") or "."
    where = f"https://huggingface.co/{repo}/tree/{revision}" + ("" if path == "." else f"/{quote(str(path))}")
    whose = "" if path == "." else f" of {repo}"
    return f"[{name}]({where}){whose} at {_commit(revision[:12])}"


def _commit(revision: Any) -> str:
    return f"`{revision}`" if re.fullmatch(r"[0-9a-f]{1,40}", str(revision)) else inline(str(revision)[:40])
