"""Parquet files in a folder, and tables beside photos, as `datasets` names them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image, ImageColor

from hf_metaprune.data import file_checks, tables
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.data.tables import load_metadata, load_parquet_folder
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import DataError
from tests.tiny import tiny_preprocessing

COLORS = ("red", "green", "blue", "white")


def read(source: Path) -> TaskData:
    return read_task_data(source, tiny_preprocessing())


def photos(folder: Path, count: int = 12) -> list[str]:
    """Write photos in four colors, one in a folder below."""
    (folder / "more").mkdir(parents=True, exist_ok=True)
    names = [f"more/{i}.png" if i == 3 else f"{i}.png" for i in range(count)]
    for i, name in enumerate(names):
        Image.new("RGB", (20, 20), COLORS[i % 4]).save(folder / name)
    return names


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [{"file_name": name, "label": COLORS[i % 4], "number": i} for i, name in enumerate(photos(folder))]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [list(rows[0]), *(row.values() for row in rows)]
    path.write_text("\n".join(",".join(map(str, line)) for line in lines) + "\n")
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl}


def content(rows: Any) -> dict[int, tuple[str, tuple[int, ...]]]:
    return {row["number"]: (row["label"], row["image"].getpixel((0, 0))) for row in rows}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_beside_photos_is_read(tmp_path: Path, kind: str) -> None:
    rows = rows_of(tmp_path)
    loaded = load_metadata(WRITERS[kind](tmp_path / f"metadata.{kind}", rows))
    loaded = loaded.cast_column("image", datasets.Image())
    assert loaded.features["label"] == datasets.Value("string")
    expected = {i: (COLORS[i % 4], ImageColor.getrgb(COLORS[i % 4])) for i in range(12)}
    assert content(loaded) == expected
    if kind == "jsonl":  # of csv files `datasets` leaves one open
        others = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
        assert content(others["train"]) == expected


@pytest.mark.parametrize("kind", WRITERS)
def test_a_task_is_made_of_a_table_beside_photos(tmp_path: Path, kind: str) -> None:
    rows = [row | {"file_name": row["file_name"].replace("more/", "")} for row in rows_of(tmp_path)]
    (tmp_path / "more" / "3.png").rename(tmp_path / "3.png")
    (tmp_path / "more").rmdir()
    WRITERS[kind](tmp_path / f"metadata.{kind}", rows)
    data = read(tmp_path)
    assert data.task.labels == ("blue", "green", "red", "white")
    assert len(data.train) + len(data.evaluation) == 12


@pytest.mark.parametrize("where", ["root", "splits"])
def test_a_table_may_describe_splits(tmp_path: Path, where: str) -> None:
    counts = {"train": 12, "test": 8}
    folder, rows = tmp_path / "photos", []
    for split, count in counts.items():
        names = [f"{split}/{name}" for name in photos(folder / split, count)]
        rows += [{"file_name": name, "label": COLORS[i % 4]} for i, name in enumerate(names)]
    if where == "root":
        write_jsonl(folder / "metadata.jsonl", rows)
    else:
        for split in counts:
            own = [r | {"file_name": r["file_name"].removeprefix(f"{split}/")} for r in rows if split in r["file_name"]]
            write_jsonl(folder / split / "metadata.jsonl", own)
    data = read(folder)
    assert data.task.labels == ("blue", "green", "red", "white")
    assert (len(data.train), len(data.evaluation), data.evaluation_split) == (12, 8, "test")
    if where == "splits":
        others = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
        assert {name: sorted(split["label"]) for name, split in others.items()} == {
            name: sorted(COLORS[i % 4] for i in range(count)) for name, count in counts.items()
        }
        (folder / "train" / "metadata.jsonl").unlink()
        with pytest.raises(DataError, match="all images are of one class, more"):
            read(folder)


def test_a_table_above_one_folder_gives_the_labels(tmp_path: Path) -> None:
    names = [f"images/{name}" for name in photos(tmp_path / "images")]
    rows = [{"file_name": name, "species": COLORS[i % 4]} for i, name in enumerate(names)]
    write_csv(tmp_path / "metadata.csv", rows)
    data = read_task_data(tmp_path, tiny_preprocessing(), label_column="species")
    assert data.task.labels == ("blue", "green", "red", "white")


def class_folder(folder: Path) -> None:
    for color in COLORS:
        (folder / color).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (20, 20), color).save(folder / color / f"{i}.png")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_table_of_one_split_leaves_the_other_as_it_is(tmp_path: Path, split: str) -> None:
    """As for a contest: classes in folders to learn from, and loose photos with a table."""
    other = {"train": "test", "test": "train"}[split]
    class_folder(tmp_path / other)
    names = [f"{split}/{name}" for name in photos(tmp_path / split)]
    write_csv(tmp_path / "metadata.csv", [{"file_name": n, "label": COLORS[i % 4]} for i, n in enumerate(names)])
    data = read(tmp_path)
    assert (len(data.train), len(data.evaluation), data.evaluation_split) == (12, 12, "test")
    (tmp_path / "docs").mkdir()
    assert split != "test" or len(read(tmp_path).task.labels) == 4


NO_LABELS = {
    "no names": "id,age\n1,2\n",
    "ragged": "file_name,label\na\n",
    "long": "file_name,label\n" + "a,b\n" * 20_000,
    "captions": "file_name,text\nred/0.png,a photo\n",
    "one label": "file_name,label\nred/0.png,x\nred/1.png,x\n",
    "labels": "file_name,label\nred/0.png,x\nred/1.png,y\n",
    "photos elsewhere": "file_name,label\n0.png,x\n1.png,y\n",
}


@pytest.mark.parametrize("text", NO_LABELS.values(), ids=NO_LABELS)
@pytest.mark.parametrize("where", [".", "train", "test"])
def test_tables_beside_folders_of_classes_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, where: str
) -> None:
    for split in ("train", "test"):
        class_folder(tmp_path / split)
    (tmp_path / where / "metadata.csv").write_text(text)
    data = read(tmp_path)
    assert (data.task.labels, len(data.train), data.evaluation_split) == (tuple(sorted(COLORS)), 12, "test")
    assert where == "." or "left out" in caplog.text


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "", "a" * 2000, "link.png"])
def test_a_table_names_photos_of_its_folder_only(tmp_path: Path, kind: str, name: str) -> None:
    folder = tmp_path / "data"
    rows = rows_of(folder)
    Image.new("RGB", (20, 20)).save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    path = WRITERS[kind](folder / f"metadata.{kind}", [*rows, rows[0] | {"file_name": name}])
    with pytest.raises(DataError, match=r"names a photo elsewhere|is a symbolic link"):
        load_metadata(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_that_is_a_link_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "data"
    secret = WRITERS[kind](tmp_path / f"secret.{kind}", rows_of(folder))
    for path in (folder / "more").iterdir():
        path.unlink()
    (folder / "more").rmdir()
    (folder / f"metadata.{kind}").symlink_to(secret)
    with pytest.raises(DataError, match="a symbolic link"):
        read(folder)


@pytest.mark.parametrize(
    ("kind", "text", "cause"),
    [
        ("csv", "file_name," + ",".join(map(str, range(300))) + "\n", "more than 200 columns"),
        ("csv", "file_name,file_name\n", "one twice"),
        ("csv", "file_name,label\na.png\n", "row 1 has 1 values for 2 columns"),
        ("csv", "label\na\n", "no column file_name"),
        ("csv", "file_name,label\n" + '"' + "x" * 200_000, "field larger"),
        ("jsonl", json.dumps({str(i): i for i in range(300)}), "more than 200 columns"),
        ("jsonl", "[1]", "line 1 is no JSON object"),
        ("jsonl", "{", "cannot be read"),
        ("jsonl", "[" * 5000, "levels of lists"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, kind: str, text: str, cause: str) -> None:
    path = tmp_path / f"metadata.{kind}"
    path.write_text(text)
    with pytest.raises(DataError, match=cause):
        load_metadata(path)


def test_lines_of_a_table_are_bounded_by_the_photos_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(tmp_path)
    path = write_csv(tmp_path / "metadata.csv", rows)
    monkeypatch.setattr(tables, "FREE_ROWS", 0)
    assert len(load_metadata(path)) == 12  # one short line for each photo
    path.write_text(path.read_text().replace("\n", "\r\n"))
    assert len(load_metadata(path)) == 12
    write_csv(path, rows * 2)
    with pytest.raises(DataError, match="25 lines for 12 files, too many"):
        load_metadata(path)


def cached(folder: Path) -> Path:
    """Return a folder with the photos and tables of another one as huggingface_hub's cache keeps them."""
    repo = folder / "datasets--lab--photos"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("forged", ["photo", "content"])
