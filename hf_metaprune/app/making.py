"""Sections 2 to 4 of the page: making a model, the tasks that vote, their vote and what the size costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..config import AdaptOptions, option_fields
from . import views
from .jobs import Progress, Watched, Watcher
from .pressed import in_turn, pressed
from .results import ResultSection
from .room import PRIVATE, Room, Update
from .visitor import Visitor

RATIOS, USUAL = (0.5, 0.98), 0.9


class MakingSection:
    """From photos to a model, told as it goes."""

    def __init__(self, room: Room) -> None:
        self.room = room
        gr.Markdown("## 2. Make it")
        self.go = gr.Button("Make my model", variant="primary", elem_id="go")
        self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        with gr.Accordion("Options", open=False):
            self.voters = gr.Slider(1, 5, value=1, step=1, label="Tasks that vote")
            self.steps = gr.Slider(20, 400, value=100, step=10, label="Steps of fine-tuning")
            said = option_fields(AdaptOptions)["seed"].metadata["help"]
            self.seed = gr.Number(0, label="Seed", info=said, precision=0, minimum=0)
        self.progress = gr.HTML(elem_id="progress")
        gr.Markdown("## 3. The nearest tasks")
        self.near = gr.HTML("<p>They are shown here as soon as they are found.</p>", elem_id="neighbours")
        gr.Markdown("## 4. Their vote, and the size")
        self.size = gr.Slider(
            *RATIOS,
            value=USUAL,
            step=0.01,
            label="How small: the share of the network's units that go",
            interactive=True,
        )
        self.predicted = gr.HTML(elem_id="size")
        self.voted = gr.HTML(elem_id="vote")
        self.layer = gr.Dropdown([], label="Layer", visible=False, interactive=True, elem_id="layer")

    def wire(self, told: gr.HTML, results: ResultSection) -> None:
        """Connect what is pressed with what happens; `told` is where trouble is said."""
        self.told, self.results = told, results
        mine = [self.progress, self.near, self.voted, self.layer, self.predicted, self.go, self.stop]
        self.go.click(
            self._make, [self.size, self.voters, self.steps, self.seed], [told, *mine, *results.parts],
            concurrency_limit=None, show_progress="hidden", **PRIVATE,
        )  # fmt: skip
        self.stop.click(self._stop, None, None, queue=False, **PRIVATE)
        shown = [self.predicted, self.voted]
        self.size.release(self._sized, [self.size, self.layer], shown, **PRIVATE)
        self.layer.input(self._sized, [self.size, self.layer], shown, **PRIVATE)

    def usual_size(self) -> Update:
        """The slider where the bank's own models are."""
        return {self.size: gr.update(value=self.room.opened.ratio)}

    def emptied(self) -> Update:
        """How the sections look when all is forgotten."""
        empty: Update = dict.fromkeys((self.progress, self.near, self.voted, self.predicted), "")
        return empty | {self.layer: gr.update(visible=False)}

    def _stop(self, request: gr.Request) -> None:
        self.room.visitor(request).stop.set()

    def _make(
        self, ratio: float, voters: float, steps: float, seed: float | None, request: gr.Request
    ) -> Iterator[Update]:
        visitor = self.room.visitor(request)
        visitor.stop.clear()
        started = {self.told: "", self.progress: views.training(Progress("Looking at the photos"))}
        running = {self.go: gr.update(visible=False), self.stop: gr.update(visible=True)}
        ended = {self.go: gr.update(visible=True), self.stop: gr.update(visible=False), self.progress: ""}
        making = self._steps(visitor, ratio, int(voters), int(steps), int(seed or 0))
        making = in_turn(self.room.turns, visitor.stop, self.progress, making)
        yield from pressed(making, self.told, running | started, ended)

    def _steps(self, visitor: Visitor, ratio: float, voters: int, steps: int, seed: int) -> Iterator[Update]:
        data, progress = visitor.data(seed), Progress("Looking for the nearest tasks")
        options: dict[str, Any] = {"neighbours": voters, "steps": steps, "seed": seed, "ratio": ratio}
        planning = Watched(lambda: self.room.opened.pruner.plan(data, **options), visitor.stop)
        for _ in planning:
            yield {self.progress: views.training(progress)}
        plan = visitor.plan = planning.value
        layers = list(plan.mask(ratio))
        layer = layers[len(layers) // 2]
        chosen = gr.update(choices=layers, value=layer, visible=True)
        yield {self.near: views.neighbours(plan, ratio), self.layer: chosen} | self._size(visitor, ratio, layer)
        progress = Progress("Training", steps=steps)
        watcher = Watcher(progress, visitor.stop)
        making = Watched(lambda: self.room.opened.pruner.make(plan, callbacks=[watcher]), visitor.stop)
        for _ in making:
            yield {self.progress: views.training(progress)}
        visitor.result = making.value
        yield self.results.of(visitor)

    def _size(self, visitor: Visitor, ratio: float, layer: str) -> Update:
        """What a model of that ratio keeps and costs, once there is a vote."""
        plan = visitor.plan
        if plan is None or layer not in plan.start.base.sizes:
            return {self.predicted: gr.skip()}
        opened = self.room.opened
        said = views.size(plan, ratio, opened.whole, opened.speeds(ratio))
        return {self.voted: views.vote(plan, ratio, layer), self.predicted: said}

    def _sized(self, ratio: float, layer: str, request: gr.Request) -> Update:
        return self._size(self.room.visitor(request), ratio, layer)
