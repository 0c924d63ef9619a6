"""The commands ``sweep``, which makes models of several sizes, and ``export``, which writes formats for devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import NOT_SWEPT, AdaptOptions, TrainingOptions
from ..data.source_names import check_source
from ..errors import OptionError
from ..files.names import user_path
from ..files.storage import check_folder
from .bank import BankArgument, BankRevision
from .checks import check_bank
from .options import with_options
from .output import Json, command, escape_markup, out, print_json, show_progress, table

FORMATS = ("onnx", "openvino")


def _parse_ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--ratios {text}: must be numbers, such as 0.5,0.9") from None


@with_options(AdaptOptions, TrainingOptions, without=NOT_SWEPT)
def sweep(
    bank: BankArgument,
    data: Annotated[
        str,
        typer.Argument(
            help="Folder with one folder per class or a metadata.csv, parquet, or a Hub data set id.", metavar="DATA"
        ),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the models and the curve.")],
    ratios: Annotated[
        str, typer.Option(help="Shares of units to remove, separated by commas; each gives one model.")
    ] = "0.5,0.7,0.8,0.9,0.95",
    unlabeled: Annotated[
        Path | None,
        typer.Option(help="Photos without labels (a folder or parquet), on which the base teaches the model."),
    ] = None,
    revision: BankRevision = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Make models of several sizes from one vote, and show the accuracy and cost of each."""
    check_bank(bank, revision)
    check_source(data)
    from ..files.storage import check_writable, new_folder
    from ..pruner import MetaPruner
    from ..reporting.sweep import curve_rows, save_curve

    ratio_values = _parse_ratios(ratios)
    pruner = MetaPruner.from_hub(bank, revision=revision)
    check_writable(out_dir, need=len(ratio_values) * pruner.bank.base_bytes)
    results = pruner.sweep(data, ratio_values, unlabeled=unlabeled, progress=show_progress(), **options)
    reports = [result.report for result in results]
    with new_folder(out_dir) as work:
        for ratio, result in zip(ratio_values, results, strict=True):
            result.save_pretrained(work / f"r{ratio:g}")
        save_curve(reports, work)
    if as_json:
        print_json({"models": curve_rows(reports), "out": str(out_dir)})
        return
    curve_table = table("ratio", "parameters", "MACs", "ms per image", "accuracy", "95% confidence")
    for row in curve_rows(reports):
        low, high = row["accuracy_interval"]
        cells = [f"{row['ratio']:g}", f"{row['params']:,}", f"{row['macs']:,}", f"{row['latency_ms']:.2f}"]
        curve_table.add_row(*cells, f"{row['accuracy']:.1%}", f"{low:.0%} to {high:.0%}")
    out.print(curve_table)
    out.print(
        f"The models and {escape_markup(str(out_dir))}/sweep.md are written; "
        f"{escape_markup(command('inspect'))} shows one."
    )


def export(
    model: Annotated[Path, typer.Argument(help="Folder of an adapted model.", metavar="MODEL")],
    to: Annotated[str, typer.Option(help=f"Format: {', '.join(FORMATS)}.")] = "onnx",
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The file to write, or the folder for OpenVINO; MODEL/model.onnx or MODEL/openvino by default "
            "(model_int8.onnx or openvino_int8 with --int8).",
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Store weights and activations in 8 bits; needs --images.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder or parquet of images like those the model will see; for the check, and the ranges of int8."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file or folder.")] = False,
    as_json: Json = False,
) -> None:
    """Write an adapted model for devices without PyTorch, and check that it gives the same results."""
    check_folder(model)  # before what takes seconds to import
    from ..data.photos import read_photos
    from ..errors import StorageError
    from ..export import MAX_CALIBRATION_IMAGES, export_onnx, export_openvino
    from ..result import load_result

    if to not in FORMATS:
        raise OptionError(f"--to {to}: must be one of {', '.join(FORMATS)}")
    name = {"onnx": "model{}.onnx", "openvino": "openvino{}"}[to].format("_int8" if int8 else "")
    path = user_path(out_file or model / name)
    if path.exists() and not overwrite:
        raise StorageError(f"{path} exists: pass --overwrite, or another --out")
    adapted_model = load_result(model, "cpu")
    examples = None
    if images is not None:
        examples = read_photos(
            images, adapted_model.preprocessing, limit=MAX_CALIBRATION_IMAGES, progress=show_progress()
        )
    if to == "onnx":
        result = export_onnx(adapted_model.model, adapted_model.preprocessing, path, images=examples, int8=int8)
    else:
        result = export_openvino(
            adapted_model.model, adapted_model.preprocessing, path, images=examples, int8=int8, overwrite=overwrite
        )
    if as_json:
        facts = {"out": str(result.path), "bytes": result.size, "difference": result.difference}
        print_json(facts | {"agreement": result.agreement})
        return
    images_used = "the given images" if examples is not None else "noise"
    out.print(f"[bold]{escape_markup(str(result.path))}[/]: {result.size / 1000:,.0f} kB")
    out.print(
        f"Compared with PyTorch on {images_used}: the same class for {result.agreement:.1%}, logits differ by at "
        f"most {result.difference:.2g}"
    )
