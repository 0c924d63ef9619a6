"""The pages of findings say what the kept runs say, and the index leads to each of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from scripts import bench_report
from tests.conftest import REPO

FINDINGS = REPO / "docs" / "findings"
PAGES = sorted(page for page in FINDINGS.glob("*.md") if page.name != "index.md")


def test_tables_are_those_of_the_kept_runs() -> None:
    stale = bench_report.stale_pages(FINDINGS)
    assert [page.name for page in stale] == [], "uv run scripts/bench_report.py --write docs/findings makes them again"
    marks = "\n".join(re.findall(f"^{bench_report.MARK}.*", "\n".join(p.read_text() for p in PAGES), re.M))
    files = [file for file in (REPO / "docs" / "bench").iterdir() if file.suffix in (".jsonl", ".csv")]
    assert [file.name for file in files if file.name not in marks] == []


def test_a_changed_figure_and_a_mark_without_an_end_are_noticed(tmp_path: Path) -> None:
    text = (FINDINGS / "bank-size.md").read_text()
    page = tmp_path / "page.md"
    page.write_text(text.replace("63.5 / 65.7", "63.6 / 65.7"))
    assert bench_report.stale_pages(tmp_path) == {page: text}
    for wrong in (text.replace("<!-- end -->", ""), text.replace("MVP; 64 entries", "MVP; 65 entries")):
        with pytest.raises(typer.BadParameter):
            bench_report.fill_page(wrong)


def test_a_row_with_a_ratio_is_compared_with_its_baseline_at_that_ratio() -> None:
    runs = bench_report.read_runs([REPO / "docs" / "bench" / "vit.jsonl"])
    groups = [bench_report.KINDS]
    table = bench_report.difference_table(runs, ["SMSP, r=0.5", "SMSP, r=0.8"], ["no bank", "whole base"], groups)
    rows = [line.split(" | ")[:2] for line in table.splitlines()[2:]]
    at_ratio = [["| SMSP, r=0.5", "no bank, r=0.5"], ["| SMSP, r=0.8", "no bank, r=0.8"]]
    assert rows == [*at_ratio, ["| SMSP, r=0.5", "whole base"], ["| SMSP, r=0.8", "whole base"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_answers_one_question(page: Path) -> None:
    """Its title is a question, then come the answer in bold, a table, the command and caveats; the index has it."""
    title, _, answer = page.read_text().partition("\n\n")
    assert title.startswith("# ") and title.endswith("?")
    bold = re.match(r"\*\*([^*]+)\*\*\n\n", answer)
    assert bold, "the answer comes first, in bold"
    assert len(re.split(r"[.?!]\s+", bold[1])) <= 2, "the answer has at most two sentences"
    assert "\n## Command\n" in answer
    assert len(re.findall(rf"^{bench_report.MARK}", answer, re.M)) == len(re.findall(r"^\| --- \|", answer, re.M)) == 1
    sections = re.findall(r"^## (.+)$", answer, re.M)
    assert sections.index("Command") < sections.index("Caveats") == len(sections) - 1, "the caveats come last"
    assert len([line for line in page.read_text().splitlines() if not line.startswith("|")]) <= 60
    assert f"]({page.name}) |" in (FINDINGS / "index.md").read_text()


def test_pages_that_code_names_are_there() -> None:
    files = [file for folder in ("hf_metaprune", "scripts", "tests") for file in (REPO / folder).rglob("*.py")]
    references = {(file, page) for file in files for page in re.findall(r"\bdocs/[\w./-]+\.md", file.read_text())}
    assert len(references) > 10
    assert sorted(f"{file.relative_to(REPO)}: {page}" for file, page in references if not (REPO / page).exists()) == []
