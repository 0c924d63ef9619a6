"""Section 3 of the page: the model, tried on a photo, compared with other ways, and taken home."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import gradio as gr

from ..errors import DataError
from . import views
from .events import focus, in_turn, resting, run_steps
from .jobs import Progress, StoppedError, Watched, Watcher
from .shared import AS_FILE, PRIVATE, SharedState, Update
from .style import DROP
from .visitor import Visitor

if TYPE_CHECKING:
    from ..adapt.plan import Plan
    from ..result import AdaptResult


NOTHING = '<p class="metaprune soft">It is shown here when it is made.</p>'
GONE = "The model is not here any more: press “Make my model” to make it again."
FILES = (
    'The model is a zip for Python: unpacked, `pipeline("image-classification", "model")` of transformers loads it '
    "after `import hf_metaprune`. The report says on one page what it is. An ONNX file runs without Python, too: on a "
    "phone, in a browser, on a Raspberry Pi."
)


class ResultSection:
    """What there is when a model is made; `parts` are the components that change then."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        gr.Markdown("## 3. Your model")
        self.result = gr.HTML(NOTHING, elem_id="result")
        with gr.Column(visible=False) as self.trial:
            gr.Markdown("### Try it on a photo")
            self.photo = gr.Image(
                label="A photo", show_label=False, sources=["upload", "webcam"], format="jpeg", height=260,
                elem_id="photo", elem_classes=DROP, **AS_FILE,
            )  # fmt: skip
            self.answer = gr.HTML(views.answer({}), elem_id="answer")
            gr.Markdown(f"### Take it home\n{FILES}")
            with gr.Row():
                self.download = gr.DownloadButton("Download the model", elem_id="download")
                self.report = gr.DownloadButton("Download the report", elem_id="report")
                self.to_onnx = gr.Button("Make an ONNX file")
                self.onnx = gr.DownloadButton("Download the ONNX file", visible=False, elem_id="onnx")
                self.program = gr.DownloadButton("Download a program for it", visible=False, elem_id="program")
            self.messages = gr.HTML(elem_id="export-messages")
            gr.Markdown("### Against other ways")
            with gr.Row():
                self.compare = gr.Button("Compare with other ways (about a minute)", elem_id="compare")
                self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-ways")
            self.comparison_messages = gr.HTML(elem_id="comparison-messages")
            self.compared = gr.HTML(elem_id="compared")
        files = [self.download, self.report, self.onnx, self.program, self.messages]
        self.parts = [self.result, self.trial, self.photo, self.answer, *files, self.comparison_messages, self.compared]

    def wire(self) -> None:
        """Connect what is pressed with what happens."""
        self.photo.change(self._try, [self.photo], [self.answer], **PRIVATE)
        self.to_onnx.click(self._export, None, [self.onnx, self.program, self.to_onnx, self.messages], **PRIVATE)
        self.compare.click(None, js=focus("compare", "stop-ways"))
        comparing = self.compare.click(
            self._compare, None, [self.compare, self.stop, self.compared, self.comparison_messages],
            concurrency_limit=None, show_progress="hidden", **PRIVATE,
        )  # fmt: skip
        comparing.then(None, js=focus("stop-ways", "compare"))
        self.stop.click(self._stop, None, None, queue=False, **PRIVATE)

    def of(self, visitor: Visitor) -> Update:
        """How the section looks when the visitor's model is made.

        Raises:
            StoppedError: it is gone again.
        """
        path, made = visitor.packed(), visitor.result
        if made is None:
            raise StoppedError
        return self.emptied() | {
            self.result: views.result(made, path.stat().st_size / 1000),
            self.trial: gr.update(visible=True),
            self.download: gr.update(value=str(path)),
            self.report: gr.update(value=str(path.parent / "model" / "report.html")),
        }

    def emptied(self) -> Update:
        """How the section looks when there is no model."""
        hidden = gr.update(visible=False)
        empty = {self.result: NOTHING, self.photo: None, self.answer: views.answer({})}
        empty |= dict.fromkeys((self.compared, self.messages, self.comparison_messages), "")
        return empty | dict.fromkeys((self.trial, self.onnx, self.program), hidden)

    def _try(self, path: str | None, request: gr.Request) -> str:
        from .uploads import read_photo_file

        visitor = self.shared.visitor(request)
        former, visitor.tried = visitor.tried, path
        if former and former != path:
            self.shared.visitors.drop(visitor, [former])
        if path is None:
            return views.answer({})
        visitor.uploads.add(path)
        if visitor.result is None:
            return views.message(GONE, "alert")
        try:
            photo = read_photo_file(path, self.shared.limits)
        except DataError as error:
            return views.message(f"The photo cannot be taken: {error}.", "alert")
        return views.answer(visitor.result.predict(photo)[0]["probabilities"])

    def _export(self, request: gr.Request) -> Iterator[Update]:
        visitor = self.shared.visitor(request)
        if visitor.result is None:
            yield {self.messages: views.message(GONE, "alert")}
            return
        before = resting(self.to_onnx) | {self.messages: views.message("Translating the model…")}
        steps = self._translated(visitor, visitor.result)
        yield from run_steps(steps, self.messages, before, resting(self.to_onnx, False))

    def _translated(self, visitor: Visitor, made: AdaptResult) -> Iterator[Update]:
        from ..export import PROGRAM, export_onnx

        with visitor.writing() as folder:
            found = export_onnx(made.model, made.preprocessing, folder / "model.onnx")
        said = (
            f"The ONNX file is made: {found.size / 1000:,.0f} kB, with the labels in it. The program beside it needs "
            f"onnxruntime, numpy and pillow alone: python {PROGRAM.name} model.onnx photo.jpg"
        )
        files = {self.onnx: found.path, self.program: PROGRAM}
        shown = {button: gr.update(value=str(path), visible=True) for button, path in files.items()}
        yield shown | {self.messages: views.message(said)}

    def _stop(self, request: gr.Request) -> None:
        self.shared.visitor(request).stop.set()

    def _compare(self, request: gr.Request) -> Iterator[Update]:
        visitor = self.shared.visitor(request)
        if visitor.result is None or visitor.plan is None:
            yield {self.comparison_messages: views.message(GONE, "alert")}
            return
        visitor.stop.clear()
        steps = self._ways(visitor, visitor.result, visitor.plan)
        steps = in_turn(self.shared.waiting_line, visitor.stop, self.compared, steps)
        before = resting(self.compare) | {self.comparison_messages: "", self.stop: gr.update(visible=True)}
        after = resting(self.compare, False) | {self.stop: gr.update(visible=False)}
        yield from run_steps(steps, self.comparison_messages, before, after)

    def _ways(self, visitor: Visitor, made: AdaptResult, plan: Plan) -> Iterator[Update]:
        from .comparison import REPORTED, Compared, ways

        rows = [Compared("this model", made.report.accuracy, made.report.params)]
        for name, way in ways(self.shared.opened.pruner, plan):
            progress = Progress(f"Trying {name}")
            trying = Watched(partial(way, [Watcher(progress, visitor.stop)]), visitor.stop)
            try:
                for _ in trying:
                    yield {self.compared: views.compared(rows, self.shared.opened.whole, progress)}
            except StoppedError:
                yield {self.compared: views.compared(rows, self.shared.opened.whole)}
                raise
            rows.append(trying.value)
            if name in REPORTED:
                made.report.baselines[REPORTED[name]] = trying.value.at_step
            yield {self.compared: views.compared(rows, self.shared.opened.whole)}
        if visitor.result is made:
            visitor.packed()  # with a report that tells of them
