"""Hostile data sets, reports and banks for `bench_hostile.py`, which measures what reading or refusing them costs."""

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
from PIL import Image, PngImagePlugin

from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.factory import copy_subset
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.drawing.style import drawn_png
from hf_metaprune.files.shipped import shipped_path
from hf_metaprune.reporting.report import SHOWN_OPTIONS
from hf_metaprune.reporting.report_files import load_report, report_drawings

Make = Callable[[Path], tuple[Path, Callable[[], object]]]
"""A function that writes a file into a folder, and returns its path and how it is read."""
CASES: dict[str, Make] = {}


def case(name: str) -> Callable[[Make], Make]:
    """Add a case by its name."""

    def add(make: Make) -> Make:
        CASES[name] = make
        return make

    return add


# --- data sets --------------------------------------------------------------------------------------------------------


def data_case(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Add a data set, which a function writes into a folder."""

    def add(write: Callable[[Path], None]) -> Callable[[Path], None]:
        def make(folder: Path) -> tuple[Path, Callable[[], object]]:
            write(folder)
            return folder, lambda: read_task_data(folder, Preprocessing(input_size=(3, 32, 32)))

        CASES[f"data set: {name}"] = make
        return write

    return add


def write_rows(folder: Path, images: pa.Array, labels: pa.Array | None = None, **options: Any) -> None:
    """Write a Parquet file of images and labels."""
    labels = pa.array(np.arange(len(images)) % 2) if labels is None else labels
    pq.write_table(pa.table({"image": images, "label": labels}), folder / "train.parquet", **options)


def repeated(content: bytes, count: int) -> pa.Array:
    """Images that are all the same, which Parquet stores once, but for two small ones."""
    rows = np.repeat(np.array([1, 0], np.int32), [2, count])
    values = pa.DictionaryArray.from_arrays(pa.array(rows), pa.array([content, png(8)]))
    count += 2
    return pa.StructArray.from_arrays([values, pa.nulls(count, pa.string())], names=["bytes", "path"])


def png(side: int) -> bytes:
    """A picture of noise, which no compression makes smaller."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def blank(mode: str, side: int) -> bytes:
    """A picture of one color."""
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG")
    return file.getvalue()


@data_case("5,000,000 rows without images")
def _(folder: Path) -> None:
    write_rows(folder, pa.nulls(5_000_000))


@data_case("1,300,000 rows without images")
def _(folder: Path) -> None:
    write_rows(folder, pa.nulls(1_300_000))


@data_case("500 times one image of 900 kB")
def _(folder: Path) -> None:
    write_rows(folder, repeated(png(550), 500))


@data_case("one image as often as may be")
def _(folder: Path) -> None:
    write_rows(folder, repeated(png(32), 4_998))


@data_case("an image of 900 MB that is packed")
def _(folder: Path) -> None:
    write_rows(folder, pa.array([bytes(900_000_000), b"x"]), compression="zstd", use_dictionary=False)


@data_case("two images of 50 million pixels")
def _(folder: Path) -> None:
    write_rows(folder, repeated(blank("L", 7071), 2))


@data_case("two images of 50 million pixels with alpha")
def _(folder: Path) -> None:
    write_rows(folder, repeated(blank("RGBA", 7071), 2))


@data_case("two images of 169 million pixels")
def _(folder: Path) -> None:
    write_rows(folder, repeated(blank("L", 13_000), 2))


@data_case("images with texts of 60 MB")
def _(folder: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    for number in range(60):
        texts.add_text(f"text {number}", "x" * 1_000_000, zip=True)
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG", pnginfo=texts)
    write_rows(folder, repeated(file.getvalue(), 8))


@data_case("a column beside the images of 81 million pixels each")
def _(folder: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}, "x": {"_type": "Image"}}
    table = pa.table({"image": repeated(png(8), 2), "label": [0, 1, 0, 1], "x": repeated(blank("L", 9000), 2)})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "train.parquet")


