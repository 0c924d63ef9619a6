"""``hf-metaprune bank``: build, list and check banks."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import override
from ..errors import OptionError
from ..files.layout import BANK_FILE
from ..text import counted
from .commands import DEFAULT_METHOD, MethodCommand
from .options import with_options
from .output import Json, escape_markup, out, print_json, show_progress, sparkline, table

bank_app = typer.Typer(help="Build, list and check banks of pruned models.", no_args_is_help=True)

BINARY = ("masks", "sketch")
"""Columns of the index that nobody can read."""
UNEVEN = 0.1
"""Difference of the shares that two layers keep, from which on each entry's are shown."""

BankRevision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a bank on the Hub.")]
BankArgument = Annotated[str, typer.Argument(help="Folder of a bank, or its id on the Hub.", metavar="BANK")]
OwnBankArgument = Annotated[str, typer.Argument(help="Folder of a bank.", metavar="BANK")]


@bank_app.command("show")
def bank_show(bank: BankArgument, revision: BankRevision = None, as_json: Json = False) -> None:
    """List the entries of a bank."""
    from ..bank.bank import open_bank

    opened = open_bank(bank, revision=revision)
    if as_json:
        rows = [{k: v for k, v in e.row().items() if k not in BINARY} | {"metrics": e.metrics} for e in opened]
        print_json({"name": opened.name, "base_model": opened.meta["base_model"], "entries": rows})
        return
    shares = {e.id: [len(kept) / e.mask.sizes[name] for name, kept in e.mask.items()] for e in opened}
    uneven = any(max(found) - min(found) > UNEVEN for found in shares.values() if found)
    header = ("entry", "labels", "method", "ratio", "accuracy", "kB", *(["kept by layer"] if uneven else []))
    entries = table(*header, title=escape_markup(repr(opened)))
    for e in opened:
        found = e.metrics.get("accuracy")
        shown = f"{found:.1%}" if isinstance(found, float) else "-"
        row = [e.id, ", ".join(e.labels), str(e.method), str(e.ratio), shown, f"{e.size / 1000:.0f}"]
        entries.add_row(*map(escape_markup, [*row, sparkline(shares[e.id])] if uneven else row))
    out.print(entries)


@bank_app.command("explore")
def bank_explore(
    bank: BankArgument,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on.", min=1, max=65535)] = 7860,
    browse: Annotated[bool, typer.Option(help="Open it in your browser.")] = True,
) -> None:
    """Look at a bank in the browser: search its tasks, see which keep the same units; Ctrl-C ends it."""
    from .space import serve

    serve(bank, None, host, port, explore=True, browse=browse)


