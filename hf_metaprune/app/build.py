"""The page: its sections from photos to the finished model, and what happens when something is pressed."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from ..config import AdaptOptions, option_fields
from ..cost_model import cost_model_of
from ..errors import DataError, MetaPruneError
from ..masks import Mask
from ..pages.render import look
from ..pruner import MetaPruner
from ..reading import read_task_data
from ..uploads import UploadLimits
from . import views
from .jobs import Progress, StoppedError, Watched, Watcher
from .visitor import Visitor, Visitors

log = logging.getLogger(__name__)

TITLE = "Your own image classifier, in a minute"
INTRO = (
    f"# {TITLE}\n"
    "Show some photos of the things you want told apart. The nearest tasks of a bank of small models vote for what "
    "yours needs, and a minute of training makes it. [How it works](https://pypi.org/project/hf-metaprune/)"
)
QUEUE, TRAINING = 40, "training"
"""Visitors that may wait, and the name of the work that only one can have done at a time."""
RATIOS = (0.5, 0.98)

Update = dict[Any, Any]


class App:
    """One bank's page; `page` is the Gradio app."""

    def __init__(self, bank: str | Path, examples: str | Path | None, limits: UploadLimits | None = None) -> None:
        self.pruner = MetaPruner.from_hub(bank)
        self.base = self.pruner.bank.base
        self.limits = limits or UploadLimits()
        self.visitors = Visitors(self.base.preprocessing, self.limits)
        self.examples = _examples(examples)
        self.ratio = self.pruner.bank.default_ratio or 0.9
        self.whole = self._whole()
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as self.page:
            self._layout()
            self._wire()

    def _whole(self) -> tuple[int, int]:
        """Parameters and MACs of the base."""
        config = self.base.config(Mask.full(self.base.sizes), ["any"])
        costs = cost_model_of(config, torch.empty(1, *self.base.preprocessing.input_size))
        return costs.params(self.base.sizes), costs.macs(self.base.sizes)

    def _layout(self) -> None:
        gr.Markdown(INTRO)
        gr.Markdown("## 1. Photos")
        with gr.Tabs():
            if self.examples:
                with gr.Tab("An example"):
                    self.example = gr.Radio(
                        list(self.examples), value=next(iter(self.examples)), label="Task", interactive=True
                    )
                    self.take_example = gr.Button("Use this example")
            with gr.Tab("My photos"):
                self.label = gr.Textbox(label="Name of a class", placeholder="cat", max_length=self.limits.label_length)
                self.files = gr.File(
                    label="Photos of it", file_count="multiple", file_types=["image"], type="filepath", height=140
                )
                with gr.Accordion("Or take one with the camera", open=False):
                    self.camera = gr.Image(label="Camera", sources=["webcam"], type="pil", format="jpeg")
                self.add = gr.Button("Add to the class")
            with gr.Tab("A zip"):
                gr.Markdown("A folder for each class, with its photos inside.")
                self.zip = gr.File(label="Zip", file_types=[".zip"], type="filepath", height=140)
        self.told = gr.HTML(elem_id="told")
        self.shown = gr.HTML(views.message(""), elem_id="classes")
        self.clear = gr.Button("Start over", size="sm", variant="secondary")

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
            *RATIOS, value=self.ratio, step=0.01, label="Share of the base's units to remove", interactive=True
        )
        self.predicted = gr.HTML(elem_id="size")
        self.voted = gr.HTML(elem_id="vote")
        gr.Markdown("## 5. Your model")
        self.result = gr.HTML("<p>It is shown here when it is made.</p>", elem_id="result")
        with gr.Row(visible=False) as self.trial:
            self.photo = gr.Image(label="Try it on a photo", sources=["upload", "webcam"], type="pil", format="jpeg")
            self.answer = gr.HTML(views.answer({}), elem_id="answer")
        with gr.Row():
            self.download = gr.DownloadButton("Download the model", visible=False, elem_id="download")
            self.report = gr.DownloadButton("Download the report", visible=False, elem_id="report")

    def _wire(self) -> None:
        seen, made = [self.told, self.shown], [self.near, self.voted, self.predicted, self.result]
        files, buttons = [self.trial, self.download, self.report], [self.go, self.stop]
        private: dict[str, Any] = {"api_visibility": "private"}
        if self.examples:
            self.take_example.click(self._use_example, [self.example], seen, **private)
        photos = [self.label, self.files, self.camera]
        waiting = private | {"show_progress_on": self.shown}
        self.add.click(self._add, photos, [*seen, self.files, self.camera], **waiting)
        self.zip.upload(self._add_zip, [self.zip], [*seen, self.zip], **waiting)
        options = [self.size, self.voters, self.steps, self.seed]
        self.go.click(
            self._make, options, [self.told, self.progress, *made, *buttons, *files],
            concurrency_id=TRAINING, concurrency_limit=1, show_progress="hidden", **private,
        )  # fmt: skip
        self.stop.click(self._stop, None, None, queue=False, **private)
        self.clear.click(self._clear, None, [*seen, self.progress, *made, *files], **private)
        self.size.release(self._resize, [self.size], [self.predicted, self.voted], **private)
        self.photo.change(self._try, [self.photo], [self.answer], **private)
        self.page.unload(self._leave)

    def _visitor(self, request: gr.Request) -> Visitor:
        return self.visitors.get(request.session_hash or "")

    def _use_example(self, name: str, request: gr.Request) -> tuple[Any, Any]:
        visitor = self._visitor(request)
        if name not in self.examples:
            return views.message("There is no such example.", "alert"), gr.skip()
        visitor.example = read_task_data(self.examples[name], self.base.preprocessing)
        visitor.changed()
        return views.message("The example is ready: press “Make my model”."), self._classes(visitor)

    def _add(self, label: str, files: list[str] | None, shot: Any, request: gr.Request) -> tuple[Any, ...]:
        visitor, given = self._visitor(request), list(files or ())
        try:
            receipt = visitor.photos.add(label or "", [*given, *_jpeg(shot)])
        except DataError as error:
            return views.message(str(error), "alert"), gr.skip(), gr.skip(), gr.skip()
        _delete(given)
        visitor.example = None
        visitor.changed()
        return views.message(receipt.words()), self._classes(visitor), None, None

    def _add_zip(self, path: str | None, request: gr.Request) -> tuple[Any, ...]:
        visitor = self._visitor(request)
        if path is None:
            return gr.skip(), gr.skip(), gr.skip()
        try:
            words = views.message(visitor.photos.add_zip(path).words())
        except DataError as error:
            words = views.message(str(error), "alert")
        finally:
            _delete([path])
        visitor.example = None
        visitor.changed()
        return words, self._classes(visitor), None

    def _classes(self, visitor: Visitor) -> str:
        return views.classes(visitor.photos, visitor.example)

    def _clear(self, request: gr.Request) -> list[Any]:
        visitor = self._visitor(request)
        visitor.forget()
        hidden = gr.update(visible=False)
        return [views.message("All of it is forgotten."), self._classes(visitor), *[""] * 5, hidden, hidden, hidden]

    def _stop(self, request: gr.Request) -> None:
        self._visitor(request).stop.set()

    def _leave(self, request: gr.Request) -> None:
        self.visitors.leave(request.session_hash)

    def _make(
        self, ratio: float, voters: float, steps: float, seed: float | None, request: gr.Request
    ) -> Iterator[Update]:
        """From photos to a model, told as it goes."""
        visitor = self._visitor(request)
        visitor.stop.clear()
        running = {self.go: gr.update(visible=False), self.stop: gr.update(visible=True)}
        yield {**running, self.told: "", self.progress: views.training(Progress("Looking at the photos"))}
        try:
            yield from self._steps(visitor, ratio, int(voters), int(steps), int(seed or 0))
        except StoppedError:
            yield {self.told: views.message("Stopped."), self.progress: ""}
        except MetaPruneError as error:
            yield {self.told: views.message(str(error), "alert"), self.progress: ""}
        except Exception:
            log.exception("a visitor's model could not be made")
            sorry = "Something went wrong here, not with your photos. Please try again."
            yield {self.told: views.message(sorry, "alert"), self.progress: ""}
        yield {self.go: gr.update(visible=True), self.stop: gr.update(visible=False)}

    def _steps(self, visitor: Visitor, ratio: float, voters: int, steps: int, seed: int) -> Iterator[Update]:
        data, progress = visitor.data(seed), Progress("Looking for the nearest tasks")
        options: dict[str, Any] = {"neighbours": voters, "steps": steps, "seed": seed, "ratio": ratio}
        planning = Watched(lambda: self.pruner.plan(data, **options), visitor.stop)
        for _ in planning:
            yield {self.progress: views.training(progress)}
        plan = visitor.plan = planning.value
        yield {
            self.near: views.neighbours(plan, ratio),
            self.voted: views.vote(plan, ratio),
            self.predicted: views.size(plan, ratio, self.whole),
        }
        progress = Progress("Training", steps=steps)
        watcher = Watcher(progress, visitor.stop)
        making = Watched(lambda: self.pruner.make(plan, callbacks=[watcher]), visitor.stop)
        for _ in making:
            yield {self.progress: views.training(progress)}
        visitor.result = making.value
        path = visitor.packed()
        yield {
            self.progress: "",
            self.result: views.result(visitor.result),
            self.trial: gr.update(visible=True),
            self.download: gr.update(value=str(path), visible=True),
            self.report: gr.update(value=str(path.parent / "model" / "report.html"), visible=True),
        }

    def _resize(self, ratio: float, request: gr.Request) -> tuple[Any, Any]:
        plan = self._visitor(request).plan
        if plan is None:
            return gr.skip(), gr.skip()
        return views.size(plan, ratio, self.whole), views.vote(plan, ratio)

    def _try(self, photo: Any, request: gr.Request) -> str:
        made = self._visitor(request).result
        return views.answer(made.predict(photo)[0]["probabilities"] if photo is not None and made is not None else {})