def test_photos_in_the_cache_of_the_hub_are_read(
    tmp_path: Path, kind: str, forged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_checks, "FREE_ROWS", 0)
    rows = [row for row in rows_of(tmp_path) if row["number"] != 3]
    for row in rows:  # contents of their own
        Image.new("RGB", (20 + row["number"], 20), row["label"]).save(tmp_path / row["file_name"])
    folder = cached(tmp_path)
    if kind == "csv":
        write_csv(folder / "metadata.csv", rows)
    else:
        images = [{"bytes": None, "path": str(folder / row["file_name"])} for row in rows]
        columns = {"image": images, "label": [row["label"] for row in rows]}
        datasets.Dataset.from_dict(columns).to_parquet(str(folder / "train.parquet"))
    data = read(folder)
    images = [image for part in (data.train, data.evaluation) for image, _ in (part[i] for i in range(len(part)))]
    assert len(images) == 11
    secret = tmp_path / "secret.png"
    Image.new("RGB", (20, 20)).save(secret)
    photo = folder / rows[0]["file_name"]
    link = photo if forged == "photo" else photo.resolve()
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(DataError, match=r"a symbolic link|is not in the folder of the data set"):
        [part[i] for data in [read(folder)] for part in (data.train, data.evaluation) for i in range(len(part))]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-0000.parquet", "train-0001.parquet", "test-0000.parquet"], {"train": 4, "test": 2}),
        (["training/0.parquet", "dev/0.parquet"], {"train": 2, "validation": 2}),
        (["data/x_eval.parquet", "data/x_train.parquet"], {"test": 2, "train": 2}),
        (["latest.parquet", "contest/a.parquet"], {"train": 4}),
        (["train/test.parquet"], {"test": 2}),
    ],
)
def test_parquet_files_are_of_the_splits_that_their_names_say(
    tmp_path: Path, names: list[str], splits: dict[str, int]
) -> None:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict({"image": [b"a", b"b"], "label": [0, 1]}).to_parquet(str(path))
    loaded = load_parquet_folder(tmp_path, [tmp_path / name for name in names])
    assert {name: len(rows) for name, rows in loaded.items()} == splits


