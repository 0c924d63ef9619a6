"""Data sets whose files name, or unpack to, more than they should are refused before `datasets` opens them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_metaprune.data import file_checks
from hf_metaprune.data.file_checks import check_parquet, check_saved
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.data.photos import read_photos
from hf_metaprune.errors import DataError
from tests.tiny import tiny_preprocessing

N_ROWS = 40


def picture(i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def structs(contents: pa.Array) -> pa.StructArray:
    return pa.StructArray.from_arrays([contents, pa.nulls(len(contents), pa.string())], ["bytes", "path"])


def repeated(content: bytes, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([content]))


def table(image: pa.Array | None = None, **columns: Any) -> pa.Table:
    image = structs(pa.array([picture(i) for i in range(N_ROWS)])) if image is None else image
    return pa.table({"image": image, "label": np.arange(len(image)) % 2} | columns)


def write(folder: Path, rows: pa.Table, **options: Any) -> list[Path]:
    pq.write_table(rows, folder / "train.parquet", **options)
    return [folder / "train.parquet"]


def save(folder: Path, rows: pa.Table | None = None, **options: Any) -> Path:
    """Save a data set, and put other rows into its only file."""
    path = folder / "saved"
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    contents = [{"bytes": picture(i), "path": None} for i in range(4)]
    datasets.Dataset.from_dict({"image": contents, "label": [0, 1, 0, 1]}, features=features).save_to_disk(path)
    if rows is not None:
        (file,) = path.glob("*.arrow")
        with pa.ipc.new_stream(file, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
            stream.write_table(rows)
    return path


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_sound_parquet_files_pass(tmp_path: Path, compression: str, use_dictionary: bool) -> None:
    check_parquet(write(tmp_path, table(), compression=compression, use_dictionary=use_dictionary, row_group_size=7))


@pytest.mark.parametrize(
    "rows",
    [
        lambda: table(structs(repeated(b"x" * 100_000, 1000))),
        lambda: table(repeated(b"x" * 100_000, 1000)),
        lambda: table(text=pa.array([["x" * 100_000] * 25] * N_ROWS)),
        lambda: table(text=pa.array([{"a": "x" * 2_000_000}] * N_ROWS)),
        lambda: table(text=pa.array([[("k", "x" * 2_000_000)]] * N_ROWS, pa.map_(pa.string(), pa.string()))),
        lambda: table(text=pa.array([b"x" * 2_000_000] * N_ROWS, pa.binary(2_000_000))),
        lambda: table(numbers=pa.array([np.zeros(200_000, np.int64)] * N_ROWS)),
        lambda: table(numbers=pa.array([None] * N_ROWS, pa.list_(pa.int8(), 1_000_000))),
        lambda: table(numbers=pa.array([[None]] * N_ROWS, pa.list_(pa.list_(pa.list_(pa.int8(), 1000), 1000)))),
    ],
    ids=["images", "plain images", "lists", "structs", "maps", "fixed length", "numbers", "nulls", "nested nulls"],
)
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_small_parquet_file_of_much_is_refused(
    tmp_path: Path, rows: Callable[[], pa.Table], use_dictionary: bool
) -> None:
    paths = write(tmp_path, rows(), compression="zstd", use_dictionary=use_dictionary)
    assert paths[0].stat().st_size < 500_000
    with pytest.raises(DataError, match="unpacks to"):
        check_parquet(paths)


def test_a_small_parquet_file_of_many_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows; at most"):
        check_parquet(write(tmp_path, table(pa.nulls(20_000))))


def test_rows_are_bounded_by_the_photos_beside_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_checks, "FREE_ROWS", 0)
    paths = [tmp_path / "train" / "0.parquet", tmp_path / "test" / "0.parquet"]
    rows = pa.table({"image": pa.array(["photos/0.png"] * 500), "label": np.zeros(500, np.int64)})
    for path in paths:
        path.parent.mkdir()
        pq.write_table(rows, path, compression="zstd")
    few = sum(500 - path.stat().st_size // file_checks.MIN_ROW_BYTES for path in paths)
    assert few > 900
    for i in range(few):
        (tmp_path / "train" / f"{i}.png").write_bytes(b"")
    check_parquet(paths)
    (tmp_path / "train" / "0.png").unlink()
    with pytest.raises(DataError, match=r"test/0.parquet has .* 500 rows; at most 499 .* beside"):
        check_parquet(paths)
    (tmp_path / "train" / "0.png").symlink_to("1.png")
    with pytest.raises(DataError, match="500 rows"):
        check_parquet(paths)


def test_rows_of_all_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_checks, "MAX_ROWS", 2 * N_ROWS)
    (path,) = write(tmp_path, table())
    check_parquet([path] * 2)
    with pytest.raises(DataError, match="rows are too many"):
        check_parquet([path] * 3)


MANY_LISTS = [[[]] * 200] * 1500


def test_what_datasets_parses_of_a_file_is_bounded(tmp_path: Path) -> None:
    rows = table().replace_schema_metadata({"huggingface": json.dumps({"info": {"license": MANY_LISTS}})})
    with pytest.raises(DataError, match="lists and objects"):
        check_parquet(write(tmp_path, rows))
    with pytest.raises(DataError, match="lists and objects"):
        check_saved(save(tmp_path, rows))


@pytest.mark.parametrize("text", [b"PAR1", b"PAR1" + bytes(40) + b"PAR1", b""])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "train.parquet").write_bytes(text)
    with pytest.raises(DataError, match="train.parquet cannot be read as a data set"):
        check_parquet([tmp_path / "train.parquet"])


def test_saved_data_sets_pass(tmp_path: Path) -> None:
    check_saved(save(tmp_path))
    rows = table()
    datasets.DatasetDict(train=datasets.Dataset(rows), test=datasets.Dataset(rows)).save_to_disk(tmp_path / "splits")
    check_saved(tmp_path / "splits")


@pytest.mark.parametrize(
    ("rows", "options", "cause"),
    [
        (lambda: table(), {"compression": "zstd"}, "compressed"),
        (lambda: table(), {"compression": "lz4"}, "compressed"),
        (lambda: table(structs(repeated(b"x", 9))), {}, "of type dictionary"),
        (lambda: table(text=pa.array(["a"] * N_ROWS, pa.string_view())), {}, "of type string_view"),
        (lambda: table(text=pa.array([["a"]] * N_ROWS, pa.list_view(pa.string()))), {}, "of type list_view"),
        (lambda: table(ends=pa.RunEndEncodedArray.from_arrays([N_ROWS], ["a"])), {}, "of type run_end"),
    ],
)
def test_values_of_a_saved_data_set_stand_for_themselves(
    tmp_path: Path, rows: Callable[[], pa.Table], options: dict[str, Any], cause: str
) -> None:
    with pytest.raises(DataError, match=cause):
        check_saved(save(tmp_path, rows(), **options))


def test_rows_of_a_saved_data_set_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, table())
    monkeypatch.setattr(file_checks, "MAX_ROWS", N_ROWS)
    check_saved(path)
    monkeypatch.setattr(file_checks, "MAX_ROWS", N_ROWS - 1)
    with pytest.raises(DataError, match="rows are too many"):
        check_saved(path)


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"license": MANY_LISTS}, "lists and objects"),
        ({"license": MANY_LISTS[:300]}, "at most 50000 values"),
        ({"description": "x" * 1_100_000}, "a text of 1100000 characters"),
    ],
)
def test_the_description_of_a_saved_data_set_is_bounded(tmp_path: Path, values: dict[str, Any], cause: str) -> None:
    path = save(tmp_path)
    info = path / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | values))
    with pytest.raises(DataError, match=cause):
        check_saved(path)


def change_state(path: Path, names: list[object]) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": name} for name in names]}))


def test_files_of_a_saved_data_set_are_checked_whatever_their_names(tmp_path: Path) -> None:
    path = save(tmp_path, table(), compression="zstd")
    (file,) = path.glob("*.arrow")
    file.rename(path / "data.bin")
    change_state(path, ["data.bin"])
    with pytest.raises(DataError, match="compressed"):
        check_saved(path)


def test_a_saved_data_set_names_each_file_once(tmp_path: Path) -> None:
    path = save(tmp_path)
    (file,) = path.glob("*.arrow")
    change_state(path, [file.name, file.name])
    with pytest.raises(DataError, match=r"state.json names a file twice"):
        check_saved(path)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["saved", "saved"]}))
    with pytest.raises(DataError, match=r"dataset_dict.json names a file twice"):
        check_saved(tmp_path)


def test_columns_and_files_of_a_saved_data_set_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, table(**{f"column {i}": np.zeros(N_ROWS) for i in range(300)}))
    with pytest.raises(DataError, match="more than 200 columns"):
        check_saved(path)
    monkeypatch.setattr(file_checks, "MAX_FILES", 0)
    with pytest.raises(DataError, match="names 1 files; at most 0"):
        check_saved(path)


def test_folders_may_not_nest_without_end(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a"] * 60)
    deep.mkdir(parents=True)
    with pytest.raises(DataError, match="nest deeper than 50"):
        file_checks.check_regular_files(tmp_path)


@pytest.mark.parametrize(
    "labels",
    [pa.array([2**62] * N_ROWS, pa.duration("s")), pa.array([2**30] * N_ROWS, pa.date32())],
    ids=["durations", "dates"],
)
@pytest.mark.parametrize("saved", [False, True])
def test_labels_that_python_cannot_hold_are_refused(tmp_path: Path, labels: pa.Array, saved: bool) -> None:
    rows = table().drop_columns("label").append_column("label", labels)
    if saved:
        path = save(tmp_path, rows)
        features = {"image": {"_type": "Image"}, "label": {"dtype": str(labels.type), "_type": "Value"}}
        info = json.loads((path / "dataset_info.json").read_text())
        (path / "dataset_info.json").write_text(json.dumps(info | {"features": features}))
    else:
        (path,) = write(tmp_path, rows)
    with pytest.raises(DataError, match="cannot be read"):
        read_task_data(path, tiny_preprocessing(), label_column="label")


def described_as(path: Path, features: dict[str, Any]) -> None:
    """Change what a saved data set says of its columns, in both places."""
    info = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps(info | {"features": info["features"] | features}))


@pytest.mark.parametrize("saved", [False, True])
def test_no_other_column_is_decoded(tmp_path: Path, saved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its images would be read from any place, by any decoder."""
    private = tmp_path / "private.png"
    Image.new("RGB", (9, 9)).save(private)
    paths = [{"bytes": None, "path": str(private)}] * N_ROWS
    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}, "x": {"_type": "Image"}}
    rows = table(x=pa.array(paths, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    rows = rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    if saved:
        path = save(tmp_path, rows)
        described_as(path, features)
    else:
        (path,) = write(tmp_path, rows)
    opened = []
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_, **__: opened.append(1))
    assert len(read_task_data(path, tiny_preprocessing(), image_column="image").train) == 32
    assert len(read_photos(path, tiny_preprocessing())) == N_ROWS
    assert not opened


@pytest.mark.parametrize("feature", [{"_type": "Audio"}, {"_type": "Video"}, {"a": {"_type": "Image"}}])
def test_a_column_that_is_no_image_is_refused(tmp_path: Path, feature: dict[str, Any]) -> None:
    path = save(tmp_path, table(pa.array([{"a": None}] * N_ROWS)) if "a" in feature else table())
    described_as(path, {"image": feature})
    with pytest.raises(DataError, match=r"is described as|cannot be read"):
        read_task_data(path, tiny_preprocessing(), image_column="image")


def test_labels_are_no_lists(tmp_path: Path) -> None:
    rows = table().drop_columns("label").append_column("label", pa.array([[0]] * N_ROWS))
    with pytest.raises(DataError, match="holds values of type list"):
        read_task_data(write(tmp_path, rows)[0], tiny_preprocessing(), label_column="label")


def test_labels_that_overlap_are_refused(tmp_path: Path) -> None:
    """A few megabytes of text could stand for gigabytes."""
    ends = np.array([0, 90, 0] * N_ROWS, np.int32)[: N_ROWS + 1]
    labels = pa.StringArray.from_buffers(N_ROWS, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"a" * 90))
    path = save(tmp_path, table().drop_columns("label").append_column("label", labels))
    described_as(path, {"label": {"dtype": "string", "_type": "Value"}})
    with pytest.raises(DataError, match="cannot be read"):
        read_task_data(path, tiny_preprocessing(), label_column="label")


def test_paths_that_are_no_text_are_said(tmp_path: Path) -> None:
    odd = pa.array([b"\xff.png"] * N_ROWS).view(pa.string())
    contents = pa.array([b"no image"] * N_ROWS)
    rows = table(pa.StructArray.from_arrays([contents, odd], ["bytes", "path"]))
    with pytest.raises(DataError, match="cannot be read"):
        read_task_data(write(tmp_path, rows)[0], tiny_preprocessing())


def test_a_path_of_many_parts_is_refused(tmp_path: Path) -> None:
    paths = pa.array(["a/" * 1500] * N_ROWS)
    rows = table(pa.StructArray.from_arrays([pa.nulls(N_ROWS, pa.binary()), paths], ["bytes", "path"]))
    with pytest.raises(DataError, match="too long for a path"):
        read_task_data(write(tmp_path, rows)[0], tiny_preprocessing())