def _examples(folder: str | Path | None) -> dict[str, Path]:
    """The example tasks in a folder, by a name that people read."""
    if folder is None:
        return {}
    found = sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    return {path.name.replace("_", " "): path for path in found}


def _jpeg(shot: Any) -> list[bytes]:
    """What the camera took, as a file."""
    if shot is None:
        return []
    out = io.BytesIO()
    shot.convert("RGB").save(out, "JPEG", quality=92)
    return [out.getvalue()]


def _delete(paths: list[Any]) -> None:
    """Remove uploaded files as soon as their pixels are taken."""
    for path in paths:
        Path(path).unlink(missing_ok=True)


def make_app(bank: str | Path, examples: str | Path | None = None, limits: UploadLimits | None = None) -> gr.Blocks:
    """The page of a bank.

    Args:
        bank: a folder, or an id on the Hub.
        examples: a folder of example tasks.
        limits: of what a visitor may send.

    Raises:
        MetaPruneError: the bank cannot be opened.
    """
    return App(bank, examples, limits).page


def launch(page: gr.Blocks, limits: UploadLimits | None = None, **options: Any) -> Any:
    """Serve a page: `options` as of Gradio's ``launch``, such as `server_port`."""
    most = (limits or UploadLimits()).total_bytes
    css = look() + STYLE
    page.queue(max_size=QUEUE)
    return page.launch(
        css=css,
        theme=THEME,
        max_file_size=most,
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        **options,
    )


