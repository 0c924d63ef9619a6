"""The `hf-metaprune` command: parse, call, print."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .cli_options import with_options
from .config import AdaptOptions, MethodOptions, TrainingOptions, override
from .errors import MetaPruneError, OptionError
from .version import __version__

INTERRUPTED = 130  # what typer exits with on Ctrl-C

app = typer.Typer(
    help="Small, task-specific image models by meta-vote pruning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
bank_app = typer.Typer(help="Build, list and check banks of pruned models.", no_args_is_help=True)
app.add_typer(bank_app, name="bank")
out, err = Console(), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
BankArgument = Annotated[str, typer.Argument(help="Folder of a bank.", metavar="BANK")]


def plain(text: str) -> str:
    """Text of others for the terminal: no markup, no control characters."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def _progress() -> bool:
    return sys.stderr.isatty()


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _version(show: bool) -> None:
    if show:
        out.print(f"hf-metaprune {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@app.command()
@with_options(AdaptOptions, TrainingOptions)
def adapt(
    bank: BankArgument,
    data: Annotated[str, typer.Argument(help="Folder of class folders, parquet, or a Hub data set id.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the model and its report.")],
    dtype: Annotated[str, typer.Option(help="How weights are stored: float32, float16 or bfloat16.")] = "float32",
    overwrite: Annotated[bool, typer.Option(help="Replace the folder if it exists.")] = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Make a small model for the classes of DATA from the entries of BANK."""
    from .models.saving import check_dtype
    from .pruner import MetaPruner
    from .result import MODEL_FILES
    from .storage import check_writable

    check_dtype(dtype)
    pruner = MetaPruner.from_hub(bank)
    check_writable(out_dir, overwrite=overwrite and MODEL_FILES, need=pruner.bank.base_bytes)
    result = pruner.adapt(data, progress=_progress(), **options)
    result.save_pretrained(out_dir, dtype=dtype, overwrite=overwrite)
    if as_json:
        _print_json(result.report.to_dict() | {"out": str(out_dir)})
        return
    show_report(result.report.to_dict())
    out.print(f"\nSaved to [bold]{plain(str(out_dir))}[/]; try: hf-metaprune predict {plain(str(out_dir))} IMAGE")


def show_report(report: dict[str, Any]) -> None:
    """Print the main figures of a report."""
    table = Table("neighbour", "similarity", "labels", title="Neighbours that voted")
    for n in report["neighbours"]:
        table.add_row(plain(n["id"]), f"{n['score']:.3f}", plain(", ".join(n["labels"])))
    if report["neighbours"]:
        out.print(table)
    steps = ", ".join(f"{a:.1%} after {s}" for s, a in report["accuracy_at_step"].items())
    on = plain(report["evaluated_on"])
    out.print(f"Accuracy [bold]{report['accuracy']:.1%}[/] on {report['test_images']} images ({on}): {steps} steps")
    share_p, share_m = report["params"] / report["base_params"], report["macs"] / report["base_macs"]
    out.print(f"{report['params']:,} parameters ({share_p:.1%} of the base), {report['macs']:,} MACs ({share_m:.1%})")
    out.print(
        f"{sum(report['seconds'].values()):.1f} s in all, {report['seconds'].get('fine-tune', 0):.1f} s of it training"
    )
    for note in report["notes"]:
        err.print(f"[yellow]note:[/] {plain(note)}")
    if report["skipped_images"]:
        err.print(f"[yellow]note:[/] {len(report['skipped_images'])} unreadable images were skipped")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of an adapted model.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    as_json: Json = False,
) -> None:
    """Classify images with an adapted model."""
    from .result import load_result

    found = load_result(model).predict(images)
    if as_json:
        _print_json([{"image": str(p), **f} for p, f in zip(images, found, strict=True)])
        return
    table = Table("image", "label", "score")
    for path, f in zip(images, found, strict=True):
        table.add_row(plain(str(path)), plain(f["label"]), f"{f['score']:.1%}")
    out.print(table)


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="Folder of an adapted model or of a bank's entry.")],
    as_json: Json = False,
) -> None:
    """Show what a pruned model keeps, layer by layer."""
    from .result import load_result

    loaded = load_result(model).model
    mask, config = loaded.mask(), loaded.config
    params = sum(p.numel() for p in loaded.parameters())
    layers = {name: {"kept": len(kept), "size": mask.sizes[name]} for name, kept in mask.items()}
    labels = [config.id2label[i] for i in range(config.num_labels)]
    facts = {"labels": labels, "ratio": config.ratio, "method": config.method, "params": params, "layers": layers}
    facts |= {"base_model": config.base_model, "metrics": config.metrics, "dataset": config.dataset}
    if as_json:
        _print_json(facts)
        return
    out.print(f"[bold]{plain(', '.join(labels))}[/]")
    base = config.base_model or {}
    made = f"{plain(str(config.method))} at ratio {config.ratio} of {plain(str(base.get('architecture')))}"
    out.print(f"{made}: {params:,} parameters; measured: {plain(json.dumps(config.metrics))}")
    table = Table("layer", "kept", "of", "units")
    for name, kept in mask.items():
        table.add_row(plain(name), str(len(kept)), str(mask.sizes[name]), _ticks(kept, mask.sizes[name]))
    out.print(table)


def _ticks(kept: Iterable[int], size: int, width: int = 48) -> str:
    """Which units stay, as shades over `width` cells."""
    cells = [0.0] * min(width, size)
    for unit in kept:
        cells[int(unit) * len(cells) // size] += len(cells) / size
    return "".join(" ░▒▓█"[min(4, round(4 * c + 0.49))] if c else "·" for c in cells)


@bank_app.command("show")
def bank_show(bank: BankArgument, as_json: Json = False) -> None:
    """List the entries of a bank."""
    from .bank.bank import Bank

    opened = Bank.open(bank)
    if as_json:
        rows = [{k: v for k, v in e.row().items() if k != "masks"} | {"metrics": e.metrics} for e in opened]
        _print_json({"name": opened.name, "base_model": opened.meta["base_model"], "entries": rows})
        return
    table = Table("entry", "labels", "method", "ratio", "accuracy", "kB", title=plain(repr(opened)))
    for e in opened:
        found = e.metrics.get("accuracy")
        shown = f"{found:.1%}" if isinstance(found, float) else "-"
        row = (e.id, ", ".join(e.labels), str(e.method), str(e.ratio), shown, f"{e.size / 1000:.0f}")
        table.add_row(*map(plain, row))
    out.print(table)


@bank_app.command("validate")
def bank_validate(
    bank: BankArgument,
    repair: Annotated[bool, typer.Option(help="Make the index anew from the folders of sound entries.")] = False,
    as_json: Json = False,
) -> None:
    """Check every entry: digests, shapes, masks, labels, values. Exit code 1 if anything is wrong."""
    from .bank.bank import Bank
    from .bank.validation import repair_index, validate_bank

    opened = repair_index(bank) if repair else Bank.open(bank)
    problems = validate_bank(opened, progress=_progress())
    if as_json:
        _print_json({"entries": len(opened), "problems": [{"entry": p.entry_id, "what": p.what} for p in problems]})
    for problem in [] if as_json else problems:
        out.print(f"[red]✗[/] {plain(str(problem))}")
    if not as_json:
        out.print(f"{len(opened)} entries, {len(problems)} problems")
    raise typer.Exit(1 if problems else 0)


@bank_app.command("build")
@with_options(MethodOptions)
def bank_build(
    bank: BankArgument,
    data: Annotated[str, typer.Argument(help="Data set with many classes, from which tasks are drawn.")],
    base: Annotated[Path, typer.Option(help="Folder of the base model (timm or transformers).")],
    tasks: Annotated[int, typer.Option(help="Number of tasks.", min=1)] = 60,
    classes: Annotated[int, typer.Option(help="Classes a task.", min=2)] = 5,
    method: Annotated[str, typer.Option(help="Pruning method.")] = "ifp",
    seed: Annotated[int, typer.Option(help="Seed of the draw and of all training.")] = 0,
    dtype: Annotated[str, typer.Option(help="How weights are stored.")] = "float16",
    exclude: Annotated[list[str] | None, typer.Option(help="A class to keep out of every task; repeatable.")] = None,
    **options: Any,
) -> None:
    """Prune BASE for tasks drawn from DATA; goes on where a killed build stopped, and may run several times at once."""
    from .bank.bank import Bank
    from .bank.factory import build_bank
    from .methods import get_method
    from .models.base import BaseModel
    from .models.saving import check_dtype
    from .reading import read_task_data
    from .task import draw_tasks

    settings = override(MethodOptions(), options)
    check_dtype(dtype)
    get_method(method)
    opened = Bank.create(bank, BaseModel.load(base), name=Path(bank).name, defaults={"ratio": settings.ratio})
    images = read_task_data(data, opened.base.preprocessing, seed=seed, progress=_progress())
    unknown = sorted(set(exclude or ()) - set(images.task.labels))
    if unknown:
        raise OptionError(f"--exclude {unknown[0]}: the data has no such class; it has {', '.join(images.task.labels)}")
    allowed = [i for i, label in enumerate(images.task.labels) if label not in set(exclude or ())]
    drawn = draw_tasks(allowed, classes, tasks, seed)
    for entry in build_bank(
        opened, images, drawn, method=method, options=settings, seed=seed, dtype=dtype, progress=_progress()
    ):
        out.print(f"{len(opened)} of {tasks}: {plain(entry.id)} {entry.metrics['accuracy']:.1%}")
    out.print(f"{plain(bank)} has {len(opened)} entries")


@app.command()
def demo(
    bank: Annotated[
        Path | None, typer.Option(help="Bank to use; the one that comes with the project if left out.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Example task; the one that comes with the project if left out.")
    ] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the model and its report.")] = Path("demo_model"),
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: Json = False,
) -> None:
    """Adapt the demo bank to an example task that no entry knows, beside the best way without a bank."""
    from .demo import run_demo

    run_demo(bank, data, out_dir, seed, _print_json if as_json else None, out, _progress())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends with one line and exit code 1 (2 for wrong usage, 130 for Ctrl-C)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(arguments)
    except MetaPruneError as error:
        if "--debug" in arguments:
            raise
        err.print(f"[bold red]error:[/] {plain(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except SystemExit as done:
        if done.code == INTERRUPTED:
            err.print("stopped; nothing is half written")
        raise