@data_case("nulls of lists of 20,000,000 numbers")
def _(folder: Path) -> None:
    table = pa.table({"image": repeated(png(8), 2), "label": [0, 1, 0, 1]})
    table = table.append_column("x", pa.nulls(4, pa.list_(pa.int32(), 20_000_000)))
    pq.write_table(table, folder / "train.parquet")


@data_case("40 files with names that fit each other as patterns")
def _(folder: Path) -> None:
    write_rows(folder, repeated(png(8), 8))
    content = (folder / "train.parquet").read_bytes()
    for number in range(40):
        (folder / f"{'?' * (number + 1)}*.parquet").write_bytes(content)


@data_case("paths of 80,000 characters")
def _(folder: Path) -> None:
    paths = pa.DictionaryArray.from_arrays(pa.array(np.zeros(300, np.int32)), pa.array(["a/" * 40_000]))
    write_rows(folder, pa.StructArray.from_arrays([pa.nulls(300, pa.binary()), paths], names=["bytes", "path"]))


@data_case("10,000,000 rows in a file of another suffix")
def _(folder: Path) -> None:
    write_rows(folder, pa.nulls(10_000_000))
    (folder / "train.parquet").rename(folder / "train2.pq")
    write_rows(folder, repeated(png(8), 40))


@data_case("a table of 200,000 columns")
def _(folder: Path) -> None:
    (folder / "0.png").write_bytes(png(8))
    names = ",".join(map(str, range(200_000)))
    (folder / "metadata.csv").write_text(f"file_name,{names}\n0.png,{names}\n")


@data_case("a table of 2,500,000 lines")
def _(folder: Path) -> None:
    (folder / "0.png").write_bytes(png(8))
    (folder / "metadata.csv").write_text("file_name\n" + "a\n" * 2_490_000)


@data_case("a table that names one photo 110,000 times")
def _(folder: Path) -> None:
    (folder / "0.png").write_bytes(png(8))
    rows = (json.dumps({"file_name": "0.png", "label": i % 2}) for i in range(110_000))
    (folder / "metadata.jsonl").write_text("\n".join(rows))


@data_case("labels of 100 kB")
def _(folder: Path) -> None:
    labels = pa.DictionaryArray.from_arrays(pa.array(np.arange(4_900) % 2), pa.array(["a" * 100_000, "b" * 100_000]))
    write_rows(folder, repeated(png(8), 4_898), labels)


@data_case("a list of 300,000 lists in its metadata")
def _(folder: Path) -> None:
    table = pa.table({"image": repeated(png(8), 2), "label": pa.array([0, 1, 0, 1])})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"license": [[[]] * 200] * 1500}})})
    pq.write_table(table, folder / "train.parquet")


