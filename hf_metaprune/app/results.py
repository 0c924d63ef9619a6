"""Section 3 of the page: the model, to try on a photo, to download, and to compare with baselines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import gradio as gr

from ..errors import DataError
from . import views
from .events import move_focus, run_in_turn, run_steps, set_enabled
from .exporting import export_in_process
from .fields import ImageField
from .jobs import BackgroundJob, Progress, ProgressCallback, StoppedError
from .shared import AS_FILE, PRIVATE, SharedState, Update
from .style import DROP_CLASS
from .visitor import Visitor

if TYPE_CHECKING:
    from ..adapt.plan import Plan
    from ..result import AdaptResult


NO_MODEL_YET = '<p class="metaprune soft">Your model is shown here as soon as it is made.</p>'
MODEL_GONE = "The model does not exist any more: press “Make my model” to make it again."
DOWNLOADS = (
    "The model is a zip for Python. Unpack it, run `import hf_metaprune`, and load the model with "
    '`pipeline("image-classification", "model")` of transformers. The report describes the model on one page. The ONNX '
    "file also runs without Python: on a phone, in a browser, or on a Raspberry Pi."
)


class ResultSection:
    """The visitor's model; `components` are those that change when a model is made."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        gr.Markdown("## 3. Your model")
        self.result = gr.HTML(NO_MODEL_YET, elem_id="result")
        with gr.Column(visible=False) as self.column:
            gr.Markdown("### Try it on a photo")
            self.photo = ImageField(
                label="A photo", show_label=False, sources=["upload", "webcam"], format="jpeg", height=260,
                elem_id="photo", elem_classes=DROP_CLASS, **AS_FILE,
            )  # fmt: skip
            self.answer = gr.HTML(views.answer({}), elem_id="answer")
            gr.Markdown(f"### Download it\n{DOWNLOADS}")
            with gr.Row():
                self.download_model = gr.DownloadButton("Download the model", elem_id="download")
                self.download_report = gr.DownloadButton("Download the report", elem_id="report")
                self.make_onnx = gr.Button("Make an ONNX file")
                self.download_onnx = gr.DownloadButton("Download the ONNX file", visible=False, elem_id="onnx")
                self.download_program = gr.DownloadButton(
                    "Download a program for the ONNX file", visible=False, elem_id="program"
                )
            self.export_messages = gr.HTML(elem_id="export-messages")
            gr.Markdown("### Compare it with baselines")
            with gr.Row():
                self.compare = gr.Button("Compare with baselines (about a minute)", elem_id="compare")
                self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-comparison")
            self.comparison_messages = gr.HTML(elem_id="comparison-messages")
            self.comparison = gr.HTML(elem_id="comparison")
        exports = [self.download_onnx, self.download_program, self.export_messages]
        downloads = [self.download_model, self.download_report, *exports]
        trial = [self.result, self.column, self.photo, self.answer]
        self.components = [*trial, *downloads, self.comparison_messages, self.comparison]

    def wire(self) -> None:
        """Connect the buttons and fields with their functions."""
        self.photo.change(self._try, [self.photo], [self.answer], **PRIVATE)
        exports = [self.download_onnx, self.download_program, self.make_onnx, self.export_messages]
        self.make_onnx.click(self._export, None, exports, concurrency_limit=None, **PRIVATE)
        self.compare.click(None, js=move_focus("compare", "stop-comparison"))
        comparing = self.compare.click(
            self._compare, None, [self.compare, self.stop, self.comparison, self.comparison_messages],
            concurrency_limit=None, show_progress="hidden", **PRIVATE,
        )  # fmt: skip
        comparing.then(None, js=move_focus("stop-comparison", "compare"))
        self.stop.click(self._stop, None, None, queue=False, **PRIVATE)

    def model_update(self, visitor: Visitor) -> Update:
        """Return the update that shows the visitor's model.

        Raises:
            StoppedError: the model does not exist any more.
        """
        path, model = visitor.pack_model(), visitor.result
        if model is None:
            raise StoppedError
        return self.empty_update() | {
            self.result: views.result(model, path.stat().st_size / 1000),
            self.column: gr.update(visible=True),
            self.download_model: gr.update(value=str(path)),
            self.download_report: gr.update(value=str(path.parent / "model" / "report.html")),
        }

    def empty_update(self) -> Update:
        """Return the update that shows that there is no model."""
        hide = gr.update(visible=False)
        update = {self.result: NO_MODEL_YET, self.photo: None, self.answer: views.answer({})}
        update |= dict.fromkeys((self.comparison, self.export_messages, self.comparison_messages), "")
        return update | dict.fromkeys((self.column, self.download_onnx, self.download_program), hide)

    def _try(self, path: str | None, request: gr.Request) -> str:
        from .uploads import read_photo_file

        visitor = self.shared.visitor(request)
        former_path, visitor.trial_photo = visitor.trial_photo, path
        if former_path and former_path != path:
            self.shared.visitors.delete_uploads(visitor, [former_path])
        if path is None:
            return views.answer({})
        self.shared.visitors.note_uploads(visitor, [path])
        if visitor.result is None:
            return views.message(MODEL_GONE, "alert")
        try:
            photo = read_photo_file(path, self.shared.limits, max(visitor.result.preprocessing.input_size[1:]))
        except DataError as error:
            return views.message(f"The photo cannot be used: {error}.", "alert")
        return views.answer(visitor.result.predict(photo)[0]["probabilities"])

    def _export(self, request: gr.Request) -> Iterator[Update]:
        visitor = self.shared.visitor(request)
        if visitor.result is None:
            yield {self.export_messages: views.message(MODEL_GONE, "alert")}
            return
        before = set_enabled(self.make_onnx, False) | {self.export_messages: views.message("Making the ONNX file…")}
        steps = run_in_turn(self.shared.waiting_line, Event(), self.export_messages, self._export_steps(visitor))
        yield from run_steps(steps, self.export_messages, before, set_enabled(self.make_onnx, True))

    def _export_steps(self, visitor: Visitor) -> Iterator[Update]:
        from ..export import PROGRAM

        if visitor.result is None:  # it was deleted while the visitor waited
            yield {self.export_messages: views.message(MODEL_GONE, "alert")}
            return
        with visitor.writable_folder() as folder:
            path = folder / "model.onnx"
            for _ in export_in_process(folder / "model", path):
                yield {self.export_messages: views.message("Making the ONNX file…")}
            size, program = path.stat().st_size, Path(shutil.copy(PROGRAM, folder))  # Gradio would share an old copy
        text = (
            f"The ONNX file is made: {size / 1000:,.0f} kB, with the labels in it. The program classifies "
            f"photos with it, and needs only onnxruntime, numpy and pillow: python {PROGRAM.name} model.onnx photo.jpg"
        )
        paths = {self.download_onnx: path, self.download_program: program}
        buttons = {button: gr.update(value=str(path), visible=True) for button, path in paths.items()}
        yield buttons | {self.export_messages: views.message(text)}

    def _stop(self, request: gr.Request) -> None:
        self.shared.visitor(request).stop.set()

    def _compare(self, request: gr.Request) -> Iterator[Update]:
        visitor = self.shared.visitor(request)
        if visitor.result is None or visitor.plan is None:
            yield {self.comparison_messages: views.message(MODEL_GONE, "alert")}
            return
        visitor.stop.clear()
        steps = self._comparison_steps(visitor, visitor.result, visitor.plan)
        steps = run_in_turn(self.shared.waiting_line, visitor.stop, self.comparison, steps)
        before = {self.comparison_messages: "", self.stop: gr.update(visible=True)}
        before |= set_enabled(self.compare, False)
        after = set_enabled(self.compare, True) | {self.stop: gr.update(visible=False)}
        yield from run_steps(steps, self.comparison_messages, before, after)

    def _comparison_steps(self, visitor: Visitor, result: AdaptResult, plan: Plan) -> Iterator[Update]:
        from .comparison import REPORT_NAMES, ComparisonRow, baselines

        base_cost = self.shared.opened_bank.base_cost
        rows = [ComparisonRow("this model", result.report.accuracy, result.report.params)]
        for name, make_baseline in baselines(self.shared.opened_bank.pruner, plan):
            progress = Progress(f"Trying {name}")
            job = BackgroundJob(partial(make_baseline, [ProgressCallback(progress, visitor.stop)]), visitor.stop)
            try:
                for _ in job:
                    yield {self.comparison: views.comparison(rows, base_cost, progress)}
            except StoppedError:
                yield {self.comparison: views.comparison(rows, base_cost)}
                raise
            rows.append(job.value)
            if name in REPORT_NAMES:
                result.report = result.report.with_baseline(REPORT_NAMES[name], job.value.accuracy_at_step)
            yield {self.comparison: views.comparison(rows, base_cost)}
        if visitor.result is result:
            visitor.pack_model()  # again, so that its report shows the baselines
