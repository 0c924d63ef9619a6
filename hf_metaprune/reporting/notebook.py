"""What notebooks show of a result (``_repr_html_``)."""

from __future__ import annotations

from ..drawing.cells import cell
from ..drawing.pages import drawn
from ..drawing.style import svg
from .adapted import Adapted
from .figures import curve_figure
from .page import page_title, summary, tiles


def result_cell(result: Adapted) -> str:
    """The main figures of an adaptation, and how it learnt."""
    report = result.report
    picture = None
    if len(report.accuracy_at_step) > 1:
        picture = drawn(svg(curve_figure(report.learning_curves), "Accuracy by step of fine-tuning"))
    labels = [result.model.config.id2label[i] for i in range(result.model.config.num_labels)]
    return cell(page_title(labels), summary=list(summary(report)), tiles=tiles(report), svg=picture)
