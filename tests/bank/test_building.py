"""Building a bank: finished tasks are kept when builds stop, are killed, or run beside each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from hf_metaprune.bank import factory
from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.entry_checks import check_id
from hf_metaprune.bank.factory import build_bank, entry_id, task_seed
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.task import Task, TaskData, draw_tasks
from hf_metaprune.errors import DataError, StorageError
from hf_metaprune.methods import IterativeOptions
from tests import forked
from tests.tiny import LABELS, striped_images, tiny_preprocessing


@pytest.mark.slow
def test_builds_do_not_repeat_finished_tasks(own_bank: Bank, task_data: TaskData) -> None:
    options = IterativeOptions(ratio=0.7, steps=2, prune_every=1, batch_size=8)
    tasks = [(0, 1), (1, 2)]
    entries = list(build_bank(own_bank, task_data, tasks, method="random", options=options))
    assert len(entries) == 2
    again = list(build_bank(own_bank, task_data, [*tasks, (2, 3)], method="random", options=options))
    assert [e.labels for e in again] == [("truck", "daisy")]
    assert len(own_bank) == 7
    own_bank.update_index({entries[0].id: None})  # a builder that died before it wrote the index
    (own_bank.root / ".tmp-abc.part").write_bytes(b"half of an index")
    assert list(build_bank(own_bank, task_data, tasks, method="random", options=options)) == []
    entry = Bank.open(own_bank.root)[entries[0].id]
    assert entry.sketch is not None
    assert not list(own_bank.root.glob(".tmp-*"))


def test_a_full_disk_is_noticed_before_training(
    own_bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(own_bank.root)
    largest = max(entry.size for entry in own_bank)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=largest - 1))
    monkeypatch.setattr(factory._Build, "prune", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(StorageError, match="the disk is full"):
        list(build_bank(own_bank, task_data, [(0, 1)], method="random", options=IterativeOptions(ratio=0.7, steps=2)))


def test_ids_tell_the_labels_and_differ_by_what_shapes_an_entry() -> None:
    options = IterativeOptions()
    task = Task(("Sweet Pepper", "Dog/Cat"))
    name = entry_id(task, "ifp", options, 0)
    assert name.startswith("sweet-pepper-dog-cat-")
    assert len({name, entry_id(task, "taylor", options, 0), entry_id(task, "ifp", options, 1)}) == 3
    assert check_id(entry_id(Task(("日本", "中国")), "ifp", options, 0))
    assert task_seed(0, "a") == task_seed(0, "a") != task_seed(1, "a")


def test_all_tasks_that_there_are_can_be_drawn_and_no_more() -> None:
    assert len(set(draw_tasks(range(6), 3, 20, 0))) == 20
    assert draw_tasks(range(6), 3, 5, 0) == draw_tasks(range(6), 3, 20, 0)[:5]
    with pytest.raises(DataError, match="21 different tasks of 3 classes cannot be drawn from 6 classes"):
        draw_tasks(range(6), 3, 21, 0)


def build_in_child(root: str, log: str, classes: int = 5) -> None:
    """Build an entry for each pair of classes as a killed process did, and note each finished one in a file."""
    torch.set_num_threads(1)
    train = ImageSet(*striped_images(4, len(LABELS), 0), tiny_preprocessing())
    data = TaskData(Task(LABELS), train, train, "train", "stripes")
    tasks = [(a, b) for a in range(classes) for b in range(a + 1, classes)]
    options = IterativeOptions(ratio=0.7, steps=1, prune_every=1, batch_size=8)
    with open(log, "a") as file:
        for entry in build_bank(Bank.open(root), data, tasks, method="random", options=options):
            print(entry.id, file=file, flush=True)
        print("done", file=file, flush=True)


def lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


@pytest.fixture
def empty_bank(own_bank: Bank) -> Bank:
    for name in list(own_bank.entries):
        own_bank.remove(name)
    return own_bank


@pytest.mark.slow
def test_two_processes_build_into_one_folder(empty_bank: Bank, tmp_path: Path) -> None:
    logs = [tmp_path / "one", tmp_path / "two"]
    both = [forked.context().Process(target=build_in_child, args=(str(empty_bank.root), str(log), 4)) for log in logs]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
    assert [p.exitcode for p in both] == [0, 0]
    names = [name for log in logs for name in lines(log) if name != "done"]
    bank = Bank.open(empty_bank.root)
    assert sorted(names) == list(bank.entries)
    assert len(names) == 6
    assert validate_bank(bank) == []


@pytest.mark.slow
def test_nothing_finished_is_lost_when_a_build_is_killed(empty_bank: Bank, tmp_path: Path) -> None:
    """kill -9 in the middle of a build, five times, at moments spread over the work on an entry."""
    log, root = tmp_path / "log", empty_bank.root
    finished_ids: set[str] = set()
    for kill in range(5):
        n_lines = len(lines(log))
        process = forked.context().Process(target=build_in_child, args=(str(root), str(log)))
        process.start()
        while len(lines(log)) == n_lines and process.is_alive():  # until an entry is done and the next is under way
            process.join(0.001)
        process.join(0.016 * kill)
        process.kill()
        process.join()
        finished_ids |= set(lines(log)) - {"done"}
        bank = Bank.open(root)
        assert finished_ids <= set(bank.entries)
        assert [p for p in validate_bank(bank) if "not in the index" not in p.what] == []
        if len(bank) > 6:
            for name in list(bank.entries)[:5]:
                bank.remove(name)
            log.write_text("")
            finished_ids = set(bank.entries)
    log.write_text("")
    process = forked.context().Process(target=build_in_child, args=(str(root), str(log)))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert not finished_ids & set(lines(log))  # what was finished is not made again
    bank = Bank.open(root)
    assert len(bank) == 10
    assert validate_bank(bank) == []
    assert not list(bank.root.rglob(".tmp-*"))
