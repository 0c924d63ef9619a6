"""Section 1 of the page: an example, or the visitor's photos from files, the camera, a zip or the Hub."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..data.hub_samples import SampleRequest
from ..errors import DataError
from ..text import quantity
from . import views
from .events import run_steps, set_enabled
from .fields import FileField, ImageField, SliderField
from .limits import UploadLimits
from .shared import AS_FILE, PRIVATE, SharedState, Update
from .style import DROP_CLASS
from .visitor import Visitor

if TYPE_CHECKING:
    from .uploads import Receipt

MAX_PER_CLASS = 100
"""Most images per class that are taken from a data set."""
FOCUS_CLASS_NAME = """() => {
  if (matchMedia('(pointer: fine)').matches) document.querySelector('#class-name input, #class-name textarea')?.focus()
}"""
"""Lets visitors type the name of the next class at once; not on a phone, whose keyboard would hide the messages."""
MAX_REPO_ID, MAX_CLASS_NAMES = 200, 2000
"""Most characters of a data set's id, and of the names of classes."""
WITHOUT_LABELS = " Photos without labels"
"""The choice that removes the photos without labels; the space before it tells it from a class of this name."""
MAX_UPLOADS = 3
"""Most uploads that are read at a time.

With one, all visitors would wait for a visitor with slow photos. Each upload may hold two photos of the most pixels in
memory.
"""
MAX_DATA_SETS = 2
"""Most data sets that are read at a time; each is read by a process that may hold 3 GB."""


