"""The page of the bank itself: searched, drawn, and opened by ``hf-metaprune bank explore``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hf_metaprune import Bank
from hf_metaprune.app.bank_page import BankPage
from hf_metaprune.app.shared import SharedState
from hf_metaprune.errors import WordNetError
from hf_metaprune.models.base_model import BaseModel
from tests.conftest import needs_wordnet

from .conftest import Served, Visit
from .test_access import findings


@needs_wordnet
def test_it_is_searched_and_shows_pictures(visit: Callable[..., Visit], served: Served, bank_folder: Path) -> None:
    one = visit()
    one.wait_for_bank(bank_folder)
    with one.context.expect_page() as popup:
        one.page.get_by_role("link", name="a bank of small models").click()
    page = popup.value  # another one: photos and model stay where they are
    page.locator("#pictures svg").nth(2).wait_for()
    bank = Bank.open(bank_folder)
    label = next(iter(bank)).labels[0]
    n_matches = sum(label in entry.labels for entry in bank)
    page.get_by_label("Search").fill(label.upper())
    page.locator("#entries").get_by_text(f"of {len(bank)}.").wait_for()
    assert page.locator("#entries tbody tr").count() == n_matches
    page.get_by_label("Search").fill("<b>nothing")
    page.locator("#entries").get_by_text(f"0 tasks of {len(bank)}: try a word of a class").wait_for()
    assert not findings(page)


def bank_page(folder: Path) -> BankPage:
    """The page of a bank, without a browser.

    Gradio makes loops and closes none of them, unless one runs; a thread has none yet, whatever ran in this one.
    """
    import gradio as gr

    async def make() -> BankPage:
        with gr.Blocks():
            return BankPage(SharedState(folder, None))

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, make()).result()


def test_without_wordnet_the_other_pictures_are_drawn(bank_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(task: object) -> None:
        raise WordNetError("get the data: python -m nltk.downloader wordnet")

    monkeypatch.setattr("hf_metaprune.similarity.wordnet.task_synsets", missing)
    page = bank_page(bank_folder)
    assert page.figures_html.count("<svg") == 2
    assert "get the data" in page.figures_html


def test_an_empty_bank_has_a_page(base: BaseModel, tmp_path: Path) -> None:
    Bank.create(tmp_path / "bank", base)
    page = bank_page(tmp_path / "bank")
    assert "All 0 tasks" in page.entry_table("")
    assert "0 tasks of 0" in page.entry_table("tiger")
    assert page.figures_html == ""