STYLE = """
.gradio-container { max-width: 900px !important; margin: 0 auto !important; }
footer { display: none !important; }
.dark { --color-accent: #6cb6ec; }
"""
PAPER, NIGHT, SOFT, SOFT_NIGHT = "#0069a6", "#6cb6ec", "#4b5563", "#b6bec9"
"""The pictures' blue, and grey, dark and light enough to be read on white and on black."""
LINKS = [f"link_text_color{state}" for state in ("", "_active", "_hover", "_visited")]
THEME = gr.themes.Soft(
    primary_hue="blue", font=["system-ui", "DejaVu Sans", "sans-serif"], font_mono=["ui-monospace"]
).set(
    color_accent=PAPER,
    **dict.fromkeys(LINKS, PAPER),
    **dict.fromkeys((f"{name}_dark" for name in LINKS), NIGHT),
    **dict.fromkeys(("button_primary_background_fill", "button_primary_background_fill_dark"), PAPER),
    **dict.fromkeys(("button_primary_background_fill_hover", "button_primary_background_fill_hover_dark"), "#005687"),
    **dict.fromkeys(("checkbox_label_background_fill_selected", "checkbox_label_background_fill_selected_dark"), PAPER),
    **dict.fromkeys(("block_label_background_fill", "block_title_background_fill"), "transparent"),
    **dict.fromkeys(("block_label_text_color", "block_title_text_color"), "*body_text_color"),
    **dict.fromkeys(("body_text_color_subdued", "block_info_text_color"), SOFT),
    **dict.fromkeys(("body_text_color_subdued_dark", "block_info_text_color_dark"), SOFT_NIGHT),
)
