"""What accumulates while a model is made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .energy import measured_energy


@dataclass
class RunRecord:
    """Notes for the user, seconds by phase, FLOPs by purpose, and energy: each step adds its own."""

    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by phase."""
    retrieval_flops: int = 0
    """Forward passes that ranked the bank's entries."""
    preparation_flops: int = 0
    """Other forward passes before training."""
    energy: dict[str, float] = field(default_factory=dict)
    """``energy_kwh`` and ``co2_kg``, if CodeCarbon measures them."""

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds of a block to a phase."""
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Add the energy of a block."""
        spent: dict[str, float] = {}
        with measured_energy(spent):
            yield
        for name, value in spent.items():
            self.energy[name] = self.energy.get(name, 0.0) + value

    def copy(self) -> RunRecord:
        """Return a record that goes on from here; this one stays as it is."""
        return RunRecord(
            list(self.notes), dict(self.seconds), self.retrieval_flops, self.preparation_flops, dict(self.energy)
        )
