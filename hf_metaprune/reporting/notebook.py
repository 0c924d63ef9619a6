"""The view of a result in notebooks (``_repr_html_``)."""

from __future__ import annotations

from ..drawing.cells import cell
from ..drawing.pages import svg_markup
from ..drawing.style import svg
from .adapted import AdaptedModel
from .figures import curve_figure
from .page import page_title, summary, tiles


def result_cell(result: AdaptedModel) -> str:
    """Return the main figures of an adaptation and its learning curve, as HTML."""
    report = result.report
    picture = None
    if len(report.accuracy_at_step) > 1:
        picture = svg_markup(svg(curve_figure(report.learning_curves), "Accuracy by step of fine-tuning"))
    labels = [result.model.config.id2label[i] for i in range(result.model.config.num_labels)]
    return cell(page_title(labels), summary=list(summary(report)), tiles=tiles(report), svg=picture)
