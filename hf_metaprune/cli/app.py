"""The command ``hf-metaprune``: its main commands, its options, and how errors are shown."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import AdaptOptions, SearchOptions, TrainingOptions
from ..data.source_names import check_source
from ..errors import DataError, MetaPruneError, OptionError
from ..files.names import user_path
from ..files.storage import check_folder
from ..options import option_fields
from ..version import __version__
from .bank import BankArgument, BankRevision, bank_app
from .checks import check_bank
from .commands import Command
from .exit_codes import INTERRUPTED
from .hub import publish
from .models import export, sweep
from .options import with_options
from .output import (
    Json,
    command,
    err,
    escape_markup,
    note,
    out,
    print_json,
    show_progress,
    show_report,
    sparkline,
    table,
)
from .space import space

app = typer.Typer(
    help="Make small, task-specific image models by meta-vote pruning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bank_app, name="bank")
app.command()(publish)
app.command()(export)
app.command(cls=Command)(sweep)
app.command()(space)


Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--lenient",
        help="Stop at a bad entry, or skip it. The default is to stop for a folder, and to skip for a bank on the Hub.",
    ),
]


class _NoteHandler(logging.Handler):
    """A handler that prints warnings of the library as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        note(record.getMessage())


def _remove_queries(record: logging.LogRecord) -> bool:
    """Remove the queries of addresses in a record, because a query may contain a right to write; return True."""
    record.msg, record.args = re.sub(r"(https?://[^\s?]*)\?[^\s']*", r"\1", record.getMessage()), None
    return True


def _show_version(show: bool) -> None:
    if show:
        out.print(f"hf-metaprune {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Set up logging by the options of all commands."""
    handlers = [] if debug else [_NoteHandler()]
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # at lower levels it lists every font
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    logging.getLogger("huggingface_hub.utils._http").addFilter(_remove_queries)
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=handlers or None)


