"""The page of a bank: its entries with a search, and figures of how the masks of its tasks overlap."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from ..drawing.pages import render, svg_markup
from ..drawing.style import svg
from ..errors import WordNetError
from ..reporting.bank_figures import heat_figure, map_figure, pairwise_iou, positions, similarity_figure
from ..text import quantity
from . import views
from .shared import PRIVATE, SharedState, Update
from .views import readable_label

if TYPE_CHECKING:
    from ..bank.entry import Entry
    from ..bank.reader import BankReader

PATH = "bank"
HEADER = (
    '<div class="prose metaprune"><h1>The bank</h1><p>The bank has small models that were made before. Each was cut '
    "out of the same large network for one task: it keeps only the units that the task needs. When you make "
    '<a href=".">your own model</a>, the tasks that are nearest to your photos vote for its units.</p></div>'
)
MAX_LISTED, MAX_DRAWN = 100, 150
"""Most entries in the table, and most tasks in a figure."""
MAX_DRAWN_UNITS, MAX_DRAWN_LABELS = 10_000_000, 1500
"""Most units and labels of all tasks of a figure together."""


class BankPage:
    """A table of the bank's entries with a search, a map, a heat map, and overlap against similarity."""

    def __init__(self, shared: SharedState) -> None:
        self.shared, self._lock = shared, threading.Lock()
        gr.HTML(HEADER)
        self.messages = gr.HTML(views.message("The bank is being opened…"))
        self.query = gr.Textbox(label="Search", placeholder="a class, such as tiger", max_length=100, elem_id="search")
        self.entries = gr.HTML(elem_id="entries")
        gr.Markdown("## Which tasks keep the same units")
        self.figures = gr.HTML(elem_id="pictures")

    def wire(self, page: gr.Blocks) -> None:
        """Connect the search with the table, and draw the figures when a visitor opens the page."""
        self.query.change(self.entry_table, [self.query], [self.entries], show_progress="hidden", **PRIVATE)
        page.load(self._show, None, [self.messages, self.entries, self.figures], show_progress="hidden", **PRIVATE)

    @property
    def bank(self) -> BankReader:
        """The bank."""
        return self.shared.opened_bank.reader

    def _show(self) -> Iterator[Update]:
        base = self.bank.meta["base_model"]
        text = f"The bank has pruned models of {base['architecture']} ({base['library']}) for "
        text += f"{quantity(len(self.bank), 'task')}."
        yield {self.messages: views.message(text), self.entries: self.entry_table("")}
        with self._lock:  # visitors who come meanwhile wait, so that the figures are drawn once
            yield {self.figures: self.figures_html}

    def entry_table(self, query: str) -> str:
        """Return the entries that match a search as an HTML table.

        Args:
            query: words that an entry's classes must contain; empty for all entries.
        """
        words = (query or "").casefold().split()
        matches = [(i, entry) for i, entry in enumerate(self.bank, 1) if _is_match(entry, words)]
        summary = f"{quantity(len(matches), 'task')} of {len(self.bank)}" if words else f"All {len(self.bank)} tasks"
        if len(matches) > MAX_LISTED:
            summary += f"; the first {MAX_LISTED} are shown"
        if words and not matches and len(self.bank):
            summary += ": try a word of a class, such as " + readable_label(next(iter(self.bank)).labels[0])
        rows = [_row(i, entry) for i, entry in matches[:MAX_LISTED]]
        return render("entries.html", summary=f"{summary}.", rows=rows)

    @cached_property
    def figures_html(self) -> str:
        """The figures of the bank as HTML; empty for a bank of fewer than two entries."""
        count = min(MAX_DRAWN, MAX_DRAWN_UNITS // max(1, sum(self.bank.sizes.values())))
        entries = list(itertools.islice(self.bank, count))
        label_counts = itertools.accumulate(len(entry.labels) for entry in entries)
        entries = [e for e, total in zip(entries, label_counts, strict=True) if total <= MAX_DRAWN_LABELS]
        if len(entries) < 2:
            return ""
        iou = pairwise_iou([entry.mask for entry in entries])
        points = positions(iou)
        order = np.argsort(points[:, 0])  # so that similar tasks are next to each other
        figures = [
            (
                map_figure(points, show_numbers=True),
                "A map: tasks that keep the same units lie close together. The numbers are those of the list above.",
            ),
            (
                heat_figure(iou[np.ix_(order, order)], [str(i + 1) for i in order]),
                "How much the masks of every two tasks overlap: the units that both keep, as a share of all theirs.",
            ),
        ]
        note = f"The first {len(entries)} tasks of {len(self.bank)} are shown." if len(self.bank) > len(entries) else ""
        try:
            similarity = np.array(list(_pairwise_similarities(entries)))
            caption = "Do similar tasks keep the same units? Each point is a pair of tasks, with WordNet's similarity."
            pairs = np.triu_indices(len(entries), 1)
            figures.append((similarity_figure(similarity, iou[pairs], "WordNet"), caption))
        except WordNetError as error:
            note = f"{note} {error}".strip()
        pictures = [(svg_markup(svg(figure, caption)), caption) for figure, caption in figures]
        return render("bank.html", pictures=pictures, note=note)


def _is_match(entry: Entry, words: Sequence[str]) -> bool:
    text = " ".join((entry.id, *entry.labels, *map(readable_label, entry.labels))).casefold()
    return all(word in text for word in words)


def _row(number: int, entry: Entry) -> list[str]:
    accuracy = entry.metrics.get("accuracy")
    accuracy_text = f"{accuracy:.0%}" if isinstance(accuracy, float) else "-"
    return [f"{number}. " + ", ".join(map(readable_label, entry.labels)), accuracy_text, f"{entry.size / 1000:,.0f} kB"]


def _pairwise_similarities(entries: Sequence[Entry]) -> Iterator[float]:
    """Yield the WordNet similarity of every two entries' tasks, in the order of ``np.triu_indices``."""
    from ..similarity.wordnet import task_similarity, task_synsets

    tasks = [task_synsets(entry.task) for entry in entries]
    for i, first in enumerate(tasks):
        for second in tasks[i + 1 :]:
            yield task_similarity(first, second)
