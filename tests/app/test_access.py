"""The page for everyone: at phone width, in the dark, with a screen reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.conftest import needs_wordnet

from .conftest import Served, Visit


def findings(page: Any) -> list[str]:
    """What axe-core calls serious or worse, each with the place."""
    violations = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]}"
        for rule in violations
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


WIDTH = "document.documentElement.scrollWidth"
COLORS_SET = "!document.getAnimations().some(one => one instanceof CSSTransition)"
SMALL = """[...document.querySelectorAll('.gradio-container :is(button, [role=tab])')]
    .filter(e => e.offsetParent && e.innerText.trim() && e.getBoundingClientRect().height < 44).map(e => e.innerText)"""
"""The buttons with words that are too low for a finger."""


@pytest.mark.slow
def test_a_phone_shows_comparisons_too_and_a_reader_can_read_it_all(visit: Callable[..., Visit]) -> None:
    one = visit(viewport={"width": 375, "height": 800}, color_scheme="light")
    one.take_example()
    one.set_steps(20)
    one.make()
    one.finish()
    one.press("Compare with baselines")
    one.page.locator("#comparison tbody tr").nth(3).wait_for()  # its name is there before its row: "Trying ..."
    one.page.locator("button:enabled", has_text="Compare with baselines").wait_for()
    one.page.get_by_role("button", name="Stop").wait_for(state="hidden")
    one.message("#comparison", "the whole base")
    assert one.page.locator("#comparison tbody tr").count() == 4
    with one.page.expect_download() as download:
        one.page.locator("#report").click()
    report = Path(download.value.path()).read_text()
    assert "without a bank" in report
    assert "units at random" in report
    assert one.page.evaluate(WIDTH) <= 375
    for scheme in ("light", "dark"):
        one.page.emulate_media(color_scheme=scheme)
        one.page.wait_for_function(f"document.body.classList.contains('dark') == {str(scheme == 'dark').lower()}")
        one.page.wait_for_function(COLORS_SET)
        problems = findings(one.page)
        assert not problems, "\n".join([scheme, *problems])
    small = one.page.evaluate(SMALL)
    assert not small, small


@pytest.mark.slow
def test_the_keyboard_alone_is_enough(visit: Callable[..., Visit]) -> None:
    one = visit()
    names = set()
    for _ in range(40):
        one.page.keyboard.press("Tab")
        names.add(one.page.evaluate("document.activeElement.innerText || document.activeElement.id"))
    assert {"Use these photos", "Make my model"} <= {text.strip() for text in names}


@pytest.mark.slow
@needs_wordnet
def test_the_bank_is_read_on_a_phone(visit: Callable[..., Visit], served: Served) -> None:
    one = visit(f"{served.url}bank", shows="#entries tbody tr", viewport={"width": 375, "height": 800})
    one.page.locator("#pictures svg").nth(2).wait_for()
    assert one.page.evaluate(WIDTH) <= 375