@app.command(cls=Command)
@with_options(AdaptOptions, TrainingOptions, SearchOptions)
def adapt(
    bank: BankArgument,
    data: Annotated[
        str,
        typer.Argument(
            help="Folder with one folder per class or a metadata.csv, parquet, or a Hub data set id.", metavar="DATA"
        ),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the model and its report.")],
    dtype: Annotated[str, typer.Option(help="How weights are stored: float32, float16 or bfloat16.")] = "float32",
    html: Annotated[
        bool, typer.Option("--report", help="Also write report.html: one page with figures, which works offline.")
    ] = False,
    unlabeled: Annotated[
        Path | None,
        typer.Option(help="Photos without labels (a folder or parquet), on which the base teaches the model."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the folder if it exists.")] = False,
    revision: BankRevision = None,
    strict: Strict = None,
    commons: Annotated[
        bool,
        typer.Option(
            "--commons", help="Take neighbors from all models on the Hub. BANK is then a bank or a base model."
        ),
    ] = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Make a small model for the classes of DATA from the entries of BANK."""
    if not commons:
        check_bank(bank, revision)
    check_source(data)
    from ..files.layout import MODEL_FILES
    from ..files.storage import check_writable
    from ..models.saving import check_dtype
    from ..pruner import MetaPruner

    check_dtype(dtype)
    search = {name: options.pop(name) for name in option_fields(SearchOptions) if name in options}
    if search and not commons:
        raise OptionError(f"--{next(iter(search))} works only in a search of the Hub: pass --commons, too")
    if commons:
        search |= {"strict": bool(strict), "progress": show_progress()}
        pruner = MetaPruner.from_search(bank, revision=revision, **search)
    else:
        pruner = MetaPruner.from_hub(bank, revision=revision, strict=strict)
    check_writable(out_dir, overwrite=overwrite and MODEL_FILES, need=pruner.bank.base_bytes)
    result = pruner.adapt(data, unlabeled=unlabeled, progress=show_progress(), **options)
    result.save_pretrained(out_dir, dtype=dtype, overwrite=overwrite, html=html)
    if as_json:
        print_json(result.report.to_dict() | {"out": str(out_dir)})
        return
    show_report(result.report)
    out.print(
        f"\nSaved to [bold]{escape_markup(str(out_dir))}[/]; try: {escape_markup(command(f'predict {out_dir} IMAGE'))}"
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of an adapted model.", metavar="MODEL")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.", metavar="IMAGES...")],
    as_json: Json = False,
) -> None:
    """Classify images with an adapted model. The exit code is 1 if an image cannot be read."""
    check_folder(model)  # before what takes seconds to import
    from ..data.folders import image_files
    from ..result import load_result

    paths = [file for path in images for file in (image_files(path)[0] if user_path(path).is_dir() else [path])]
    if not paths:
        raise DataError(f"{images[0]} has no image files, such as .jpg or .png")
    predictions = load_result(model).predict(paths, strict=False)
    if as_json:
        print_json([{"image": str(path), **p} for path, p in zip(paths, predictions, strict=True)])
    else:
        rows = table("image", "label", "score")
        for path, prediction in zip(paths, predictions, strict=True):
            if "error" not in prediction:
                cells = [str(path), prediction["label"], f"{prediction['score']:.1%}"]
                rows.add_row(*map(escape_markup, cells))
        if rows.row_count:
            out.print(rows)
    failures = [prediction["error"] for prediction in predictions if "error" in prediction]
    for failure in failures:
        err.print(f"[bold red]error:[/] {escape_markup(failure)}")
    raise typer.Exit(1 if failures else 0)


@app.command()
def inspect(
    model: Annotated[
        Path, typer.Argument(help="Folder of an adapted model, or of an entry of a bank.", metavar="MODEL")
    ],
    as_json: Json = False,
) -> None:
    """Show the units that a pruned model keeps in each layer."""
    check_folder(model)  # before what takes seconds to import
    from ..result import load_result

    result = load_result(model)
    network, accuracy_at_step = result.model, result.report.accuracy_at_step
    mask, config = network.mask(), network.config
    params = sum(p.numel() for p in network.parameters())
    layers = {name: {"kept": len(units), "size": mask.sizes[name]} for name, units in mask.items()}
    labels = [config.id2label[i] for i in range(config.num_labels)]
    facts = {"labels": labels, "ratio": config.ratio, "method": config.method, "params": params, "layers": layers}
    facts |= {"base_model": config.base_model, "metrics": config.metrics, "dataset": config.dataset}
    if as_json:
        print_json(facts)
        return
    out.print(f"[bold]{escape_markup(', '.join(labels))}[/]")
    base, metrics = config.base_model or {}, config.metrics or {}
    origin = f"{base.get('architecture')} pruned by {config.method} at ratio {config.ratio}"
    measurements = ", ".join(f"{k} {v}" for k, v in metrics.items()) or "nothing"
    out.print(escape_markup(f"{origin}: {params:,} parameters; measured: {measurements}"))
    if len(accuracy_at_step) > 1:
        steps, accuracies = list(accuracy_at_step), list(accuracy_at_step.values())
        ends = f"{accuracies[0]:.1%} at step {steps[0]}, {accuracies[-1]:.1%} at step {steps[-1]}"
        out.print(f"accuracy {sparkline(accuracies)} {ends}")
    name_width = max(map(len, mask), default=0)
    width = max(8, min(48, out.width - name_width - 26))
    rows = table("layer", "kept", "of", "units")
    for name, units in mask.items():
        rows.add_row(
            escape_markup(name), str(len(units)), str(mask.sizes[name]), _unit_bar(units, mask.sizes[name], width)
        )
    out.print(rows)


def _unit_bar(units: Iterable[int], size: int, width: int) -> str:
    """Return which units stay as a bar of at most `width` characters; a darker one means that more units stay."""
    cells = [0.0] * min(width, size)
    for unit in units:
        cells[int(unit) * len(cells) // size] += len(cells) / size
    return "".join(" ░▒▓█"[min(4, round(4 * c + 0.49))] if c else "·" for c in cells)


@app.command()
def demo(
    bank: Annotated[Path | None, typer.Option(help="Bank to use; the demo bank by default.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Example task; the one that comes with the project by default.")
    ] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the model and its report.")] = Path("demo_model"),
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: Json = False,
) -> None:
    """Adapt the demo bank to an example task that no entry has, and compare with the best baseline without a bank."""
    if bank is not None:
        check_bank(str(bank), None)
    if data is not None:
        check_source(data)
    from .demo import run_demo

    run_demo(bank, data, out_dir, seed, as_json)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Check that no argument is empty, as one of a shell's variable without a value is: a path would be the folder."""
    for previous, word in zip(["", *arguments], arguments, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            option = (word or (previous if previous.startswith("-") else "")).removesuffix("=")
            raise OptionError(f"{option or 'an argument'} is empty; write . for the current folder")


def run(arguments: list[str]) -> None:
    """Run a command line; see `hf_metaprune.cli.main`."""
    debug = "--debug" in arguments  # before or after the command
    if debug:
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    try:
        _check_arguments(arguments)
        app(arguments)
    except MetaPruneError as error:
        if debug:
            raise
        err.print(f"[bold red]error:[/] {escape_markup(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except SystemExit as error:
        if error.code == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
