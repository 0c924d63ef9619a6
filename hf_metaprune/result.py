"""`AdaptResult`: an adapted model, its image processor, and what was measured."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .data.decoding import open_image
from .data.preprocessing import Preprocessing, crop_long_image
from .errors import DataError, FormatError, reason
from .files.layout import MODEL_FILES, REPORT, REPORT_PAGE
from .files.names import user_path
from .files.reading import is_present
from .files.storage import new_folder, write_bytes
from .models.modeling import MetaPrunedForImageClassification
from .models.saving import load_model
from .reporting.misclassified import Mistake
from .reporting.model_files import write_model_files
from .reporting.notebook import result_cell
from .reporting.page import model_page
from .reporting.publishing import publish_model
from .reporting.report import AdaptReport
from .reporting.report_files import load_report
from .training.hardware import pick_device

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

log = logging.getLogger(__name__)

PREDICT_BATCH, PREDICT_PIXELS = 64, 32 * 224**2
"""Most images, and most pixels of all of them, per forward pass of `AdaptResult.predict`."""


class AdaptResult:
    """An adapted model with its image processor and report.

    `MetaPruner.adapt` makes one; `load_result` reads one from a folder.

    Args:
        model: a `MetaPrunedForImageClassification` in eval mode.
        preprocessing: how images become the model's input.
        report: an `AdaptReport`, the measurements.
        device: where the model is.
        mistakes: test images that the model classifies wrongly, the most certain ones first.

    Example:
        ::

            result = MetaPruner.from_hub("org/resnet50-bank").adapt("photos")
            print(result.predict("photo.jpg")[0]["label"])
            result.save_pretrained("pets")

        The report as a page that can be mailed::

            from pathlib import Path

            Path("report.html").write_text(result.to_html(), encoding="utf-8")
    """

    def __init__(
        self,
        model: MetaPrunedForImageClassification,
        preprocessing: Preprocessing,
        report: AdaptReport,
        device: torch.device,
        mistakes: Sequence[Mistake] = (),
    ) -> None:
        self.model, self.preprocessing, self.report, self.device = model, preprocessing, report, device
        self.mistakes = list(mistakes)
        """Test images that the model classifies wrongly, the most certain ones first; they are not saved with it."""
        self.folder: Path | None = None
        """The folder that the model was loaded from; people may have edited the card there."""

    def __repr__(self) -> str:
        labels = ", ".join(self.model.config.id2label[i] for i in range(min(5, self.model.config.num_labels)))
        ellipsis = ", ..." if self.model.config.num_labels > 5 else ""
        return f"AdaptResult([{labels}{ellipsis}], {self.report!r})"

    def _repr_html_(self) -> str:
        return result_cell(self)

    def to_html(self) -> str:
        """Return the report as one HTML page that needs no other file and works offline.

        The page shows small copies of misclassified test images if the model was made in this process.

        Returns:
            The HTML text of the page.
        """
        return model_page(self)

    @cached_property
    def processor(self) -> BaseImageProcessor:
        """The transformers image processor that the model expects."""
        return self.preprocessing.processor()

    @torch.inference_mode()
    def predict(self, images: Any, *, strict: bool = True) -> list[dict[str, Any]]:
        """Classify images.

        Args:
            images: one image or a list of them: paths, encoded bytes, PIL images, or arrays and tensors of shape HWC,
                CHW or HW, with floats in [0, 1] or integers in [0, 255]. They are not normalized yet.
            strict: whether an image that cannot be read raises an error.

        Returns:
            For each image ``{"label": str, "score": float, "probabilities": {label: float}}``. The score is the
            label's probability; all probabilities lie in [0, 1] and sum to 1. An image that cannot be read gives
            ``{"error": str}`` if `strict` is unset.

        Raises:
            DataError: an image cannot be read, and `strict` is set.

        Example:
            ::

                for prediction in result.predict(["cat.jpg", "dog.jpg"]):
                    print(prediction["label"], prediction["score"])
        """
        is_list = isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray))
        items = list(images) if is_list or getattr(images, "ndim", 0) == 4 else [images]
        results = []
        pixels_per_image = math.prod(self.preprocessing.input_size[1:]) / self.preprocessing.crop_pct**2
        size = max(1, min(PREDICT_BATCH, int(PREDICT_PIXELS / pixels_per_image)))
        side = max(self.preprocessing.input_size[1:])
        for start in range(0, len(items), size):
            batch = [_open_or_explain(item, side, strict) for item in items[start : start + size]]
            predictions = iter(self._classify([image for image in batch if not isinstance(image, str)]))
            results += [{"error": image} if isinstance(image, str) else next(predictions) for image in batch]
        return results

    def _classify(self, images: list[Any]) -> list[dict[str, Any]]:
        if not images:
            return []
        bounded_images = [crop_long_image(image, self.preprocessing) for image in images]
        pixels = self.processor(bounded_images, return_tensors="pt")["pixel_values"].to(self.device)
        predictions = []
        for values in self.model(pixels).logits.float().softmax(1).cpu().tolist():
            probabilities = {self.model.config.id2label[i]: value for i, value in enumerate(values)}
            label = max(probabilities, key=probabilities.__getitem__)
            predictions.append({"label": label, "score": probabilities[label], "probabilities": probabilities})
        return predictions

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: str = "float32",
        overwrite: bool = False,
        license: str | None = None,
        html: bool = False,
    ) -> Path:
        """Write the model, its image processor, its card and its report into a folder.

        The folder appears whole or not at all. ``AutoModelForImageClassification.from_pretrained(folder)`` and
        ``pipeline("image-classification", folder)`` load the model after ``import hf_metaprune``.

        Args:
            folder: the folder to write; its parents are made if needed.
            dtype: how the weights are stored: ``float32``, ``float16`` or ``bfloat16``.
            overwrite: whether a folder that holds only a model's files may be replaced.
            license: for the card, such as ``apache-2.0``.
            html: whether to add ``report.html`` (see `to_html`), which is never published.

        Returns:
            The path of the folder.

        Raises:
            StorageError: the folder cannot be written; or it is not empty, and `overwrite` is unset or it holds other
                files than a model's.

        Example:
            ::

                result.save_pretrained("pets", dtype="float16", html=True)
        """
        path = user_path(folder)
        with new_folder(path, overwrite=overwrite and MODEL_FILES) as work:
            write_model_files(self, work, path.name, dtype=dtype, license=license)
            if html:
                write_bytes(work / REPORT_PAGE, self.to_html().encode())
        return path

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the model with its card and report, in one commit.

        Args:
            repo_id: ``owner/name``; the repo is made if it does not exist.
            options: `private`, `revision` (a branch), `create_pr`, `token`, `license`, and `dtype` (``float16``); see
                `publish_model`.

        Returns:
            The address of the model's page, or of the pull request.

        Raises:
            HubError: there is no token, it may not write there, the repo holds a bank, or the Hub cannot be reached.

        Example:
            ::

                result.push_to_hub("me/pets", license="apache-2.0")
        """
        return publish_model(self, repo_id, **options).url