def test_files_of_other_kinds_beside_parquet_are_not_read(tmp_path: Path) -> None:
    rows = {"image": [Image.new("RGB", (20, 20), color) for color in COLORS * 3], "label": list(COLORS * 3)}
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "train.parquet"))
    (tmp_path / "train2.pq").write_bytes((tmp_path / "train.parquet").read_bytes())
    (tmp_path / "train3").write_bytes(b"x")
    assert len(read(tmp_path).train) == 8


@pytest.mark.parametrize("name", ["photos [1].parquet", "?*.parquet", "**.parquet", "{a,b}.parquet"])
def test_names_are_no_patterns(tmp_path: Path, name: str) -> None:
    rows = {"image": [Image.new("RGB", (20, 20), color) for color in COLORS * 3], "label": list(COLORS * 3)}
    for file in (name, "aa.parquet"):
        datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / file))
    data = read(tmp_path)
    assert len(data.train) + len(data.evaluation) == 24
    data = read(tmp_path / name)
    assert len(data.train) + len(data.evaluation) == 12


def test_numbers_that_arrow_has_not_are_said_with_the_table(tmp_path: Path) -> None:
    names = photos(tmp_path)
    path = write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": name, "hash": 2**64} for name in names])
    with pytest.raises(DataError, match=r"metadata.jsonl cannot be read: .*(int|large)"):
        load_metadata(path)


def test_lines_end_as_json_lines_says(tmp_path: Path) -> None:
    """Or a line could be many rows, which nobody has counted."""
    names = photos(tmp_path)
    lines = [json.dumps({"file_name": name, "label": "a"}) for name in names]
    path = tmp_path / "metadata.jsonl"
    path.write_text("\r\n".join(lines))
    assert len(load_metadata(path)) == 12
    for end in ("\x0c", "\x85", "\u2028"):
        path.write_text(end.join(lines), encoding="utf-8")
        with pytest.raises(DataError, match="cannot be read"):
            load_metadata(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_photo_that_is_not_there_cannot_be_read(tmp_path: Path, kind: str) -> None:
    rows = rows_of(tmp_path)
    path = WRITERS[kind](tmp_path / f"metadata.{kind}", [*rows, rows[0] | {"file_name": "gone/too.png"}])
    images = load_metadata(path)["image"][:]
    assert images[-1] == {"bytes": b"", "path": "gone/too.png"}
    assert images[0] == {"bytes": None, "path": str(tmp_path / "0.png")}


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_a_pattern_of_names_finds_regular_files_only(tmp_path: Path, what: str) -> None:
    rows = {"image": [Image.new("RGB", (20, 20), color) for color in COLORS * 3], "label": list(COLORS * 3)}
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "data" / "train.parquet"))
    odd = tmp_path / "data" / "x.parquet"
    assert len(read_task_data(f"{tmp_path}/data/*.parquet", tiny_preprocessing()).train) == 8
    odd.symlink_to(tmp_path / "private.parquet") if what == "link" else os.mkfifo(odd)
    with pytest.raises(DataError, match="only regular files are read"):
        read_task_data(f"{tmp_path}/data/*.parquet", tiny_preprocessing())
    with pytest.raises(DataError, match=r"no regular file|cannot be read"):
        read_task_data([str(odd)], tiny_preprocessing())
