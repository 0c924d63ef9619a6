"""The files of an adapted model: weights, config, image processor, report and card."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from ..drawing.style import drawn_png
from ..drawing.units import units_figure
from ..errors import StorageError, reason
from ..files.layout import CARD, UNITS_PICTURE
from ..files.storage import write_bytes
from ..models.saving import save_model
from .adapted import AdaptedModel
from .model_card import ModelCard
from .report_files import save_report

log = logging.getLogger(__name__)


def write_model_files(
    result: AdaptedModel, folder: Path, name: str, *, dtype: str = "float32", license: str | None = None
) -> None:
    """Write all files of a model but ``report.html`` into an existing folder.

    Args:
        result: the model and its report.
        folder: the folder to write into.
        name: the model's name in the card.
        dtype: how the weights are stored: ``float32``, ``float16`` or ``bfloat16``.
        license: for the card, such as ``apache-2.0``.

    Raises:
        OptionError: the dtype is unknown.
        StorageError: the folder cannot be written.
    """
    save_model(result.model, folder, dtype)
    if result.report.labels:  # a loaded model may have no report
        save_report(result.report, folder)
    try:
        mask = result.model.mask()
        write_bytes(folder / UNITS_PICTURE, drawn_png(partial(units_figure, mask, mask.sizes)))
        card = ModelCard.from_result(result, name, license, folder)
        write_bytes(folder / CARD, card.render().encode())
    except Exception as error:  # a model without a card is better than none
        if isinstance(error, (StorageError, MemoryError)):
            raise
        log.warning("the model is saved without a card, because the card could not be made: %s", reason(error))
