"""The card of a bank: what it is for, how to use it, which tasks it has."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..files.names import is_repo_id
from ..hub.client import BANK_TAG, LIBRARY
from ..text import inline
from .card import Card, table
from .model_card import PIPELINE

SHOWN_TASKS = 200
MOST_SHOWN = 100  # characters of a label
TEMPLATE = """\
# {name}

A bank of {entries} small image classifiers, each cut out of one base model for a task of its own; together they know
{classes} classes. For a new task the nearest ones are found, their masks vote for the units to keep, their weights are
averaged, and about 100 steps of training finish the job: [hf-metaprune](https://pypi.org/project/hf-metaprune/),
meta-vote pruning (arXiv 2307.04365).

## Use

```python
{snippet}
```

or `hf-metaprune adapt {repo_id} photos --out model`. Only the base and the entries that are needed are downloaded.

## The base

{base}

## The entries

{statistics}

{tasks}

## Limits

Accuracies are those of each entry on its own test images, as its maker measured them. {license}
"""


@dataclass
class BankCard(Card):
    """What the card of a bank says; made from its ``bank.json`` and the rows of its index."""

    own_keys: ClassVar[tuple[str, ...]] = ("library_name", "pipeline_tag", "base_model", "tags", "metaprune")

    repo_id: str
    meta: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    license: str | None = None

    @property
    def base(self) -> dict[str, Any]:
        """The ``base_model`` block."""
        return self.meta.get("base_model") or {}

    def data(self) -> dict[str, Any]:
        base_id = self.base.get("repo_id")
        return {
            "license": self.license,
            "library_name": LIBRARY,
            "pipeline_tag": PIPELINE,
            "base_model": base_id if isinstance(base_id, str) and is_repo_id(base_id) else None,
            "tags": [BANK_TAG, "pruned", PIPELINE],
            "metaprune": {
                "format_version": self.meta.get("format_version"),
                "base_sha256": self.base.get("sha256"),
                "entries": len(self.rows),
            },
        }

    def text(self) -> str:
        classes = Counter(label for row in self.rows for label in row["labels"])
        return TEMPLATE.format(
            name=inline(self.meta.get("name") or self.repo_id),
            repo_id=self.repo_id,
            entries=f"{len(self.rows):,}",
            classes=f"{len(classes):,}",
            snippet=snippet(self.repo_id),
            base=self._base(),
            statistics=self._statistics(),
            tasks=self._tasks(),
            license=self._license(),
        )

    def _base(self) -> str:
        layers = self.meta.get("layers") or {}
        base_id = self.base.get("repo_id")
        where = f", from [{base_id}](https://huggingface.co/{base_id})" if is_repo_id(str(base_id)) else ""
        name = f"{inline(str(self.base.get('architecture')))} of {inline(str(self.base.get('library')))}{where}"
        units = f"{len(layers)} prunable layers with {sum(layers.values()):,} units"
        return f"{name}; {units}. The weights are in `base/` (sha256 {inline(str(self.base.get('sha256')))})."

    def _statistics(self) -> str:
        found = [a for row in self.rows if isinstance(a := _metrics(row).get("accuracy"), float)]
        ratios = Counter(f"{row['ratio']:g}" for row in self.rows if row["ratio"] is not None)
        methods = Counter(str(row["method"]) for row in self.rows)
        lines = [f"- methods: {_counted(methods)}", f"- ratios: {_counted(ratios)}"]
        if found:
            low, middle, high = min(found), statistics.median(found), max(found)
            lines.append(f"- accuracy: {low:.1%} to {high:.1%}, median {middle:.1%}")
        lines.append(f"- weights: {sum(row['size'] for row in self.rows) / 1e6:,.1f} MB in all")
        return "\n".join(lines)

    def _tasks(self) -> str:
        rows = []
        for row in self.rows[:SHOWN_TASKS]:
            accuracy = _metrics(row).get("accuracy")
            shown = f"{accuracy:.1%}" if isinstance(accuracy, float) else ""
            labels = ", ".join(str(label)[:MOST_SHOWN] for label in row["labels"][:20])
            rows.append(
                [inline(row["id"][:MOST_SHOWN]), inline(labels), inline(str(row["method"])[:MOST_SHOWN]), shown]
            )
        more = len(self.rows) - SHOWN_TASKS
        note = f"\n\nand {more:,} more, see `index.parquet`." if more > 0 else ""
        return table(["entry", "classes", "method", "accuracy"], rows, numbers=1) + note if rows else ""

    def _license(self) -> str:
        if self.license:
            return f"License: {inline(self.license)}."
        return "No license is stated: those of the base and of the images that the entries learnt from apply."


def snippet(bank: str) -> str:
    """A program that uses a bank; a test runs it."""
    return "\n".join(
        [
            "# pip install hf-metaprune; photos is a folder with a folder for each class",
            "from hf_metaprune import MetaPruner",
            "",
            f'result = MetaPruner.from_hub("{bank}").adapt("photos")',
            'result.save_pretrained("model")',
            "print(result.report)",
        ]
    )


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(row["metrics"] or "{}")
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{inline(name)} ({n})" for name, n in counts.most_common(8)) or "none"
