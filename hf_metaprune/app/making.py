"""Section 2 of the page: making a model of a chosen size, told as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..config import AdaptOptions, option_fields
from . import views
from .events import focus, in_turn, run_steps
from .jobs import Progress, StoppedError, Watched, Watcher
from .results import ResultSection
from .shared import PRIVATE, SharedState, Update, within_limits
from .visitor import Visitor
from .votes import VoteSection

if TYPE_CHECKING:
    from ..masks.mask import Mask

RATIOS, USUAL = (0.5, 0.98), 0.9
SHOW_END = "() => { document.querySelector('#said')?.scrollIntoView({block: 'center'}) }"
"""What came of it is brought into view, for those who have scrolled away meanwhile."""
LEFT = "The training ended when you left the page: press “Make my model” again."
CHANGED = "Stopped, because your photos are others now: press “Make my model” again."


class MakingSection:
    """From photos to a model; `said` tells what came of it."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        gr.Markdown("## 2. Make it")
        self.go = gr.Button("Make my model", elem_id="go")
        self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        self.said = gr.HTML(elem_id="said")
        self.progress = gr.HTML(elem_id="progress")
        self.size = within_limits(
            gr.Slider(
                *RATIOS,
                value=USUAL,
                step=0.01,
                label="How small",
                info="0.9 takes 90% of the network's units away: the more go, the smaller and faster the model.",
                interactive=True,
            )
        )
        self.predicted = gr.HTML(elem_id="size")
        with gr.Accordion("Options", open=False):
            known = option_fields(AdaptOptions)
            self.voters = within_limits(
                gr.Slider(
                    1, 5, value=1, step=1, label="Tasks that vote", info="How many of the nearest tasks say what stays."
                )
            )
            self.steps = within_limits(
                gr.Slider(
                    20, 400, value=100, step=10, label="Steps of fine-tuning", info="More take longer, and may help."
                )
            )
            self.seed = gr.Number(0, label="Seed", info=known["seed"].metadata["help"], precision=0)

    def wire(self, votes: VoteSection, results: ResultSection) -> None:
        """Connect what is pressed with what happens."""
        self.votes, self.results = votes, results
        mine = [self.said, self.progress, self.predicted, self.go, self.stop]
        self.go.click(None, js=focus("go", "stop"))  # first: what comes next takes the button away
        pressed_go = self.go.click(
            self._make, [self.size, self.voters, self.steps, self.seed], [*mine, *votes.parts, *results.parts],
            concurrency_limit=None, show_progress="hidden", **PRIVATE,
        )  # fmt: skip
        pressed_go.then(None, js=SHOW_END)
        pressed_go.then(None, js=focus("stop", "go"))
        self.stop.click(self._stop, None, None, queue=False, **PRIVATE)
        shown = [self.predicted, votes.voted]
        last: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"} | PRIVATE
        self.size.change(self._sized, [self.size, votes.layer], shown, **last)  # of the keyboard, too
        votes.layer.input(self._sized, [self.size, votes.layer], shown, **PRIVATE)

    def arrived(self, visitor: Visitor) -> Update:
        """The slider where the visitor's model is, or else the bank's own are, and what such a model costs."""
        made, plan = visitor.result, visitor.plan
        ratio = made.report.ratio if made else self.shared.opened.ratio
        shown = {self.size: gr.update(value=ratio)}
        if plan is None:
            return shown | self._size(visitor, ratio)
        layer = _middle(plan.mask(ratio))
        said = {} if made else {self.said: views.message(LEFT)}
        return shown | said | self.votes.of(plan, ratio, layer) | self._size(visitor, ratio, layer)

    @property
    def parts(self) -> list[Any]:
        """The components that change when there is no model any more."""
        return [self.said, self.progress, self.predicted]

    def emptied(self, visitor: Visitor, ratio: float) -> Update:
        """How the section looks when there is no model any more."""
        said = [] if visitor.interrupted else [self.said]  # which then tells why
        return dict.fromkeys((self.progress, *said), "") | self._size(visitor, ratio)

    def _stop(self, request: gr.Request) -> None:
        self.shared.visitor(request).stop.set()

    def _make(
        self, ratio: float, voters: float, steps: float, seed: float | None, request: gr.Request
    ) -> Iterator[Update]:
        visitor = self.shared.visitor(request)
        visitor.stop.clear()
        started = {self.said: "", self.progress: views.training(Progress("Looking at the photos"))}
        running = {self.go: gr.update(visible=False), self.stop: gr.update(visible=True)}
        ended = {self.go: gr.update(visible=True), self.stop: gr.update(visible=False), self.progress: ""}
        making = self._steps(visitor, ratio, int(voters), int(steps), int(seed or 0))
        making = _of_these_photos(visitor, in_turn(self.shared.waiting_line, visitor.stop, self.progress, making))
        yield from run_steps(making, self.said, running | started, ended)

    def _steps(self, visitor: Visitor, ratio: float, voters: int, steps: int, seed: int) -> Iterator[Update]:
        data, stop, progress = visitor.data(seed), visitor.stop, Progress("Looking for the nearest tasks")
        options: dict[str, Any] = {"neighbors": voters, "steps": steps, "seed": seed, "ratio": ratio}
        planning = Watched(lambda: self.shared.opened.pruner.plan(data, **options), visitor.stop)
        for _ in planning:
            yield {self.progress: views.training(progress)}
        plan = visitor.plan = planning.value
        visitor.result = None  # that of another plan
        layer = _middle(plan.mask(ratio))
        yield self.votes.of(plan, ratio, layer) | self._size(visitor, ratio, layer) | self.results.emptied()
        progress = Progress("Training", steps=steps)
        watcher = Watcher(progress, visitor.stop)
        making = Watched(lambda: self.shared.opened.pruner.make(plan, callbacks=[watcher]), visitor.stop)
        for _ in making:
            yield {self.progress: views.training(progress)}
        if stop.is_set():
            raise StoppedError
        visitor.result = making.value
        yield self.results.of(visitor) | {self.said: views.done(making.value)}

    def _size(self, visitor: Visitor, ratio: float, layer: str = "") -> Update:
        """What a model of that ratio costs and, once there is a vote, keeps."""
        opened, plan, made = self.shared.opened, visitor.plan, visitor.result
        cost = plan.cost(ratio) if plan else opened.cost(ratio, max(2, len(visitor.photos.by_class)))
        another = None if made is None or abs(made.report.ratio - ratio) < 1e-6 else made.report.ratio
        shown: Update = {self.predicted: views.size(cost, opened.whole, opened.speeds(ratio), another)}
        if plan is not None and layer in plan.inputs.base.sizes:
            shown[self.votes.voted] = views.vote(plan, ratio, layer)
        return shown

    def _sized(self, ratio: float, layer: str, request: gr.Request) -> Update:
        return self._size(self.shared.visitor(request), ratio, layer)


def _middle(mask: Mask) -> str:
    """The layer whose vote is shown first."""
    layers = list(mask)
    return layers[len(layers) // 2]


def _of_these_photos(visitor: Visitor, steps: Iterator[Update]) -> Iterator[Update]:
    """The steps, as long as the photos are the same; `Visitor.changed` stops them.

    Raises:
        StoppedError: the visitor has stopped, or has changed the photos.
    """
    before, visitor.interrupted = visitor.changes, False
    try:
        yield from steps
    except StoppedError as error:
        visitor.interrupted = visitor.changes != before
        raise StoppedError(CHANGED if visitor.interrupted else "") from error
