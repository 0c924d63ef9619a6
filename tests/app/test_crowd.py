"""Visitors at once: all get their own model, one after the other, and the server's memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Served, Visit, wait_until

ALLOWED = 250_000_000
"""Bytes beyond those after the first visitor."""


@pytest.mark.slow
def test_all_are_served_or_told_to_wait(served: Served, visit: Callable[..., Visit]) -> None:
    first = visit()
    first.take_example()
    first.set_steps(20)
    first.make()
    first.finish()
    served.forget_peak_memory()
    before = served.peak_memory()
    second = visit()
    second.take_example()
    second.set_steps(20)
    first.set_steps(100)  # so that the second one comes while the first one trains
    for one in (first, second):
        one.make()
    assert wait_until(lambda: "before you" in second.text("#progress"))
    for one in (first, second):
        one.finish()
    assert served.peak_memory() - before < ALLOWED
    for one in (first, second):
        one.context.close()
    assert wait_until(lambda: served.visitors_files() == [])
    assert len(list(served.files.glob("hf-metaprune-*"))) == 1
    assert "Traceback" not in served.log()
