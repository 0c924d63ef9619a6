"""Energy and CO2 of a block of code, if CodeCarbon is installed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def measured_energy(found: dict[str, float]) -> Iterator[None]:
    """Fill `found` with ``energy_kwh`` and ``co2_kg`` of the block, if CodeCarbon is installed; never fails."""
    tracker = _tracker()
    try:
        yield
    finally:
        if tracker is not None:
            try:
                co2 = tracker.stop()
                data = tracker.final_emissions_data
                found |= {"energy_kwh": float(data.energy_consumed), "co2_kg": float(co2 or 0.0)}
            except Exception as error:  # another's code, and no part of the job
                log.info("CodeCarbon failed: %s", error)


def _tracker() -> Any:
    if importlib.util.find_spec("codecarbon") is None:
        return None
    try:
        from codecarbon import EmissionsTracker

        tracker = EmissionsTracker(save_to_file=False, log_level="critical", tracking_mode="process")
        tracker.start()
    except Exception as error:  # no sensor, no network, another version
        log.info("CodeCarbon cannot start: %s", error)
        return None
    return tracker
