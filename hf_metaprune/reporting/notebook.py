"""What notebooks show of a result, a bank and a mask (``_repr_html_``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..drawing.pages import drawn, look, render
from ..drawing.style import svg
from ..text import counted
from .figures import curve_figure, units_figure
from .page import summary, tiles, title_of

if TYPE_CHECKING:
    from ..bank.reader import BankReader
    from ..masks.mask import Mask
    from ..result import AdaptResult

SHOWN_ENTRIES = 10


def _cell(title: str, **values: Any) -> str:
    empty = {"summary": (), "tiles": (), "svg": None, "rows": (), "caption": "", "header": (), "numbers": 0}
    return render("cell.html", css=look(), title=title, **(empty | values))


def result_cell(result: AdaptResult) -> str:
    """The main figures of an adaptation, and how it learnt."""
    report = result.report
    picture = None
    if len(report.accuracy_at_step) > 1:
        picture = drawn(svg(curve_figure(report.ways), "Accuracy by step of fine-tuning"))
    labels = [result.model.config.id2label[i] for i in range(result.model.config.num_labels)]
    return _cell(title_of(labels), summary=list(summary(report)), tiles=tiles(report), svg=picture)


def bank_cell(bank: BankReader) -> str:
    """What a bank is, and its first entries."""
    base, rows = bank.meta["base_model"], []
    for entry, _ in zip(bank, range(SHOWN_ENTRIES), strict=False):
        found = entry.metrics.get("accuracy")
        shown = f"{found:.1%}" if isinstance(found, float) else ""
        rows.append([entry.id, ", ".join(entry.labels), str(entry.method), f"{entry.ratio}", shown])
    said = f"{counted(len(bank), 'entry', 'entries')} of {base['architecture']} ({base['library']})"
    more = f"The first {len(rows)} of them" if len(bank) > len(rows) else "All of them"
    header = ["entry", "classes", "method", "ratio", "accuracy"]
    return _cell(f"Bank {bank.name}", summary=[said + "."], caption=more, header=header, rows=rows, numbers=2)


def mask_cell(mask: Mask) -> str:
    """Which units a mask keeps, layer by layer."""
    said = f"{mask.n_kept:,} of {mask.n_units:,} units stay, in {counted(len(mask), 'layer')}."
    return _cell("Mask", summary=[said], svg=drawn(svg(units_figure(mask), f"Units kept by layer: {said}")))
