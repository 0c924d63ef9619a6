"""The report as a page, and what notebooks show: whole in itself, and text of others stays text."""

from __future__ import annotations

import io
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.task import TaskData
from hf_metaprune.drawing.style import INK, drawn_png, png, svg
from hf_metaprune.drawing.units import units_figure
from hf_metaprune.masks.mask import Mask
from hf_metaprune.reporting.bank_figures import map_figure, pairwise_iou, positions
from hf_metaprune.reporting.figures import confusion_figure, curve_figure, vote_figure
from hf_metaprune.reporting.misclassified import MAX_MISTAKES, THUMBNAIL_SIDE, worst_mistakes
from hf_metaprune.reporting.page import command
from hf_metaprune.reporting.report import AdaptReport
from hf_metaprune.result import load_result
from tests.tiny import tiny_preprocessing

NASTY = "<script>alert(1)</script>\"'$x^2$ & {{ 7*7 }} \x07"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Reader(HTMLParser):
    """Notes tags, attributes and text, and that every tag is closed in turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def result(bank_folder: Path, task_data: TaskData) -> AdaptResult:
    pruner, task = MetaPruner.from_hub(bank_folder), task_data.select((0, 2, 5))
    return pruner.adapt(task, steps=4, batch_size=16, neighbors=2, compare=True, eval_steps=(0, 2))


def test_the_page_tells_all_of_it_and_needs_nothing_else(result: AdaptResult) -> None:
    page = result.to_html()
    reader = Reader(page)
    report = result.report
    assert len(page) < 3_000_000
    assert len(reader.ids) == len(set(reader.ids))
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "link", "iframe", "object"})
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            outside = value or ""
            assert not name.startswith("on")
            assert "http" not in outside or name.startswith("xmlns") or tag == "a", (tag, name, outside[:60])
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["aria-label"]
            assert attributes["role"] == "img"
    for text in (f"{report.accuracy:.1%}", f"{report.params:,}", "without a bank", "layer4.1.conv2", "the whole base"):
        assert text.lower() in reader.words.lower()
    for neighbor in report.neighbors:
        assert neighbor["id"] in reader.words
    labels = [a["aria-label"] for tag, a in reader.tags if tag == "svg"]
    assert sum(label.startswith("The vote in layer") for label in labels) == len(result.model.mask())
    assert sum(tag == "img" for tag, _ in reader.tags) == len(result.mistakes)


@pytest.mark.slow
def test_the_page_lies_beside_the_model_if_asked_for(result: AdaptResult, tmp_path: Path) -> None:
    plain = result.save_pretrained(tmp_path / "plain")
    assert not (plain / "report.html").exists()
    folder = result.save_pretrained(tmp_path / "with", html=True)
    assert (folder / "report.html").read_text() == result.to_html()
    again = load_result(folder)
    page = Reader(again.to_html())
    assert f"{result.report.accuracy:.1%}" in page.words
    assert "The vote in layer" in " ".join(a.get("aria-label") or "" for _, a in page.tags)  # from report.json
    assert not any(tag == "img" for tag, _ in page.tags)  # photos are not kept


@pytest.mark.slow
def test_text_of_others_stays_text(bank_folder: Path, task_data: TaskData) -> None:
    pruner = MetaPruner.from_hub(bank_folder)
    result = pruner.adapt(task_data.select((0, 1)), steps=1, batch_size=16, neighbors=2)
    report = result.report
    report.labels = [NASTY, "b"]
    report.accuracy_per_class = {NASTY: 0.5, "b": 1.0}
    report.source = report.machine = report.device = NASTY
    report.neighbors[0] |= {"id": NASTY, "labels": [NASTY], "repo_id": NASTY, "revision": "a"}
    report.bank = {"name": NASTY, "repo_id": 'x"><script>', "revision": "1"}
    report.baselines, report.baseline_flops = {NASTY: {0: 0.5}}, {NASTY: 5}
    report.seconds, report.notes, report.versions = {NASTY: 1.0}, [NASTY], {NASTY: NASTY}
    report.given, report.skipped_images = {NASTY: [NASTY, None]}, [NASTY]
    for page in (result.to_html(), result._repr_html_()):
        reader = Reader(page)
        assert not any(tag == "script" for tag, _ in reader.tags)
        assert "{{ 7*7 }}" in reader.words or "{{ 7*7 }}" in page
        assert all(not (a.get("href") or "").startswith(("javascript", "x")) for _, a in reader.tags)


@pytest.mark.slow
def test_what_a_report_lacks_is_left_out(result: AdaptResult) -> None:
    bare = AdaptResult(result.model, result.preprocessing, AdaptReport(labels=["a", "b", "c"]), result.device)
    assert "How small the model is" in Reader(bare.to_html()).words
    older = AdaptReport(**{**vars(result.report), "neighbors": [dict(n) for n in result.report.neighbors]})
    older.neighbors[0].pop("masks")
    older.neighbors[1]["masks"] = "AAAA"
    page = Reader(AdaptResult(result.model, result.preprocessing, older, result.device).to_html())
    assert not any((a.get("aria-label") or "").startswith("The vote in layer") for _, a in page.tags)


def test_the_command_makes_it_again(result: AdaptResult) -> None:
    report = AdaptReport(source="me/photos", seed=7, bank={"repo_id": "me/bank", "revision": "abc"})
    report.given = {
        "steps": 5,
        "statistics": "moving",
        "eval_steps": [0, 2],
        "synsets": ["a.n.01", None],
    }
    report.versions = {"hf_metaprune": "1.2.3"}
    install, line = command(report).splitlines()
    assert install == "pip install hf-metaprune==1.2.3"
    assert line == (
        "hf-metaprune adapt me/bank me/photos --out MODEL --revision abc --steps 5 --statistics moving "
        "--eval-steps 0,2 --synsets a.n.01, --seed 7"
    )
    mine = command(result.report).splitlines()
    assert mine[1].startswith("# BANK: your copy of ")
    assert mine[-1].startswith("hf-metaprune adapt BANK DATA --out MODEL --steps 4")


def test_alternatives_are_counted(result: AdaptResult) -> None:
    whole, scratch = result.report.baseline_flops.values()
    assert result.report.training_flops < whole < scratch


@pytest.mark.slow
@given(st.integers(0, 40), st.integers(0, 3))
def test_the_surest_mistakes_come_first(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 3, generator=generator)
    images = torch.randint(0, 255, (n, 3, 200, 100), generator=generator, dtype=torch.uint8)
    data = ImageSet(images, torch.randint(0, 3, (n,), generator=generator), tiny_preprocessing())
    mistakes = worst_mistakes(logits, data, ["a", "b", "c"])
    wrong = logits.argmax(1) != data.targets if n else torch.zeros(0, dtype=torch.bool)
    assert len(mistakes) == min(MAX_MISTAKES, int(wrong.sum()))
    assert [m.score for m in mistakes] == sorted((m.score for m in mistakes), reverse=True)
    if mistakes:
        top = logits.softmax(1).max(1).values
        assert mistakes[0].score == pytest.approx(float(top[wrong].max()), abs=1e-4)
        assert all(m.label != m.predicted_label for m in mistakes)
        assert Image.open(io.BytesIO(mistakes[0].jpeg)).size == (THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE)


def test_pictures_are_sound_svg_in_the_color_of_the_page() -> None:
    mask = Mask.random({"a": 7, "wide": 3000}, 0.5, 0)
    voters = {NASTY: Mask.random(mask.sizes, 0.9, 1), "b": mask}
    for figure in (
        units_figure(mask, mask.sizes),
        vote_figure("wide", voters, mask),
        curve_figure({NASTY: {0: 0.1, 5: 0.9}, "b": {0: 0.2}}),
        confusion_figure([[1, 2], [0, 3]], [NASTY, "b"]),
    ):
        text = svg(figure, 'a "b" <c>')
        root = ElementTree.fromstring(text)
        assert root.attrib["aria-label"] == 'a "b" <c>'
        assert INK not in text
        assert "<style" not in text
        assert len(text) < 40_000
        assert png(figure).startswith(b"\x89PNG")


def test_a_picture_is_drawn_again_only_if_its_data_changed() -> None:
    figures = []

    def curves_png(curves: dict[str, dict[int, float]]) -> bytes:
        return drawn_png(partial(curve_figure, curves))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_metaprune.drawing.style.png", lambda figure: figures.append(figure) or png(figure))
        first = curves_png({"a": {0: 0.123, 5: 0.9}})
        assert curves_png({"a": {0: 0.123, 5: 0.9}}) == first
        assert len(figures) == 1
        assert curves_png({"a": {0: 0.123, 5: 0.8}}) != first
    assert len(figures) == 2


def test_a_stripe_shows_what_is_kept() -> None:
    units = [0, 3, 4]
    figure = units_figure({"a": np.array(units)}, {"a": 6})
    (image,) = figure.axes[0].get_images()
    alpha = np.asarray(image.get_array())[0, :, 3]
    assert np.flatnonzero(alpha == 1).tolist() == units


def test_notebooks_show_results_banks_and_masks(result: AdaptResult, bank: Bank) -> None:
    assert f"{result.report.params:,}" in Reader(result._repr_html_()).words
    reader = Reader(bank._repr_html_())
    assert f"{len(bank)} entries" in reader.words
    assert next(iter(bank)).id in reader.words
    assert re.search(r"\d+ of \d+ units stay", Reader(result.model.mask()._repr_html_()).words)


@given(st.integers(1, 8), st.integers(0, 20))
def test_overlaps_and_the_map_follow_the_masks(n: int, seed: int) -> None:
    masks = [Mask.random({"a": 9, "b": 30}, 0.6, seed + i) for i in range(n)]
    iou = pairwise_iou(masks)
    assert iou == pytest.approx(np.array([[one.iou(other) for other in masks] for one in masks]))
    places = positions(iou)
    assert places.shape == (n, 2)
    assert np.isfinite(places).all()


def test_the_map_keeps_distances_of_a_plane() -> None:
    points = np.array([[0, 0], [0.3, 0], [0.3, 0.4], [0.1, 0.2]])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    places = positions(1 - apart)
    assert np.linalg.norm(places[:, None] - places[None], axis=2) == pytest.approx(apart, abs=1e-9)


def test_the_map_of_a_bank_is_sound(bank: Bank) -> None:
    masks = [entry.mask for entry in bank]
    ElementTree.fromstring(svg(map_figure(positions(pairwise_iou(masks)), 2, 2), "a bank"))