class PhotosSection:
    """The section that takes photos; `messages` shows the outcome of an upload, `overview` the classes so far."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        gr.Markdown("## 1. Photos")
        with gr.Tabs():
            if shared.examples:
                with gr.Tab("Example"):
                    self._add_example_tab()
            with gr.Tab("My photos"):
                self._add_photo_tab()
            with gr.Tab("Zip"):
                gr.Markdown("A zip with one folder per class, and the photos of the class inside.")
                self.zip = FileField(
                    label="Zip", file_types=[".zip"], height=140, elem_id="zip", elem_classes=DROP_CLASS
                )
            with gr.Tab("Hub"):
                self._add_hub_tab()
            with gr.Tab("Without labels"):
                self._add_unlabeled_tab()
        self.messages = gr.HTML(elem_id="messages")
        self.overview = gr.HTML(views.classes({}, None), elem_id="classes")
        with gr.Column(visible=False) as self.edit_controls:
            with gr.Row():
                self.class_to_remove = gr.Dropdown([], label="A class to remove", interactive=True, elem_id="which")
                self.remove = gr.Button("Remove this class", size="sm")
            self.start_over = gr.Button("Start over", size="sm")
            with gr.Row(visible=False) as self.confirmation:
                gr.Markdown("Delete all photos and the model?")
                self.delete_all = gr.Button("Yes, delete all", size="sm", variant="stop")
                self.keep_all = gr.Button("No, keep them", size="sm")

    def _add_example_tab(self) -> None:
        choices = [(f"{name}: {classes}" if classes else name, name) for name, classes in self.shared.example_classes()]
        self.example = gr.Radio(choices, value=choices[0][1], label="Photos to try it with", interactive=True)
        self.use_example = gr.Button("Use these photos", variant="primary")

    def _add_photo_tab(self) -> None:
        max_length = self.shared.limits.label_length
        self.label = gr.Textbox(label="Name of a class", placeholder="cat", max_length=max_length, elem_id="class-name")
        self.files = _photo_field("Photos of this class", "files")
        with gr.Accordion("Or take a photo with the camera", open=False):
            self.camera = ImageField(
                label="Camera", show_label=False, sources=["webcam"], format="jpeg", elem_id="camera", **AS_FILE
            )
        self.add = gr.Button("Add to the class")

    def _add_hub_tab(self) -> None:
        info = "The id of a public data set on huggingface.co whose images have one label each."
        self.repo_id = gr.Textbox(
            label="Data set of the Hub", info=info, placeholder="owner/name", max_length=MAX_REPO_ID
        )
        self.class_names = gr.Textbox(
            label="Classes",
            info="Separated by commas. If empty, the first classes in the data set.",
            max_length=MAX_CLASS_NAMES,
        )
        with gr.Row():
            self.max_classes = SliderField(2, self.shared.limits.classes, value=5, step=1, label="Classes at most")
            self.per_class = SliderField(5, MAX_PER_CLASS, value=30, step=5, label="Photos per class")
        self.use_data_set = gr.Button("Use this data set")

    def _add_unlabeled_tab(self) -> None:
        gr.Markdown(
            "More photos of the same classes, which you need not sort. The large network learns the classes from your "
            "sorted photos, and teaches your model on these. A hundred of each class can do as much as as many sorted "
            "ones; photos of other things do little harm."
        )
        self.unlabeled_files = _photo_field("Photos without labels", "unlabeled-files")
        self.add_unlabeled = gr.Button("Add these photos")

    def wire(self) -> list[Any]:
        """Connect the buttons and fields with their functions; `delete_all` is left to the page as a whole.

        Returns:
            Events after which the photos may have changed.
        """
        outputs = [self.messages, self.overview, self.edit_controls, self.class_to_remove, self.remove]
        ask = {self.start_over: gr.update(visible=False), self.confirmation: gr.update(visible=True)}
        self.start_over.click(lambda: ask, None, list(ask), **PRIVATE)
        self.keep_all.click(self._confirmation_update, None, list(ask), **PRIVATE)
        changes = [self.remove.click(self._remove, [self.class_to_remove], outputs, **PRIVATE)]
        waiting = PRIVATE | {"show_progress_on": self.overview}
        if self.shared.examples:
            changes.append(self.use_example.click(self._use_example, [self.example], outputs, **PRIVATE))
        file_fields = self._file_fields
        for field in file_fields:
            field.change(self._track_pending_photos, file_fields, None, queue=False, **PRIVATE)
        upload = waiting | {"concurrency_limit": MAX_UPLOADS, "concurrency_id": "uploads"}
        photo_fields = [self.label, *file_fields]
        adding = self.add.click(self._add, photo_fields, [*outputs, *photo_fields], **upload)
        adding.then(None, js=FOCUS_CLASS_NAME)
        adding_unlabeled = self.add_unlabeled.click(
            self._add_unlabeled, file_fields, [*outputs, self.unlabeled_files], **upload
        )
        changes += [
            adding,
            adding_unlabeled,
            self.zip.upload(self._add_zip, [self.zip], [*outputs, self.zip], **upload),
        ]
        data_set_fields = [self.repo_id, self.class_names, self.max_classes, self.per_class]
        data_set_outputs = [*outputs, self.use_data_set]
        limit = {"concurrency_limit": MAX_DATA_SETS} | waiting
        return [*changes, self.use_data_set.click(self._add_data_set, data_set_fields, data_set_outputs, **limit)]

    @property
    def _file_fields(self) -> list[Any]:
        """The fields of photos that are chosen before they are added."""
        return [self.files, self.camera, self.unlabeled_files]

    @property
    def components(self) -> list[Any]:
        """The components that change when everything is deleted."""
        outputs = [self.messages, self.overview, self.edit_controls, self.class_to_remove, self.remove]
        fields = [self.label, *self._file_fields, self.zip, self.repo_id, self.class_names]
        return [*outputs, self.start_over, self.confirmation, *fields]

    def empty_update(self, visitor: Visitor) -> Update:
        """Return the update that shows that everything is deleted."""
        texts: Update = dict.fromkeys((self.label, self.repo_id, self.class_names), "")
        files: Update = dict.fromkeys((*self._file_fields, self.zip))
        messages = {self.messages: views.message("All photos and the model are deleted.")}
        return texts | files | self._confirmation_update() | messages | self._overview_update(visitor)

    def arrival_update(self, visitor: Visitor) -> Update:
        """Return the update for a visitor who comes back from signing in: the classes."""
        return self._overview_update(visitor)

    def _confirmation_update(self) -> Update:
        """Return the update that shows the button instead of the question."""
        return {self.start_over: gr.update(visible=True), self.confirmation: gr.update(visible=False)}

    def _use_example(self, name: str, request: gr.Request) -> Update:
        from ..data.loading import read_task_data

        visitor = self.shared.visitor(request)
        if name not in self.shared.examples:
            return {self.messages: views.message("There is no such example.", "alert")}
        visitor.example = read_task_data(self.shared.examples[name], self.shared.opened_bank.base.preprocessing)
        visitor.note_photo_change()
        text = "The example is ready: press “Make my model”."
        return {self.messages: views.message(text)} | self._overview_update(visitor)

    def _track_pending_photos(
        self,
        files: list[str] | None,
        camera_file: str | None,
        unlabeled_files: list[str] | None,
        request: gr.Request,
    ) -> None:
        """Note photos that are chosen but not added yet, so that they are deleted with their visitor.

        Photos that are not chosen any more are deleted at once, and so are those beyond the limits of one visitor.
        """
        visitor, chosen_photos = self.shared.visitor(request), _all_files(files, camera_file, unlabeled_files)
        pending_photos = set(_within_limits(chosen_photos, self.shared.limits))
        self.shared.visitors.note_uploads(visitor, chosen_photos)
        self.shared.visitors.delete_uploads(visitor, {*chosen_photos, *visitor.pending_photos} - pending_photos)
        visitor.pending_photos = pending_photos

    def _add(
        self,
        label: str,
        files: list[str] | None,
        camera_file: str | None,
        unlabeled_files: list[str] | None,
        request: gr.Request,
    ) -> Update:
        from .uploads import clean_label

        self._track_pending_photos(files, camera_file, unlabeled_files, request)
        visitor, chosen_photos = self.shared.visitor(request), _all_files(files, camera_file)
        try:
            receipt = self._take_pending(visitor, chosen_photos, partial(visitor.photos.add, label or ""))
        except DataError as error:
            return {self.messages: views.message(str(error), "alert")}
        class_name = clean_label(label, self.shared.limits.label_length)
        update = self._receipt_update(visitor, receipt, f"“{class_name}”")
        return update | {self.files: None, self.camera: None} | ({self.label: ""} if receipt.n_added else {})

    def _add_unlabeled(
        self,
        files: list[str] | None,
        camera_file: str | None,
        unlabeled_files: list[str] | None,
        request: gr.Request,
    ) -> Update:
        self._track_pending_photos(files, camera_file, unlabeled_files, request)
        visitor = self.shared.visitor(request)
        receipt = self._take_pending(visitor, unlabeled_files or [], visitor.photos.add_unlabeled)
        return self._receipt_update(visitor, receipt, "those without labels") | {self.unlabeled_files: None}

    def _take_pending(
        self, visitor: Visitor, chosen_photos: Sequence[str], add: Callable[[Sequence[str]], Receipt]
    ) -> Receipt:
        """Add chosen photos that are within the limits, and delete their files.

        Raises:
            DataError: the name of the class cannot be used; the files are kept.
        """
        paths = [path for path in chosen_photos if path in visitor.pending_photos]
        receipt = add(paths)
        if n_surplus := len(chosen_photos) - len(paths):
            receipt.refusals.append(f"{quantity(n_surplus, 'file')} beyond the limits of one visitor")
        self.shared.visitors.delete_uploads(visitor, paths)
        return receipt

    def _remove(self, label: str | None, request: gr.Request) -> Update:
        visitor = self.shared.visitor(request)
        if not label:
            return {self.messages: views.message("Choose a class to remove first.", "alert")}
        if label == WITHOUT_LABELS:
            visitor.photos.remove(None)
        elif label in visitor.photos.by_class:
            visitor.photos.remove(label)
        else:
            message = views.message(f"The class “{label}” does not exist any more.", "alert")
            return {self.messages: message} | self._overview_update(visitor)
        visitor.note_photo_change()
        return {self.messages: views.message(f"“{label.strip()}” is removed.")} | self._overview_update(visitor)

    def _add_zip(self, path: str | None, request: gr.Request) -> Update:
        visitor = self.shared.visitor(request)
        if path is None:
            return {self.messages: gr.skip()}
        self.shared.visitors.note_uploads(visitor, [path])
        try:
            return self._receipt_update(visitor, visitor.photos.add_zip(path)) | {self.zip: None}
        except DataError as error:
            return {self.messages: views.message(str(error), "alert"), self.zip: None}
        finally:
            self.shared.visitors.delete_uploads(visitor, [path])

    def _add_data_set(
        self, repo_id: str, class_names: str, max_classes: float, per_class: float, request: gr.Request
    ) -> Iterator[Update]:
        visitor, button = self.shared.visitor(request), self.use_data_set
        before = {self.messages: views.message("Reading the data set…")} | set_enabled(button, False)
        steps = self._data_set_steps(visitor, repo_id or "", class_names or "", int(max_classes), int(per_class))
        yield from run_steps(steps, self.messages, before, set_enabled(button, True))

    def _data_set_steps(
        self, visitor: Visitor, repo_id: str, class_names: str, max_classes: int, per_class: int
    ) -> Iterator[Update]:
        if len(class_names) > MAX_CLASS_NAMES or len(repo_id) > MAX_REPO_ID:
            raise DataError(f"the names of the classes have at most {MAX_CLASS_NAMES} characters together")
        names = tuple(dict.fromkeys(name.strip() for name in class_names.split(",") if name.strip()))
        file_bytes = self.shared.limits.file_bytes
        request = SampleRequest(repo_id.strip(), max_classes, min(per_class, MAX_PER_CLASS), names, file_bytes)
        yield self._receipt_update(visitor, visitor.photos.add_from_hub(request))

    def _receipt_update(self, visitor: Visitor, receipt: Receipt, destination: str = "") -> Update:
        """Return the update after an upload; if it brought photos, they replace an example."""
        if receipt.n_added:
            visitor.example = None
            visitor.note_photo_change()
        return {self.messages: views.message(receipt.summary(destination))} | self._overview_update(visitor)

    def _overview_update(self, visitor: Visitor) -> Update:
        """Return the update that shows the classes so far, and what can be removed."""
        example, photos = visitor.example, visitor.photos
        names = [*photos.by_class, *([WITHOUT_LABELS] if photos.unlabeled else [])]
        can_remove = bool(names) and example is None
        return {
            self.overview: views.classes(photos.by_class, example, photos.unlabeled),
            self.edit_controls: gr.update(visible=can_remove or example is not None),
            self.class_to_remove: gr.update(choices=names, value=None, visible=can_remove),
            self.remove: gr.update(visible=can_remove),
        }


def _photo_field(label: str, elem_id: str) -> FileField:
    """Return a field that takes any number of photos."""
    return FileField(
        label=label,
        file_count="multiple",
        file_types=["image"],
        height=140,
        elem_id=elem_id,
        elem_classes=DROP_CLASS,
    )


def _all_files(files: list[str] | None, camera_file: str | None, unlabeled_files: list[str] | None = None) -> list[str]:
    """Return the chosen files and the camera's photo as one list."""
    return [*(files or ()), *([camera_file] if camera_file else ()), *(unlabeled_files or ())]


def _within_limits(paths: list[str], limits: UploadLimits) -> list[str]:
    """Return the first files that together are within the limits of what one visitor may send."""
    sizes = [Path(path).stat().st_size if Path(path).exists() else 0 for path in paths]
    sums = itertools.accumulate(sizes)
    return [path for path, total in zip(paths[: limits.photos], sums, strict=False) if total <= limits.total_bytes]
