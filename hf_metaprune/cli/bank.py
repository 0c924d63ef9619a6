"""The commands of ``hf-metaprune bank`` that build, list and check banks."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import TrunkOptions
from ..data.source_names import check_source
from ..errors import OptionError
from ..files.layout import BANK_FILE
from ..files.names import user_path
from ..files.storage import check_folder
from ..options import override
from ..text import quantity
from .checks import check_bank
from .commands import DEFAULT_METHOD, MethodCommand, method_values
from .options import with_options
from .output import Json, escape_markup, out, print_json, show_progress, sparkline, table

bank_app = typer.Typer(help="Build, list and check banks of pruned models.", no_args_is_help=True)

BINARY_COLUMNS = ("masks", "sketch", "class_means")
"""Columns of the index that are not shown, because people cannot read them."""
UNEVEN_SHARES = 0.1
"""Difference between the shares that two layers keep above which the shares of each layer are shown."""

BankRevision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a bank on the Hub.")]
BankArgument = Annotated[str, typer.Argument(help="Folder of a bank, or its id on the Hub.", metavar="BANK")]
Exclude = Annotated[list[str] | None, typer.Option(help="A class that is left out; may be given several times.")]
OwnBankArgument = Annotated[str, typer.Argument(help="Folder of a bank.", metavar="BANK")]


@bank_app.command("show")
def bank_show(bank: BankArgument, revision: BankRevision = None, as_json: Json = False) -> None:
    """List the entries of a bank."""
    check_bank(bank, revision)
    from ..bank.bank import open_bank
    from ..masks.packing import kept_counts

    opened_bank = open_bank(bank, revision=revision)
    if as_json:
        rows = [
            {k: v for k, v in e.row().items() if k not in BINARY_COLUMNS} | {"metrics": e.metrics} for e in opened_bank
        ]
        print_json({"name": opened_bank.name, "base_model": opened_bank.meta["base_model"], "entries": rows})
        return
    sizes = opened_bank.sizes
    shares = {
        e.id: [count / sizes[name] for name, count in kept_counts(e.packed_mask, sizes).items()] for e in opened_bank
    }
    is_uneven = any(max(values) - min(values) > UNEVEN_SHARES for values in shares.values() if values)
    header = ("entry", "labels", "method", "ratio", "accuracy", "kB", *(["kept per layer"] if is_uneven else []))
    entries = table(*header, title=escape_markup(repr(opened_bank)))
    for e in opened_bank:
        accuracy = e.metrics.get("accuracy")
        accuracy_text = f"{accuracy:.1%}" if isinstance(accuracy, float) else "-"
        row = [e.id, ", ".join(e.labels), str(e.method), str(e.ratio), accuracy_text, f"{e.size / 1000:.0f}"]
        entries.add_row(*map(escape_markup, [*row, sparkline(shares[e.id])] if is_uneven else row))
    out.print(entries)


@bank_app.command("explore")
def bank_explore(
    bank: BankArgument,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on.", min=1, max=65535)] = 7860,
    browse: Annotated[bool, typer.Option(help="Open the page in your browser.")] = True,
) -> None:
    """Show a bank in the browser: search its tasks, and see which keep the same units. Ctrl-C ends the command."""
    from .space import serve

    serve(bank, None, host, port, explore=True, browse=browse)


@bank_app.command("validate")
def bank_validate(
    bank: BankArgument,
    repair: Annotated[
        bool,
        typer.Option(help="Write a new index from the folders of valid entries, and move the other folders aside."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every entry: digests, shapes, masks, labels, values. Exit code 1 if anything is wrong."""
    check_bank(bank, None)
    from ..bank.bank import open_bank
    from ..bank.repair import repair_index
    from ..bank.validation import validate_bank
    from ..files.layout import REJECTED_FOLDER

    opened_bank, left_out = repair_index(bank) if repair else (open_bank(bank, strict=False), [])
    problems = validate_bank(opened_bank, progress=show_progress())
    if as_json:
        lists = {"problems": problems, "left_out": left_out}
        rows = {name: [{"entry": p.entry_id, "what": p.what} for p in items] for name, items in lists.items()}
        print_json({"entries": len(opened_bank)} | rows)
        raise typer.Exit(1 if problems else 0)
    for problem in left_out:
        out.print(f"[yellow]left out[/] {escape_markup(str(problem))}")
    for problem in problems:
        out.print(f"[red]✗[/] {escape_markup(str(problem))}")
    if left_out:
        out.print(
            "the folders of the entries that were left out are now in "
            f"{escape_markup(str(opened_bank.root / REJECTED_FOLDER))}"
        )
    n_without_sketch = sum(entry.sketch is None for entry in opened_bank)
    if repair and n_without_sketch:
        advice = f"`hf-metaprune bank sketch {escape_markup(bank)} DATA` adds sketches"
        out.print(f"{n_without_sketch} of the entries have no sketch: {advice}")
    out.print(f"{_entry_count(opened_bank)}, {quantity(len(problems), 'problem')}")
    raise typer.Exit(1 if problems else 0)


@bank_app.command("sketch")
def bank_sketch(
    bank: OwnBankArgument,
    data: Annotated[str, typer.Argument(help="Images like those of the bank's tasks.", metavar="DATA")],
    as_json: Json = False,
) -> None:
    """Add sketches and class means, which `bank build` adds itself, to entries without them.

    Sketches speed up the search in large banks. By class means entries vote on the classes that they know; they are
    made where DATA has all classes of an entry.
    """
    check_folder(bank)  # before what takes seconds to import
    check_source(data)
    from ..bank.bank import Bank
    from ..bank.factory import add_class_means, sketch_bank
    from ..data.loading import read_task_data

    opened_bank = Bank.open(bank)
    images = read_task_data(data, opened_bank.base.preprocessing, progress=show_progress())
    sketched_ids = sketch_bank(opened_bank, images.train, progress=show_progress())
    with_means_ids = add_class_means(opened_bank, images)
    if as_json:
        print_json({"bank": bank, "entries": len(opened_bank), "sketched": sketched_ids, "class_means": with_means_ids})
    else:
        sketch_count = quantity(len(sketched_ids), "sketch", "sketches")
        means_count = f"the class means of {quantity(len(with_means_ids), 'entry', 'entries')}"
        out.print(f"added {sketch_count} and {means_count}; {escape_markup(bank)} has {_entry_count(opened_bank)}")