@bank_app.command("validate")
def bank_validate(
    bank: BankArgument,
    repair: Annotated[
        bool, typer.Option(help="Make the index anew from the folders of sound entries; set the others aside.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every entry: digests, shapes, masks, labels, values. Exit code 1 if anything is wrong."""
    from ..bank.bank import open_bank
    from ..bank.repair import repair_index
    from ..bank.validation import validate_bank
    from ..files.layout import REJECTED_FOLDER

    opened, left_out = repair_index(bank) if repair else (open_bank(bank, strict=False), [])
    problems = validate_bank(opened, progress=show_progress())
    if as_json:
        listed = {"problems": problems, "left_out": left_out}
        rows = {name: [{"entry": p.entry_id, "what": p.what} for p in found] for name, found in listed.items()}
        print_json({"entries": len(opened)} | rows)
        raise typer.Exit(1 if problems else 0)
    for problem in left_out:
        out.print(f"[yellow]left out[/] {escape_markup(str(problem))}")
    for problem in problems:
        out.print(f"[red]✗[/] {escape_markup(str(problem))}")
    if left_out:
        out.print(
            f"what there is of entries that were left out lies in {escape_markup(str(opened.root / REJECTED_FOLDER))}"
        )
    blind = sum(entry.sketch is None for entry in opened)
    if repair and blind:
        out.print(
            f"{blind} of the entries have no sketch: `hf-metaprune bank sketch {escape_markup(bank)} DATA` makes them"
        )
    out.print(f"{_entries(opened)}, {counted(len(problems), 'problem')}")
    raise typer.Exit(1 if problems else 0)


@bank_app.command("sketch")
def bank_sketch(
    bank: OwnBankArgument,
    data: Annotated[str, typer.Argument(help="Images of the kind that the bank's tasks have.", metavar="DATA")],
    as_json: Json = False,
) -> None:
    """Add what large banks are searched by to entries that lack it; `bank build` does so by itself."""
    from ..bank.bank import Bank
    from ..bank.factory import sketch_bank
    from ..data.loading import read_task_data

    opened = Bank.open(bank)
    images = read_task_data(data, opened.base.preprocessing, progress=show_progress())
    made = sketch_bank(opened, images.train, progress=show_progress())
    if as_json:
        print_json({"bank": bank, "entries": len(opened), "sketched": made})
    else:
        out.print(f"made {counted(len(made), 'sketch', 'sketches')}; {escape_markup(bank)} has {_entries(opened)}")


@bank_app.command("build", cls=MethodCommand)
@with_options()
def bank_build(
    bank: OwnBankArgument,
    data: Annotated[
        str, typer.Argument(help="Data set with many classes, from which tasks are drawn.", metavar="DATA")
    ],
    base: Annotated[Path, typer.Option(help="Folder of the base model (timm or transformers).")],
    tasks: Annotated[int, typer.Option(help="Number of tasks.", min=1)] = 60,
    classes: Annotated[int, typer.Option(help="Classes a task.", min=2)] = 5,
    method: Annotated[str, typer.Option(help="Pruning method; it has options of its own.")] = DEFAULT_METHOD,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of all training.")] = 0,
    dtype: Annotated[str, typer.Option(help="How weights are stored.")] = "float16",
    exclude: Annotated[list[str] | None, typer.Option(help="A class to keep out of every task; repeatable.")] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Prune BASE for tasks drawn from DATA; goes on where a killed build stopped, and may run several times at once."""
    from ..bank.bank import Bank
    from ..bank.factory import build_bank, entry_ids
    from ..data.loading import read_task_data
    from ..data.task import draw_tasks
    from ..files.storage import check_writable
    from ..methods import get_method
    from ..models.base_model import BaseModel
    from ..models.saving import check_dtype

    settings = override(get_method(method).options(), options)
    check_dtype(dtype)
    check_writable(Path(bank).expanduser(), overwrite=True)
    network = BaseModel.load(base)
    if (Path(bank).expanduser() / BANK_FILE).exists():
        Bank.create(bank, network)  # another base is refused before images are read
    images = read_task_data(data, network.preprocessing, seed=seed, progress=show_progress())
    unknown = sorted(set(exclude or ()) - set(images.task.labels))
    if unknown:
        raise OptionError(f"--exclude {unknown[0]}: the data has no such class; it has {', '.join(images.task.labels)}")
    allowed = [i for i, label in enumerate(images.task.labels) if label not in set(exclude or ())]
    drawn = draw_tasks(allowed, classes, tasks, seed)
    opened = Bank.create(bank, network, name=Path(bank).name, defaults={"ratio": settings.ratio})
    ids = entry_ids(images.task, drawn, method, settings, seed)
    made = []
    for entry in build_bank(
        opened, images, drawn, method=method, options=settings, seed=seed, dtype=dtype, progress=show_progress()
    ):
        made.append(entry.id)
        if not as_json:
            done = sum(one in opened for one in ids)
            out.print(f"{done} of {tasks}: {escape_markup(entry.id)} {entry.metrics['accuracy']:.1%}")
    if as_json:
        print_json({"bank": bank, "entries": len(opened), "made": made})
    else:
        out.print(f"{escape_markup(bank)} has {_entries(opened)}")


def _entries(bank: Sized) -> str:
    return counted(len(bank), "entry", "entries")
