"""The files of an adapted model: weights, config, image processor, report and card."""

from __future__ import annotations

import logging
from pathlib import Path

from ..drawing.style import png
from ..drawing.units import units_figure
from ..errors import StorageError, reason
from ..files.layout import CARD, UNITS_PICTURE
from ..files.storage import write_bytes
from ..models.saving import save_model
from .adapted import Adapted
from .model_card import ModelCard
from .report_files import save_report

log = logging.getLogger(__name__)


def write_model_files(
    result: Adapted, folder: Path, name: str, *, dtype: str = "float32", license: str | None = None
) -> None:
    """Write everything but ``report.html`` into an existing folder; the card calls the model `name`.

    Raises:
        OptionError: unknown dtype. StorageError: the folder cannot be written.
    """
    save_model(result.model, folder, dtype)
    if result.report.labels:  # a model of others may have come without a report
        save_report(result.report, folder)
    try:
        mask = result.model.mask()
        write_bytes(folder / UNITS_PICTURE, png(units_figure(mask, mask.sizes)))
        card = ModelCard.from_result(result, name, license, folder)
        write_bytes(folder / CARD, card.render().encode())
    except Exception as error:  # a model without a card is better than none
        if isinstance(error, (StorageError, MemoryError)):
            raise
        log.warning("the model card could not be made: %s", reason(error))