@bank_app.command("trunk")
@with_options(TrunkOptions)
def bank_trunk(
    bank: OwnBankArgument,
    data: Annotated[str, typer.Argument(help="Images like those that models of the bank will see.", metavar="DATA")],
    base: Annotated[
        Path | None, typer.Option(help="Folder of the base model, for a bank that does not exist yet.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of batches, augmentation and sizes.")] = 0,
    dtype: Annotated[str, typer.Option(help="How weights are stored: float32, float16 or bfloat16.")] = "float16",
    exclude: Exclude = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Teach the trunk of a bank: one nested sub-network of its base for all sizes. If stopped, it goes on next time."""
    check_source(data)
    if base is None:
        check_folder(bank)
    else:
        check_folder(base)
    from ..bank.bank import Bank
    from ..bank.trunks import teach_bank
    from ..data.loading import read_task_data
    from ..data.task import pick_classes
    from ..models.base_model import BaseModel
    from ..models.saving import check_dtype

    settings = override(TrunkOptions(), options)
    check_dtype(dtype)
    opened_bank = Bank.open(bank) if base is None else Bank.create(bank, BaseModel.load(base), name=Path(bank).name)
    images = read_task_data(data, opened_bank.base.preprocessing, seed=seed, progress=show_progress())
    allowed_classes = _allowed_classes(images.task.labels, exclude)
    trunk = teach_bank(
        opened_bank,
        pick_classes(images.train, allowed_classes),
        settings,
        seed=seed,
        dtype=dtype,
        progress=show_progress(),
    )
    if as_json:
        print_json({"bank": bank, "ratios": trunk.ratios, "teaching": trunk.facts})
    else:
        out.print(f"{escape_markup(bank)} has a trunk of {quantity(len(trunk.ratios), 'size')}")


def _allowed_classes(labels: Sequence[str], excluded: Sequence[str] | None) -> list[int]:
    """Return the numbers of the classes that are not excluded.

    Raises:
        OptionError: there is no such class.
    """
    if unknown_labels := sorted(set(excluded or ()) - set(labels)):
        raise OptionError(f"--exclude {unknown_labels[0]}: the data has no such class; it has {', '.join(labels)}")
    return [number for number, label in enumerate(labels) if label not in set(excluded or ())]


@bank_app.command("build", cls=MethodCommand)
def bank_build(
    context: typer.Context,
    bank: OwnBankArgument,
    data: Annotated[str, typer.Argument(help="Data set with many classes; tasks are drawn from them.", metavar="DATA")],
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of the base model (timm or transformers), for a bank that does not exist yet."),
    ] = None,
    tasks: Annotated[int, typer.Option(help="Number of tasks.", min=1)] = 60,
    classes: Annotated[int, typer.Option(help="Classes per task.", min=2)] = 5,
    method: Annotated[str, typer.Option(help="Pruning method; each method adds its own options.")] = DEFAULT_METHOD,
    seed: Annotated[int, typer.Option(help="Seed of the drawn tasks and of the training.")] = 0,
    dtype: Annotated[str, typer.Option(help="How weights are stored: float32, float16 or bfloat16.")] = "float16",
    exclude: Exclude = None,
    as_json: Json = False,
) -> None:
    """Prune the base for tasks drawn from DATA. A stopped build continues, and several builds may run at once."""
    check_folder(bank if base is None else base)
    check_source(data)
    from ..bank.bank import Bank
    from ..bank.factory import build_bank, entry_ids
    from ..data.loading import read_task_data
    from ..data.task import draw_tasks
    from ..files.storage import check_writable
    from ..methods import get_method
    from ..models.base_model import BaseModel
    from ..models.saving import check_dtype

    settings = override(get_method(method).options(), method_values(context))
    check_dtype(dtype)
    check_writable(user_path(bank), overwrite=True)
    network = Bank.open(bank).base if base is None else BaseModel.load(base)
    if (user_path(bank) / BANK_FILE).exists():
        Bank.create(bank, network)  # so that another base is an error before images are read
    images = read_task_data(data, network.preprocessing, seed=seed, progress=show_progress())
    task_classes = draw_tasks(_allowed_classes(images.task.labels, exclude), classes, tasks, seed)
    opened_bank = Bank.create(bank, network, name=Path(bank).name, defaults={"ratio": settings.ratio})
    ids = entry_ids(images.task, task_classes, method, settings, seed)
    new_ids = []
    for entry in build_bank(
        opened_bank,
        images,
        task_classes,
        method=method,
        options=settings,
        seed=seed,
        dtype=dtype,
        progress=show_progress(),
    ):
        new_ids.append(entry.id)
        if not as_json:
            n_done = sum(entry_id in opened_bank for entry_id in ids)
            out.print(f"{n_done} of {tasks}: {escape_markup(entry.id)} {entry.metrics['accuracy']:.1%}")
    if as_json:
        print_json({"bank": bank, "entries": len(opened_bank), "made": new_ids})
    else:
        out.print(f"{escape_markup(bank)} has {_entry_count(opened_bank)}")


def _entry_count(bank: Sized) -> str:
    return quantity(len(bank), "entry", "entries")
