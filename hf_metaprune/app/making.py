"""Section 2 of the page: making a model of a chosen size, with its progress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..config import AdaptOptions
from ..options import option_fields
from . import views
from .events import move_focus, run_in_turn, run_steps
from .fields import SliderField
from .jobs import BackgroundJob, Progress, ProgressCallback, StoppedError
from .results import ResultSection
from .shared import PRIVATE, SharedState, Update
from .visitor import Visitor
from .votes import VoteSection

if TYPE_CHECKING:
    from ..masks.mask import Mask

RATIO_RANGE, DEFAULT_RATIO = (0.5, 0.98), 0.9
SCROLL_TO_MESSAGES = "() => { document.querySelector('#making-messages')?.scrollIntoView({block: 'center'}) }"
"""Shows the outcome to visitors who have scrolled away meanwhile."""
STOPPED_BY_LEAVING = "The training ended when you left the page: press “Make my model” again."
STOPPED_BY_CHANGE = "The training ended because you changed the photos: press “Make my model” again."


class MakingSection:
    """From photos to a model; `messages` shows the outcome."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        gr.Markdown("## 2. Make it")
        self.make_model = gr.Button("Make my model", elem_id="go")
        self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        self.messages = gr.HTML(elem_id="making-messages")
        self.progress = gr.HTML(elem_id="progress")
        self.ratio = SliderField(
            *RATIO_RANGE,
            value=DEFAULT_RATIO,
            step=0.01,
            label="How small",
            info="0.9 removes 90% of the network's units. A higher value makes a smaller and faster model.",
            interactive=True,
        )
        self.size = gr.HTML(elem_id="size")
        with gr.Accordion("Options", open=False):
            options = option_fields(AdaptOptions)
            self.voters = SliderField(
                0,
                5,
                value=0,
                step=1,
                label="Tasks that vote",
                info="How many of the nearest tasks vote on the units; 0: as the bank does best.",
            )
            self.steps = SliderField(
                20, 400, value=100, step=10, label="Steps of fine-tuning",
                info="More steps take longer, and may make the model better.",
            )  # fmt: skip
            self.seed = gr.Number(0, label="Seed", info=options["seed"].metadata["help"], precision=0)

    def wire(self, votes: VoteSection, results: ResultSection) -> None:
        """Connect the buttons and fields with their functions."""
        self.votes, self.results = votes, results
        own_components = [self.messages, self.progress, self.size, self.make_model, self.stop]
        self.make_model.click(None, js=move_focus("go", "stop"))  # first, because the next event hides the button
        making = self.make_model.click(
            self._make,
            [self.ratio, self.voters, self.steps, self.seed],
            [*own_components, *votes.components, *results.components],
            concurrency_limit=None, show_progress="hidden", **PRIVATE,
        )  # fmt: skip
        making.then(None, js=SCROLL_TO_MESSAGES)
        making.then(None, js=move_focus("stop", "go"))
        self.stop.click(self._stop, None, None, queue=False, **PRIVATE)
        previews = [self.size, votes.vote]
        last_only: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"} | PRIVATE
        # Unlike `release`, `change` also happens when the slider is moved by the keyboard.
        self.ratio.change(self._preview, [self.ratio, votes.layer], previews, **last_only)
        votes.layer.input(self._preview, [self.ratio, votes.layer], previews, **PRIVATE)

    def arrival_update(self, visitor: Visitor) -> Update:
        """Return the update for a visitor who opens the page.

        The slider is set to the ratio of the visitor's model, or else to that of the bank's own models.
        """
        result, plan = visitor.result, visitor.plan
        ratio = result.report.ratio if result else self.shared.opened_bank.ratio
        update: Update = {self.ratio: gr.update(value=ratio)}
        if plan is None:
            return update | self._preview_update(visitor, ratio)
        layer = _middle_layer(plan.mask(ratio))
        update |= {} if result else {self.messages: views.message(STOPPED_BY_LEAVING)}
        return update | self.votes.neighbors_update(plan, ratio, layer) | self._preview_update(visitor, ratio, layer)

    @property
    def components(self) -> list[Any]:
        """Components of the page that are emptied when the model is deleted."""
        return [self.messages, self.progress, self.size]

    def empty_update(self, visitor: Visitor, ratio: float) -> Update:
        """Return the update that shows that there is no model."""
        messages = [] if visitor.was_interrupted else [self.messages]  # the message says why the training ended
        return dict.fromkeys((self.progress, *messages), "") | self._preview_update(visitor, ratio)

    def _stop(self, request: gr.Request) -> None:
        self.shared.visitor(request).stop.set()

    def _make(
        self, ratio: float, voters: float, steps: float, seed: float | None, request: gr.Request
    ) -> Iterator[Update]:
        visitor = self.shared.visitor(request)
        visitor.stop.clear()
        before: Update = {self.make_model: gr.update(visible=False), self.stop: gr.update(visible=True)}
        before |= {self.messages: "", self.progress: views.training(Progress("Looking at the photos"))}
        after: Update = {self.make_model: gr.update(visible=True), self.stop: gr.update(visible=False)}
        after |= {self.progress: ""}
        updates = self._making_steps(visitor, ratio, int(voters), int(steps), int(seed or 0))
        updates = run_in_turn(self.shared.waiting_line, visitor.stop, self.progress, updates)
        yield from run_steps(_explain_interruption(visitor, updates), self.messages, before, after)

    def _making_steps(self, visitor: Visitor, ratio: float, voters: int, steps: int, seed: int) -> Iterator[Update]:
        data, stop, progress = visitor.task_data(seed), visitor.stop, Progress("Looking for the nearest tasks")
        options: dict[str, Any] = {"neighbors": voters or None, "steps": steps, "seed": seed, "ratio": ratio}
        options["unlabeled"] = visitor.unlabeled_images()
        planning = BackgroundJob(lambda: self.shared.opened_bank.pruner.plan(data, **options), stop)
        for _ in planning:
            yield {self.progress: views.training(progress)}
        plan = visitor.plan = planning.value
        visitor.result = None  # it belongs to another plan
        layer = _middle_layer(plan.mask(ratio))
        update = self.votes.neighbors_update(plan, ratio, layer) | self._preview_update(visitor, ratio, layer)
        yield update | self.results.empty_update()
        progress = Progress("Training", steps=steps)
        callback = ProgressCallback(progress, visitor.stop)
        training = BackgroundJob(lambda: self.shared.opened_bank.pruner.make(plan, callbacks=[callback]), visitor.stop)
        for _ in training:
            yield {self.progress: views.training(progress)}
        if stop.is_set():
            raise StoppedError
        visitor.result = training.value
        yield self.results.model_update(visitor) | {self.messages: views.done(training.value)}

    def _preview_update(self, visitor: Visitor, ratio: float, layer: str = "") -> Update:
        """Return the update that shows what a model of a ratio costs and, if there is a vote, which units it keeps."""
        bank, plan, result = self.shared.opened_bank, visitor.plan, visitor.result
        cost = plan.cost(ratio) if plan else bank.cost(ratio, max(2, len(visitor.photos.by_class)))
        other_ratio = None if result is None or abs(result.report.ratio - ratio) < 1e-6 else result.report.ratio
        milliseconds = bank.latencies.estimate(ratio)
        update: Update = {self.size: views.size(cost, bank.base_cost, milliseconds, other_ratio)}
        if plan is not None and plan.neighbors and layer in plan.inputs.base.sizes:
            update[self.votes.vote] = views.vote(plan, ratio, layer)
        return update

    def _preview(self, ratio: float, layer: str, request: gr.Request) -> Update:
        return self._preview_update(self.shared.visitor(request), ratio, layer)


def _middle_layer(mask: Mask) -> str:
    """Return the layer whose vote is shown first."""
    layers = list(mask)
    return layers[len(layers) // 2]


def _explain_interruption(visitor: Visitor, steps: Iterator[Update]) -> Iterator[Update]:
    """Yield the updates of `steps`, and note whether a change of the photos has ended them.

    Raises:
        StoppedError: the visitor has stopped, or has changed the photos; the message says which.
    """
    changes_before, visitor.was_interrupted = visitor.photo_changes, False
    try:
        yield from steps
    except StoppedError as error:
        visitor.was_interrupted = visitor.photo_changes != changes_before
        raise StoppedError(STOPPED_BY_CHANGE if visitor.was_interrupted else "") from error
