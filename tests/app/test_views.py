"""What the page says in words: how good a model is, what would help, and what a comparison shows."""

from __future__ import annotations

import pytest

from hf_metaprune.adapt.plan import Plan
from hf_metaprune.app.comparison import ComparisonRow
from hf_metaprune.app.views import answer, comparison, neighbors, verdict
from hf_metaprune.data.task import TaskData
from hf_metaprune.drawing.style import LONGEST_NAME
from hf_metaprune.pruner import MetaPruner
from hf_metaprune.reporting.report import AdaptReport

BASE = ComparisonRow("the whole base", 0.96, 2000)


@pytest.mark.parametrize(
    ("accuracy", "images", "says", "says_not"),
    [
        (
            0.25,
            8,
            [
                "recognizes 25% of the test photos. A guess would be right for 50%",
                "only 8 photos",
                "not clearly better than a guess",
            ],
            ["larger model"],
        ),
        (0.80, 500, ["between 76% and 83%", "More photos of each class"], ["rough", "not clearly better"]),
        (0.97, 500, ["between 95% and 98%"], ["More photos of each", "rough"]),
    ],
)
def test_a_verdict(accuracy: float, images: int, says: list[str], says_not: list[str]) -> None:
    text = " ".join(verdict(AdaptReport(accuracy=accuracy, test_images=images, labels=["a", "b"])))
    assert all(part in text for part in says), text
    assert not any(part in text for part in says_not), text


def test_nothing_is_said_of_what_was_not_tested() -> None:
    assert list(verdict(AdaptReport(labels=["a", "b"]))) == []


@pytest.mark.parametrize(
    ("accuracy", "baseline", "says"),
    [
        (0.80, 0.75, "Your model is 5 points above the best baseline of its size"),
        (0.70, 0.75, "Your model is 5 points below"),
        (0.76, 0.75, "Your model is 1 point above"),
        (0.751, 0.75, "as good as the best baseline"),
    ],
)
def test_a_comparison_in_words(accuracy: float, baseline: float, says: str) -> None:
    baselines = [ComparisonRow("one", 0.1, 100), ComparisonRow("two", baseline, 100), BASE]
    rows = [ComparisonRow("this model", accuracy, 100), *baselines]
    text = comparison(rows, (2000, 1))
    assert says in text
    assert "20 times as large, and recognizes 96%" in text
    assert "points" not in comparison(rows[:1], (2000, 1))  # while there is nothing to compare with


def test_an_answer_names_no_other_than_the_classes() -> None:
    html = answer({"<b>cat": 0.9, "dog": 0.1})
    assert "&lt;b&gt;cat" in html
    assert "90%" in html
    assert "whatever a photo shows" in html


def test_neighbors_are_ranked_and_read_without_underscores(pruner: MetaPruner, task_data: TaskData) -> None:
    plan: Plan = pruner.plan(task_data.select((0, 2, 4)), neighbors=2, ratio=0.8)
    html = neighbors(plan, 0.8)
    assert f"The bank has {len(pruner.bank)} tasks. The 2 that are nearest to yours vote on the units" in html
    assert html.count(">does not vote<") == len(pruner.bank) - 2 == len(plan.runners_up)
    assert html.index(">does not vote<") > html.rindex(">votes<")
    first = ", ".join(plan.neighbors[0].entry.labels).replace("_", " ")
    assert html.index(first[:LONGEST_NAME]) < html.index(f"{plan.neighbors[1].score:.2f}")
