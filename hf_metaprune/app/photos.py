"""Section 1 of the page: an example, or photos of one's own from files, the camera, a zip or the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..data.hub_samples import Wanted
from ..errors import DataError
from . import views
from .events import resting, run_steps
from .shared import AS_FILE, PRIVATE, SharedState, Update, within_limits
from .style import DROP
from .visitor import Visitor

if TYPE_CHECKING:
    from .uploads import Receipt

MOST_PER_CLASS = 100
"""Images of a class that are taken of a data set."""
FOCUS = """() => {
  if (matchMedia('(pointer: fine)').matches) document.querySelector('#class-name input, #class-name textarea')?.focus()
}"""
"""After photos of a class were added, the next one is to be named; on a phone the keyboard would hide what was said."""
UPLOADS_AT_ONCE = 3
"""Or all would wait for one with slow photos; each may hold two photos of the most pixels."""
DATA_SETS_AT_ONCE = 2
"""Each is read by a process that may hold 3 GB."""


class PhotosSection:
    """Where photos come in; `messages` says what became of them, `shown` shows the classes so far."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        gr.Markdown("## 1. Photos")
        with gr.Tabs():
            if shared.examples:
                with gr.Tab("Example"):
                    self._examples()
            with gr.Tab("My photos"):
                self._own_photos()
            with gr.Tab("Zip"):
                gr.Markdown("A folder for each class, with its photos inside.")
                self.zip = gr.File(
                    label="Zip", file_types=[".zip"], type="filepath", height=140, elem_id="zip", elem_classes=DROP
                )
            with gr.Tab("Hub"):
                self._data_set()
        self.messages = gr.HTML(elem_id="messages")
        self.shown = gr.HTML(views.classes({}, None), elem_id="classes")
        with gr.Column(visible=False) as self.change:
            with gr.Row():
                self.which = gr.Dropdown([], label="A class to remove", interactive=True, elem_id="which")
                self.remove = gr.Button("Remove this class", size="sm")
            self.ask = gr.Button("Start over", size="sm")
            with gr.Row(visible=False) as self.sure:
                gr.Markdown("Forget all photos, and the model?")
                self.clear = gr.Button("Yes, forget all", size="sm", variant="stop")
                self.keep = gr.Button("No, keep them", size="sm")

    def _examples(self) -> None:
        names = [(f"{name}: {classes}" if classes else name, name) for name, classes in self.shared.example_classes()]
        self.example = gr.Radio(names, value=names[0][1], label="Photos to try it with", interactive=True)
        self.take_example = gr.Button("Use these photos", variant="primary")

    def _own_photos(self) -> None:
        longest = self.shared.limits.label_length
        self.label = gr.Textbox(label="Name of a class", placeholder="cat", max_length=longest, elem_id="class-name")
        self.files = gr.File(
            elem_classes=DROP,
            label="Photos of it",
            file_count="multiple",
            file_types=["image"],
            type="filepath",
            height=140,
            elem_id="files",
        )
        with gr.Accordion("Or take one with the camera", open=False):
            self.camera = gr.Image(
                label="Camera", show_label=False, sources=["webcam"], format="jpeg", elem_id="camera", **AS_FILE
            )
        self.add = gr.Button("Add to the class")

    def _data_set(self) -> None:
        said = "The id of one on huggingface.co that is public, and has images with one label each."
        self.repo = gr.Textbox(label="Data set of the Hub", info=said, placeholder="owner/name", max_length=200)
        self.names = gr.Textbox(
            label="Classes", info="Separated by commas; if left out, the first that are found.", max_length=2000
        )
        with gr.Row():
            self.classes = within_limits(
                gr.Slider(2, self.shared.limits.classes, value=5, step=1, label="Classes at most")
            )
            self.per_class = within_limits(gr.Slider(5, MOST_PER_CLASS, value=30, step=5, label="Photos of each"))
        self.take_data_set = gr.Button("Take these photos")

    def wire(self) -> list[Any]:
        """Connect what is pressed with what happens, but for `clear`, of which other sections know more.

        Returns:
            Events after which the photos may be others.
        """
        seen = [self.messages, self.shown, self.change, self.which, self.remove]
        show = {self.ask: gr.update(visible=False), self.sure: gr.update(visible=True)}
        hide = {self.ask: gr.update(visible=True), self.sure: gr.update(visible=False)}
        self.ask.click(lambda: show, None, list(show), **PRIVATE)
        self.keep.click(lambda: hide, None, list(hide), **PRIVATE)
        changes = [self.remove.click(self._remove, [self.which], seen, **PRIVATE)]
        waiting = PRIVATE | {"show_progress_on": self.shown}
        if self.shared.examples:
            changes.append(self.take_example.click(self._use_example, [self.example], seen, **PRIVATE))
        own = [self.label, self.files, self.camera]
        for chosen in (self.files, self.camera):
            chosen.change(self._note, [self.files, self.camera], None, queue=False, **PRIVATE)
        several = waiting | {"concurrency_limit": UPLOADS_AT_ONCE}
        added = self.add.click(self._add, own, [*seen, *own], **several)
        added.then(None, js=FOCUS)
        changes += [added, self.zip.upload(self._add_zip, [self.zip], [*seen, self.zip], **several)]
        wanted = [self.repo, self.names, self.classes, self.per_class]
        out = [*seen, self.take_data_set]
        limit = {"concurrency_limit": DATA_SETS_AT_ONCE} | waiting
        return [*changes, self.take_data_set.click(self._add_data_set, wanted, out, **limit)]

    @property
    def parts(self) -> list[Any]:
        """The components that change when all is forgotten."""
        fields = [self.label, self.files, self.camera, self.zip, self.repo, self.names]
        return [self.messages, self.shown, self.change, self.which, self.remove, self.ask, self.sure, *fields]

    def emptied(self, visitor: Visitor) -> Update:
        """How the section looks when all is forgotten."""
        texts: Update = dict.fromkeys((self.label, self.repo, self.names), "")
        files: Update = dict.fromkeys((self.files, self.camera, self.zip))
        shown = {self.ask: gr.update(visible=True), self.sure: gr.update(visible=False)}
        return (
            texts | files | shown | {self.messages: views.message("All of it is forgotten.")} | self._classes(visitor)
        )

    def arrived(self, visitor: Visitor) -> Update:
        """The classes of one who comes back."""
        return self._classes(visitor)

    def _use_example(self, name: str, request: gr.Request) -> Update:
        from ..data.loading import read_task_data

        visitor = self.shared.visitor(request)
        if name not in self.shared.examples:
            return {self.messages: views.message("There is no such example.", "alert")}
        visitor.example = read_task_data(self.shared.examples[name], self.shared.opened.base.preprocessing)
        visitor.changed()
        ready = "The example is ready: press “Make my model”."
        return {self.messages: views.message(ready)} | self._classes(visitor)

    def _note(self, files: list[str] | None, shot: str | None, request: gr.Request) -> None:
        """Photos that are chosen, and not added yet, go with their visitor, too; or when they are chosen no more."""
        visitor, chosen = self.shared.visitor(request), set(_given(files, shot))
        self.shared.visitors.drop(visitor, visitor.chosen - chosen)
        visitor.chosen = chosen
        visitor.uploads |= chosen

    def _add(self, label: str, files: list[str] | None, shot: str | None, request: gr.Request) -> Update:
        from .uploads import clean_label

        visitor, given = self.shared.visitor(request), _given(files, shot)
        visitor.uploads.update(given)
        try:
            receipt = visitor.photos.add(label or "", given)
        except DataError as error:
            return {self.messages: views.message(str(error), "alert")}
        self.shared.visitors.drop(visitor, given)
        taken = self._taken(visitor, receipt, f"“{clean_label(label, self.shared.limits.label_length)}”")
        return taken | {self.files: None, self.camera: None} | ({self.label: ""} if receipt.taken else {})

    def _remove(self, label: str | None, request: gr.Request) -> Update:
        visitor = self.shared.visitor(request)
        if not label:
            return {self.messages: views.message("Choose a class to remove first.", "alert")}
        if label not in visitor.photos.by_class:
            return {self.messages: views.message(f"“{label}” is not here any more.", "alert")} | self._classes(visitor)
        visitor.photos.remove(label)
        visitor.changed()
        return {self.messages: views.message(f"“{label}” is removed.")} | self._classes(visitor)

    def _add_zip(self, path: str | None, request: gr.Request) -> Update:
        visitor = self.shared.visitor(request)
        if path is None:
            return {self.messages: gr.skip()}
        visitor.uploads.add(path)
        try:
            return self._taken(visitor, visitor.photos.add_zip(path)) | {self.zip: None}
        except DataError as error:
            return {self.messages: views.message(str(error), "alert"), self.zip: None}
        finally:
            self.shared.visitors.drop(visitor, [path])

    def _add_data_set(
        self, repo: str, names: str, classes: float, per_class: float, request: gr.Request
    ) -> Iterator[Update]:
        messages, button = self.messages, self.take_data_set
        asking = {messages: views.message("Asking the Hub…")} | resting(button)
        steps = self._asked(self.shared.visitor(request), repo or "", names or "", int(classes), int(per_class))
        yield from run_steps(steps, messages, asking, resting(button, False))

    def _asked(self, visitor: Visitor, repo: str, names: str, classes: int, per_class: int) -> Iterator[Update]:
        chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
        most = self.shared.limits.file_bytes
        wanted = Wanted(repo.strip(), classes, min(per_class, MOST_PER_CLASS), chosen, most)
        yield self._taken(visitor, visitor.photos.add_from_hub(wanted))

    def _taken(self, visitor: Visitor, receipt: Receipt, into: str = "") -> Update:
        """Photos have come: an example that was chosen before is none any more."""
        if receipt.taken:
            visitor.example = None
            visitor.changed()
        return {self.messages: views.message(receipt.words(into))} | self._classes(visitor)

    def _classes(self, visitor: Visitor) -> Update:
        """What there is so far, and what can be taken back."""
        example, names = visitor.example, list(visitor.photos.by_class)
        mine = bool(names) and example is None
        return {
            self.shown: views.classes(visitor.photos.by_class, example),
            self.change: gr.update(visible=mine or example is not None),
            self.which: gr.update(choices=names, value=None, visible=mine),
            self.remove: gr.update(visible=mine),
        }


def _given(files: list[str] | None, shot: str | None) -> list[str]:
    """Photos that were chosen, and what the camera took."""
    return [*(files or ()), *([shot] if shot else ())]
