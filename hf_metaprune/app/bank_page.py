"""The bank's own page: its entries, to be searched by label, and how the masks of its tasks overlap."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from ..drawing.pages import drawn, render
from ..drawing.style import svg
from ..errors import WordNetError
from ..reporting.bank_figures import heat_figure, map_figure, overlaps, positions, similarity_figure
from ..text import counted
from . import views
from .shared import PRIVATE, SharedState, Update
from .views import readable

if TYPE_CHECKING:
    from ..bank.entry import Entry
    from ..bank.reader import BankReader

PATH = "bank"
HEAD = (
    '<div class="prose metaprune"><h1>The bank</h1><p>Small models that were made before: for each of these tasks the '
    "same large network was cut down to the units that the task needs. Those nearest to your photos vote when "
    '<a href=".">your own model</a> is made.</p></div>'
)
MOST_LISTED, MOST_DRAWN = 100, 150
"""Entries in a table, and tasks in a picture."""


class BankPage:
    """A table of entries that a search narrows, a map, a heat map, and overlap against similarity."""

    def __init__(self, shared: SharedState) -> None:
        self.shared, self._lock = shared, threading.Lock()
        gr.HTML(HEAD)
        self.said = gr.HTML(views.message("The bank is being opened…"))
        self.query = gr.Textbox(label="Search", placeholder="a class, such as tiger", max_length=100, elem_id="search")
        self.found = gr.HTML(elem_id="entries")
        gr.Markdown("## Which tasks keep the same units")
        self.pictures = gr.HTML(elem_id="pictures")

    def wire(self, page: gr.Blocks) -> None:
        """Connect what is typed with what is shown; the pictures are drawn when somebody comes."""
        self.query.change(self.listed, [self.query], [self.found], show_progress="hidden", **PRIVATE)
        page.load(self._show, None, [self.said, self.found, self.pictures], show_progress="hidden", **PRIVATE)

    @property
    def bank(self) -> BankReader:
        return self.shared.opened.bank

    def _show(self) -> Iterator[Update]:
        base = self.bank.meta["base_model"]
        said = f"{counted(len(self.bank), 'task')} for which {base['architecture']} ({base['library']}) was pruned."
        yield {self.said: views.message(said), self.found: self.listed("")}
        with self._lock:  # drawn once for all who come
            yield {self.pictures: self.drawn}

    def listed(self, query: str) -> str:
        """The entries with a class that holds the words of a search."""
        words = (query or "").casefold().split()
        found = [(i, entry) for i, entry in enumerate(self.bank, 1) if _matches(entry, words)]
        said = f"{counted(len(found), 'task')} of {len(self.bank)}" if words else f"All {len(self.bank)} tasks"
        if len(found) > MOST_LISTED:
            said += f"; the first {MOST_LISTED} are shown"
        if words and not found and len(self.bank):
            said += ": try a word of a class, such as " + readable(next(iter(self.bank)).labels[0])
        return render("entries.html", said=f"{said}.", rows=[_row(i, entry) for i, entry in found[:MOST_LISTED]])

    @cached_property
    def drawn(self) -> str:
        """The pictures of the bank, as HTML."""
        entries = list(itertools.islice(self.bank, MOST_DRAWN))
        if len(entries) < 2:
            return ""
        iou = overlaps([entry.mask for entry in entries])
        places = positions(iou)
        order = np.argsort(places[:, 0])  # like beside like
        pictures = [
            (
                map_figure(places, numbered=True),
                "A map: tasks that keep the same units lie together. The numbers are those of the list above.",
            ),
            (
                heat_figure(iou[np.ix_(order, order)], [str(i + 1) for i in order]),
                "How much the masks of every two tasks overlap: units that both keep, of those that one keeps.",
            ),
        ]
        note = f"The first {MOST_DRAWN} tasks of {len(self.bank)}." if len(self.bank) > len(entries) else ""
        try:
            pairs = np.triu_indices(len(entries), 1)
            near = np.array(list(_similarities(entries)))
            said = "Do near tasks keep the same units? Each point is a pair of tasks; nearness is WordNet's."
            pictures.append((similarity_figure(near, iou[pairs], "WordNet"), said))
        except WordNetError as error:
            note = f"{note} {error}".strip()
        shown = [(drawn(svg(picture, caption)), caption) for picture, caption in pictures]
        return render("bank.html", pictures=shown, note=note)


def _matches(entry: Entry, words: Sequence[str]) -> bool:
    text = " ".join((entry.id, *entry.labels, *map(readable, entry.labels))).casefold()
    return all(word in text for word in words)


def _row(number: int, entry: Entry) -> list[str]:
    found = entry.metrics.get("accuracy")
    accuracy = f"{found:.0%}" if isinstance(found, float) else "-"
    return [f"{number}. " + ", ".join(map(readable, entry.labels)), accuracy, f"{entry.size / 1000:,.0f} kB"]


def _similarities(entries: Sequence[Entry]) -> Iterator[float]:
    """Of every two entries' tasks, in the order of ``np.triu_indices``."""
    from ..similarity.wordnet import task_similarity, task_synsets

    tasks = [task_synsets(entry.task) for entry in entries]
    for i, one in enumerate(tasks):
        for other in tasks[i + 1 :]:
            yield task_similarity(one, other)
