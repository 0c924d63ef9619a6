"""Pictures of units as stripes: the kept units of a layer, in the base's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .style import BLUE, GRAY, WIDTH, figure, with_style

MAX_CELLS = 256
"""Most cells of a stripe: more are finer than a screen."""


@with_style
def units_figure(kept: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> Any:
    """Draw the units that each layer keeps, with a stripe per layer and a mark per unit.

    Args:
        kept: the indices of the kept units by layer.
        sizes: the number of units in the base by layer.
    """
    picture, axes = figure(WIDTH, 1.2 + 0.24 * len(kept))
    for row, (name, units) in enumerate(kept.items()):
        draw_stripe(axes, row, units, sizes[name], BLUE)
        axes.text(1.01, row, f"{len(units)} of {sizes[name]}", va="center", fontsize=8)
    axes.set_yticks(range(len(kept)), list(kept), fontsize=8)
    hide_axes(axes, len(kept))
    axes.set_title("Units kept in each layer, in the base's order")
    return picture


def draw_stripe(axes: Any, row: float, kept_units: np.ndarray, size: int, color: str) -> None:
    """Draw a stripe of a layer's units; in a wide layer a cell is several units, and its shade their share.

    Args:
        axes: where to draw.
        row: the vertical position of the stripe.
        kept_units: the indices of the units to fill.
        size: the number of units of the layer.
        color: the color of filled units.
    """
    from matplotlib.colors import to_rgba

    is_kept = np.zeros(size)
    is_kept[kept_units] = 1
    cells = min(size, MAX_CELLS)
    cell_of_unit = np.arange(size) * cells // size
    shares = np.bincount(cell_of_unit, is_kept, cells) / np.bincount(cell_of_unit, minlength=cells)
    empty, full = np.array(to_rgba(GRAY, 0.18)), np.array(to_rgba(color))
    colors = empty + shares[None, :, None] * (full - empty)
    axes.imshow(colors, extent=(0, 1, row + 0.38, row - 0.38), aspect="auto", interpolation="none")


def hide_axes(axes: Any, rows: int) -> None:
    """Prepare axes for so many stripes: only the names of the rows stay visible."""
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0, 1), ylim=(rows - 0.5, -0.5))