def _open_or_explain(item: Any, min_side: int, strict: bool) -> Any:
    """Return the image, reduced if it is large; or, unless `strict` is set, a text that says why it cannot be read."""
    try:
        return open_image(item, min_side)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything
        message = f"{item if isinstance(item, (str, Path)) else 'image'} cannot be read: {reason(error)}"
        if strict:
            raise DataError(message) from error
        return message


def load_result(folder: str | Path, device: str | None = None) -> AdaptResult:
    """Load a saved model, ready to predict, with its report if the folder has one.

    Args:
        folder: a folder that `AdaptResult.save_pretrained` wrote.
        device: such as ``cuda`` or ``cpu``; if left out, the best one that this machine has.

    Returns:
        The model with its image processor. Its report is empty if the folder has none that can be read.

    Raises:
        FormatError: the folder has no sound model.
        OptionError: the device cannot be used, or the path is empty or too long.

    Example:
        ::

            result = load_result("model")
            print(result.predict("photo.jpg"))
    """
    path = user_path(folder)
    torch_device = pick_device(device)
    model = load_model(path).to(torch_device)
    preprocessing = Preprocessing.from_config(model.config.preprocessing or {})
    report = AdaptReport()
    if is_present(path / REPORT):
        try:
            report = load_report(path / REPORT)
        except FormatError as error:
            log.warning("%s; the model is used without it", error)
    result = AdaptResult(model, preprocessing, report, torch_device)
    result.folder = path.resolve()
    return result
