"""Section 4 of the page: which tasks of the bank were near, and what they voted for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from . import views
from .shared import Update

if TYPE_CHECKING:
    from ..adapt.plan import Plan


class VoteSection:
    """The nearest tasks with a map, and the vote of one layer at a time; there once the tasks are found."""

    def __init__(self) -> None:
        with gr.Column(visible=False) as self.column:
            gr.Markdown("## How it came about")
            gr.Markdown("### The nearest tasks")
            self.near = gr.HTML(elem_id="neighbors")
            gr.Markdown("### Their vote")
            self.voted = gr.HTML(elem_id="vote")
            self.layer = gr.Dropdown([], label="Layer", interactive=True, elem_id="layer")

    @property
    def parts(self) -> list[Any]:
        """The components that change."""
        return [self.column, self.near, self.voted, self.layer]

    def of(self, plan: Plan, ratio: float, layer: str) -> Update:
        """How the section looks when the tasks are found, but for the vote itself."""
        return {
            self.column: gr.update(visible=True),
            self.near: views.neighbors(plan, ratio),
            self.layer: gr.update(choices=list(plan.mask(ratio)), value=layer),
        }

    def emptied(self) -> Update:
        """How the section looks when there is no vote any more."""
        return {self.column: gr.update(visible=False), self.near: "", self.voted: ""}
