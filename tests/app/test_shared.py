"""What visitors share: the bank, opened while the page is there already; speeds; baselines."""

from __future__ import annotations

import io
import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_metaprune import MetaPruner
from hf_metaprune.app.comparison import STRATEGIES, WHOLE_BASE, baselines
from hf_metaprune.app.latencies import RATIOS, Latencies
from hf_metaprune.app.limits import ArrivalLimits
from hf_metaprune.app.shared import SharedState
from hf_metaprune.app.visitor import Visitors
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import MetaPruneError
from tests import forked

from .conftest import free_port


def test_the_bank_is_opened_once_for_all(bank_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    real = MetaPruner.from_hub
    monkeypatch.setattr(MetaPruner, "from_hub", lambda where: calls.append(where) or real(where))
    state = SharedState(bank_folder, None)
    assert calls == []
    threads = [threading.Thread(target=lambda: state.opened_bank) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [bank_folder]
    assert state.opened_bank.base_cost[0] > 0
    assert state.opened_bank.ratio == state.opened_bank.reader.default_ratio


def test_a_bank_that_is_not_there_is_said_to_everyone(tmp_path: Path) -> None:
    state = SharedState(tmp_path / "nothing", None)
    for _ in range(2):
        with pytest.raises(MetaPruneError, match="nothing"):
            state.opened_bank  # noqa: B018


def test_photos_of_all_visitors_together_have_a_limit(bank_folder: Path) -> None:
    state = SharedState(bank_folder, None, arrival_limits=ArrivalLimits(pixel_bytes=3 * 3 * 32 * 32))
    first, second = state.visitors.get("a"), state.visitors.get("b")
    photos = [png((i, 0, 0)) for i in range(3)]
    assert first.photos.add("cat", photos[:2]).n_added == 2
    receipt = second.photos.add("cat", photos)
    assert receipt.n_added == 1
    assert "no room for more photos" in receipt.refusals[0]
    state.visitors.forget(first)
    assert second.photos.add("cat", photos).n_added == 2


def png(color: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
def test_a_bank_that_is_not_there_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    words = ["space", "--bank", str(tmp_path / "nothing"), "--port", str(free_port())]
    process = forked.context().Process(target=forked.run_command, args=(words, tmp_path / "log", {}))
    process.start()
    process.join(240)
    assert process.exitcode == 1
    assert "nothing" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_examples_are_shown_with_their_classes(tmp_path: Path, examples: Path) -> None:
    shutil.copytree(examples / "three_things", tmp_path / "three_things")
    for split in ("train", "test"):
        (tmp_path / "splits" / split / "cat").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.parquet").write_bytes(b"no parquet")
    (tmp_path / "plain").mkdir()
    pq.write_table(pa.table({"label": ["a", "b"]}), tmp_path / "plain" / "train.parquet")  # nothing tells names
    classes = dict(SharedState(tmp_path, tmp_path).example_classes())
    assert classes["splits"] == classes["other"] == classes["plain"] == ""
    assert set(classes["three things"].split(", ")) == {path.name for path in (examples / "three_things").iterdir()}
    example_classes = dict(SharedState(tmp_path, Path(__file__).parents[2] / "space" / "examples").example_classes())
    assert example_classes == {"unseen five": "spider, sunflower, table, train, wardrobe"}


def test_latencies_are_measured_once_and_interpolated(bank_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[int]] = []

    def timed(models: list[Any], pixels: Any) -> list[float]:
        calls.append([sum(p.numel() for p in model.parameters()) for model in models])
        return [10.0 - 8 * ratio for ratio in RATIOS]

    monkeypatch.setattr("hf_metaprune.app.latencies.latencies_ms", timed)
    latencies = Latencies(SharedState(bank_folder, None).opened_bank.base)
    assert latencies.estimate(0.6) == pytest.approx(10 - 8 * 0.6)
    assert latencies.estimate(0.97) == pytest.approx(10 - 8 * 0.97)
    assert len(calls) == 1
    assert calls[0] == sorted(calls[0], reverse=True)


@pytest.mark.slow
def test_baselines_are_made_from_the_same_photos(pruner: MetaPruner, task_data: TaskData) -> None:
    plan = pruner.plan(task_data.select((0, 2, 4)), steps=4, batch_size=16, seed=3, ratio=0.8)
    rows = {name: make([]) for name, make in baselines(pruner, plan)}
    assert list(rows) == [*STRATEGIES, WHOLE_BASE]
    small, chance, whole = rows.values()
    assert small.params == chance.params == pruner.make(plan).report.params
    assert whole.params > small.params
    assert all(0 <= row.accuracy <= 1 for row in rows.values())
    expected = pruner.adapt(plan.data, strategy="random", steps=4, seed=3, ratio=0.8).report.accuracy
    assert chance.accuracy == expected


def test_the_idle_and_the_surplus_are_forgotten() -> None:
    here = Visitors(lambda: None, max_visitors=2)  # type: ignore[arg-type, return-value]
    first = here.get("a")
    assert here.get("a") is first
    folder = first.folder
    here.get("b")
    here.get("c")
    assert len(here) == 2
    assert not folder.exists()
    assert here.get("a") is not first


def test_a_file_that_two_visitors_have_sent_stays_until_both_are_gone(tmp_path: Path) -> None:
    here = Visitors(lambda: None)  # type: ignore[arg-type, return-value]
    shared, own = tmp_path / "shared.jpg", tmp_path / "own.jpg"
    shared.touch()
    own.touch()
    here.get("a").uploads |= {str(shared), str(own)}
    here.get("b").uploads.add(str(shared))
    here.forget(here.get("a"))
    assert shared.exists()
    assert not own.exists()
    here.leave("b")
    assert not shared.exists()
