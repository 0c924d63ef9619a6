"""The record of what happens while a model is made: notes, times and costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .energy import measure_energy


@dataclass
class RunRecord:
    """The notes, times and costs of one run, to which each step of the run adds its own.

    Example:
        >>> record = RunRecord()
        >>> record.note("the base has no statistics")
        >>> record.notes
        ['the base has no statistics']
    """

    notes: list[str] = field(default_factory=list)
    """Sentences for the user, each one once."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by phase, in seconds."""
    retrieval_flops: int = 0
    """FLOPs of the forward passes that ranked the bank's entries."""
    preparation_flops: int = 0
    """FLOPs of the other forward passes before training."""
    energy: dict[str, float] = field(default_factory=dict)
    """``energy_kwh`` and ``co2_kg``, if CodeCarbon measures them."""

    def note(self, text: str) -> None:
        """Add a sentence for the user, unless it is there already.

        Args:
            text: the sentence.
        """
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the wall time of a block of code to a phase."""
        start = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Add the energy of a block of code, if CodeCarbon is installed."""
        totals: dict[str, float] = {}
        with measure_energy(totals):
            yield
        for name, value in totals.items():
            self.energy[name] = self.energy.get(name, 0.0) + value

    def copy(self) -> RunRecord:
        """Return a copy that later steps can add to without changing this record."""
        return RunRecord(
            list(self.notes), dict(self.seconds), self.retrieval_flops, self.preparation_flops, dict(self.energy)
        )
