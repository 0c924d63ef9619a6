"""`AdaptResult`: the model, how to feed it, and what was measured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .data.images import open_image
from .data.preprocessing import Preprocessing
from .errors import DataError, FormatError, reason
from .files.layout import MODEL_FILES, REPORT, REPORT_PAGE
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

PREDICT_BATCH = 64


class AdaptResult:
    """An adapted model with its image processor and report.

    `model` is a `MetaPrunedForImageClassification` in eval mode; `report` an `AdaptReport`.
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
        """Of the test images those that it is most wrong about; they are not saved with the model."""
        self.folder: Path | None = None
        """The folder that it was loaded from, whose card people may have edited."""

    def __repr__(self) -> str:
        labels = ", ".join(self.model.config.id2label[i] for i in range(min(5, self.model.config.num_labels)))
        more = ", ..." if self.model.config.num_labels > 5 else ""
        return f"AdaptResult([{labels}{more}], {self.report!r})"

    def _repr_html_(self) -> str:
        return result_cell(self)

    def to_html(self) -> str:
        """The report as a page in one file, which needs nothing else and works offline.

        It holds small copies of the test images that the model is most wrong about, if it was made in this process.
        """
        return model_page(self)

    @cached_property
    def processor(self) -> BaseImageProcessor:
        """The transformers image processor the model expects."""
        return self.preprocessing.processor()

    @torch.inference_mode()
    def predict(self, images: Any, *, strict: bool = True) -> list[dict[str, Any]]:
        """Label, score and all probabilities of each image.

        Args:
            images: one image or a list of them: paths, bytes, PIL images, arrays or tensors (before normalization).
            strict: whether an image that cannot be read is an error.

        Returns:
            For each image ``{"label": str, "score": float, "probabilities": {label: float}}``, or ``{"error": str}``.

        Raises:
            DataError: an image cannot be read, and `strict` is set.
        """
        many = isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray))
        items = list(images) if many or getattr(images, "ndim", 0) == 4 else [images]
        out = []
        for start in range(0, len(items), PREDICT_BATCH):
            opened = [_open(item, strict) for item in items[start : start + PREDICT_BATCH]]
            found = iter(self._classify([image for image in opened if not isinstance(image, str)]))
            out += [{"error": image} if isinstance(image, str) else next(found) for image in opened]
        return out

    def _classify(self, images: list[Any]) -> list[dict[str, Any]]:
        if not images:
            return []
        pixels = self.processor(images, return_tensors="pt")["pixel_values"].to(self.device)
        out = []
        for p in self.model(pixels).logits.float().softmax(1).cpu().tolist():
            named = {self.model.config.id2label[i]: value for i, value in enumerate(p)}
            label = max(named, key=named.__getitem__)
            out.append({"label": label, "score": named[label], "probabilities": named})
        return out

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: str = "float32",
        overwrite: bool = False,
        license: str | None = None,
        html: bool = False,
    ) -> Path:
        """Write the model, its image processor, card and report; the folder appears whole or not at all.

        ``AutoModelForImageClassification.from_pretrained(folder)`` and ``pipeline("image-classification", folder)``
        load it after ``import hf_metaprune``. `html` adds ``report.html`` (see `to_html`), which is never published.

        Raises:
            StorageError: the folder exists and is not empty (unless `overwrite` is set and it holds nothing but a
                model's files), or cannot be written.
        """
        path = Path(folder).expanduser()
        with new_folder(path, overwrite=overwrite and MODEL_FILES) as work:
            write_model_files(self, work, path.name, dtype=dtype, license=license)
            if html:
                write_bytes(work / REPORT_PAGE, self.to_html().encode())
        return path

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the model with its card and report, in one commit; the address of its page, or pull request.

        Args:
            repo_id: ``owner/name``; the repo is made if it is not there.
            options: `private`, `revision` (a branch), `create_pr`, `token`, `license`, and `dtype` (``float16``), see
                `publish_model`.

        Raises:
            HubError: there is no token, it may not write there, the repo holds a bank, or the Hub cannot be reached.
        """
        return publish_model(self, repo_id, **options).url


def _open(item: Any, strict: bool) -> Any:
    """The image, or why it cannot be read."""
    try:
        return open_image(item)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything
        why = f"{item if isinstance(item, (str, Path)) else 'image'} cannot be read: {reason(error)}"
        if strict:
            raise DataError(why) from error
        return why


def load_result(folder: str | Path, device: str | None = None) -> AdaptResult:
    """A saved model again, ready to predict; its report is there if it was saved along.

    Raises:
        FormatError: the folder has no sound model. OptionError: the device cannot be used.
    """
    path = Path(folder).expanduser()
    where = pick_device(device)
    model = load_model(path).to(where)
    preprocessing = Preprocessing.from_config(model.config.preprocessing or {})
    report = AdaptReport()
    if (path / REPORT).exists():
        try:
            report = load_report(path / REPORT)
        except FormatError as error:
            log.warning("%s; the model is used without it", error)
    result = AdaptResult(model, preprocessing, report, where)
    result.folder = path.resolve()
    return result
