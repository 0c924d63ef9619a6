"""Last section of the page: the nearest tasks of the bank, and what they voted for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from . import views
from .shared import Update

if TYPE_CHECKING:
    from ..adapt.plan import Plan


class VoteSection:
    """The nearest tasks with a map, and the vote in one layer at a time; hidden until there is a vote."""

    def __init__(self) -> None:
        with gr.Column(visible=False) as self.column:
            gr.Markdown("## How your model was chosen")
            gr.Markdown("### The nearest tasks")
            self.neighbors = gr.HTML(elem_id="neighbors")
            gr.Markdown("### Their vote")
            self.vote = gr.HTML(elem_id="vote")
            self.layer = gr.Dropdown([], label="Layer", interactive=True, elem_id="layer")

    @property
    def components(self) -> list[Any]:
        """The components that change."""
        return [self.column, self.neighbors, self.vote, self.layer]

    def neighbors_update(self, plan: Plan, ratio: float, layer: str) -> Update:
        """Return the update that shows the nearest tasks, and selects a layer; the vote itself is not in it."""
        if not plan.neighbors:  # the model is a part of the trunk
            return self.empty_update()
        return {
            self.column: gr.update(visible=True),
            self.neighbors: views.neighbors(plan, ratio),
            self.layer: gr.update(choices=list(plan.mask(ratio)), value=layer),
        }

    def empty_update(self) -> Update:
        """Return the update that hides the section."""
        return {self.column: gr.update(visible=False), self.neighbors: "", self.vote: ""}
