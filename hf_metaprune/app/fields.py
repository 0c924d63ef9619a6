"""Fields of the page that look at what visitors send in our way instead of Gradio's.

They are classes, because Gradio makes a field of a session anew, by its class, when an event has changed it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio import component_meta
from gradio.data_classes import ListFiles


def _paths(payload: Any) -> list[str]:
    """Return the paths of the files that a field has got."""
    if payload is None:
        return []
    return [file.path for file in (payload.root if isinstance(payload, ListFiles) else [payload])]


@contextmanager
def _no_interface_files() -> Iterator[None]:
    """Keep Gradio from writing ``fields.pyi`` into the installed package for the classes of the block."""
    name = "create_or_modify_pyi"
    former = getattr(component_meta, name, None)
    setattr(component_meta, name, lambda *_: None)
    try:
        yield
    finally:
        setattr(component_meta, name, former)


with _no_interface_files():

    class ImageField(gr.Image):
        """An image that stays the file that was sent, and is passed on by its path.

        Gradio would first try all decoders that Pillow has.
        """

        is_template = True

        def preprocess(self, payload: Any) -> Any:
            """Return the path of the file, or None."""
            return next(iter(_paths(payload)), None)

    class FileField(gr.File):
        """Files that are passed on by their paths; Gradio would make an empty file on disk for each."""

        is_template = True

        def preprocess(self, payload: Any) -> Any:
            """Return the path of the file, or the list of paths if the field takes many; None if there is none."""
            paths = _paths(payload)
            return (paths or None) if self.file_count == "multiple" else next(iter(paths), None)

    class SliderField(gr.Slider):
        """A slider whose number field takes the nearest number of its range.

        Visitors may also type a number. An empty field, or what is no number, means the slider's own value.
        """

        is_template = True

        def preprocess(self, payload: float | None) -> float:
            """Return the nearest number of the range."""
            if payload is None or math.isnan(payload):
                payload = self.value if isinstance(self.value, (int, float)) else self.minimum
            return min(max(payload, self.minimum), self.maximum)