def saved_data_case(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Add a data set that `datasets` has saved, and which a function alters."""

    def add(alter: Callable[[Path], None]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            rows = {"image": [{"bytes": png(8), "path": None}] * 8, "label": [0, 1] * 4}
            features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
            datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder)
            alter(folder)

        data_case(f"saved, {name}")(write)
        return alter

    return add


@saved_data_case("a license of as many lists as may be")
def _(folder: Path) -> None:
    change_info(folder, [[[]] * 200] * 245)


@saved_data_case("a license of 300,000 lists")
def _(folder: Path) -> None:
    change_info(folder, [[[]] * 200] * 1500)


@saved_data_case("one file 60,000 times")
def _(folder: Path) -> None:
    path = folder / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"_data_files": state["_data_files"] * 60_000}))


@saved_data_case("one split 3,000 times")
def _(folder: Path) -> None:
    files = list(folder.iterdir())
    (folder / "train").mkdir()
    for file in files:
        file.rename(folder / "train" / file.name)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train"] * 3000}))


@saved_data_case("20,000 columns")
def _(folder: Path) -> None:
    (path,) = folder.glob("*.arrow")
    table = pa.table({str(number): [1, 2] for number in range(20_000)})
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


def change_info(folder: Path, license_: Any) -> None:
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"license": license_}))


@saved_data_case("batches that are packed")
def _(folder: Path) -> None:
    (path,) = folder.glob("*.arrow")
    images = pa.StructArray.from_arrays([pa.nulls(10**7, pa.binary()), pa.nulls(10**7, pa.string())], ["bytes", "path"])
    table = pa.table({"image": images, "label": np.zeros(10**7, np.int64)})
    path.unlink()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(folder / "data.bin", table.schema, options=options) as stream:
        stream.write_table(table)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": "data.bin"}]}))


# --- reports ----------------------------------------------------------------------------------------------------------


def report_case(name: str, **values: Any) -> None:
    def make(folder: Path) -> tuple[Path, Callable[[], object]]:
        path = folder / "report.json"
        path.write_text(json.dumps({"labels": ["a", "b"]} | values))
        return path, lambda: [drawn_png(drawing) for _, drawing in report_drawings(load_report(path)).values()]

    CASES[f"report: {name}"] = make


NEIGHBOR = {"id": "x", "labels": ["a", "b"], "sha256": "0" * 64, "score": 0.5, "share": 0.1}
report_case("20,000 baselines", baselines={f"b{i}": {str(i): 0.5} for i in range(20_000)})
report_case("baselines of many steps", baselines={f"b{i}": {str(s): 0.5 for s in range(20_000)} for i in range(15)})
report_case(
    "neighbors and layers",
    neighbors=[NEIGHBOR] * 5000,
    vote_agreement={f"layer{i}": {"1": 1} for i in range(20_000)},
    iou_with_neighbors={f"layer{i}": [0.5] * 4 for i in range(10_000)},
)
report_case("many votes", neighbors=[NEIGHBOR] * 1000, vote_agreement={f"l{i}": {"1": 1} for i in range(2000)})
report_case(
    "long names of layers", neighbors=[NEIGHBOR] * 2, vote_agreement={f"{i}" + "x" * 4000: {"1": 1} for i in range(60)}
)
report_case("votes of colliding keys", vote_agreement={"l": {str(i * (2**61 - 1)): 1 for i in range(1, 100_000)}})
report_case("neighbors", neighbors=[NEIGHBOR] * 38_000)
report_case("losses", losses=[0.5] * 900_000)
report_case("a drawn confusion", labels=[f"{i}" for i in range(40)], confusion=[[1] * 40] * 40)
report_case("labels", labels=[f"label {i}" for i in range(250_000)])
report_case("labels of markup", labels=["*" * 500] * 9980)
report_case("as many labels of markup as may be", labels=[f"{i:05}" + "*" * 45 for i in range(9990)])
report_case("confusion", labels=[f"{i}" for i in range(1250)], confusion=[[0] * 1250] * 1250)
report_case("notes", notes=[f"{i}" for i in range(400_000)])
report_case("one long note", notes=["*_|" * 1_600_000])
report_case("options", options={f"o{i}": i for i in range(200_000)}, given={f"o{i}": i for i in range(50_000)})
report_case("long options", options=dict.fromkeys(SHOWN_OPTIONS[:5], ["*" * 10_000] * 99))
report_case("options as long as may be", options=dict.fromkeys(SHOWN_OPTIONS[:5], ["*" * 9_900] * 10))
report_case("seconds", seconds={f"phase {i}": 1.0 for i in range(200_000)})
report_case("accuracy per class", accuracy_per_class={f"class {i}": 0.5 for i in range(200_000)})
report_case("skipped images", skipped_images=["x"] * 900_000)
report_case("unknown fields", **{f"f{i}": i for i in range(250_000)})
report_case("a number of many digits", seed=10**4000)


# --- banks ------------------------------------------------------------------------------------------------------------


def copy_bank(folder: Path) -> Path:
    """Copy two entries of the demo bank; return the folder."""
    bank = Bank.open(shipped_path("demo-bank"))
    return copy_subset(bank, folder / "bank", list(bank.entries)[:2]).root


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def read_bank(root: Path) -> None:
    bank = Bank.open(root, strict=False)
    len(bank)
    validate_bank(bank, list(bank.entries)[:1000])
