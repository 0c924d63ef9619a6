"""Units as stripes: which of a layer's units are kept, in the base's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .style import BLUE, GRAY, WIDTH, figure, styled

MAX_CELLS = 256  # of a stripe; more are finer than a screen


@styled
def units_figure(kept: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> Any:
    """Which units each layer keeps, in the base's order: a stripe a layer, a mark a unit."""
    made, axes = figure(WIDTH, 1.2 + 0.24 * len(kept))
    for row, (name, units) in enumerate(kept.items()):
        stripe(axes, row, units, sizes[name], BLUE)
        axes.text(1.01, row, f"{len(units)} of {sizes[name]}", va="center", fontsize=8)
    axes.set_yticks(range(len(kept)), list(kept), fontsize=8)
    bare(axes, len(kept))
    axes.set_title("Units kept in each layer, in the base's order")
    return made


def stripe(axes: Any, row: float, kept: np.ndarray, size: int, color: str) -> None:
    """A row of `size` places, those of the units `kept` filled; in a wide layer a place is several units."""
    from matplotlib.colors import to_rgba

    filled = np.zeros(size)
    filled[kept] = 1
    cells = min(size, MAX_CELLS)
    places = np.arange(size) * cells // size
    shares = np.bincount(places, filled, cells) / np.bincount(places, minlength=cells)
    empty, full = np.array(to_rgba(GRAY, 0.18)), np.array(to_rgba(color))
    colors = empty + shares[None, :, None] * (full - empty)
    axes.imshow(colors, extent=(0, 1, row + 0.38, row - 0.38), aspect="auto", interpolation="none")


def bare(axes: Any, rows: int) -> None:
    """Axes for stripes: nothing but their names."""
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0, 1), ylim=(rows - 0.5, -0.5))
