"""Commands that write to the Hub: ``publish``, and ``bank publish``, ``add``, ``remove`` and ``sync``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError
from ..text import counted
from .bank import BankArgument, bank_app
from .output import Json, escape_markup, out, print_json, show_progress

if TYPE_CHECKING:
    from ..bank.bank import Bank

RepoArgument = Annotated[str, typer.Argument(help="Repo on the Hub: owner/name.", metavar="REPO")]
Private = Annotated[bool | None, typer.Option("--private/--public", help="Who sees a repo that is made.")]
Revision = Annotated[str | None, typer.Option(help="Branch to write to; main if left out.")]
PullRequest = Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of writing.")]
License = Annotated[str | None, typer.Option("--license", help="License for the card, such as apache-2.0.")]


def publish(
    model: Annotated[Path, typer.Argument(help="Folder of an adapted model.", metavar="MODEL")],
    repo: RepoArgument,
    private: Private = None,
    revision: Revision = None,
    create_pr: PullRequest = False,
    license: License = None,
    dtype: Annotated[str, typer.Option(help="How weights are stored: float32, float16 or bfloat16.")] = "float16",
    as_json: Json = False,
) -> None:
    """Put MODEL with its card on the Hub. Needs a token: `hf auth login`, or HF_TOKEN."""
    from ..models.saving import check_dtype
    from ..reporting.publishing import publish_model
    from ..result import load_result

    check_dtype(dtype)
    done = publish_model(
        load_result(model), repo, private=private, revision=revision, create_pr=create_pr, license=license, dtype=dtype
    )
    if as_json:
        print_json({"url": done.url, "commits": done.commits})
    elif done.commits:
        out.print(f"Published: {escape_markup(done.url)}")
    else:
        out.print(f"Nothing had changed: {escape_markup(done.url)}")


@bank_app.command("publish")
def bank_publish(
    bank: Annotated[Path, typer.Argument(help="Folder of a bank.", metavar="BANK")],
    repo: RepoArgument,
    private: Private = None,
    revision: Revision = None,
    create_pr: PullRequest = False,
    license: License = None,
    as_json: Json = False,
) -> None:
    """Put BANK on the Hub; what is there already is not sent again. A publication that was cut goes on."""
    _publish(bank, repo, as_json, private=private, revision=revision, create_pr=create_pr, license=license)


@bank_app.command("sync")
def bank_sync(
    bank: Annotated[Path, typer.Argument(help="Folder of a bank.", metavar="BANK")],
    repo: RepoArgument,
    revision: Revision = None,
    create_pr: PullRequest = False,
    as_json: Json = False,
) -> None:
    """Make REPO have the entries of BANK and no others."""
    _publish(bank, repo, as_json, revision=revision, create_pr=create_pr, delete=True)


@bank_app.command("add")
def bank_add(
    bank: BankArgument,
    models: Annotated[
        list[Path], typer.Argument(help="Folders of models; their names become ids.", metavar="MODEL...")
    ],
    revision: Revision = None,
    create_pr: PullRequest = False,
    as_json: Json = False,
) -> None:
    """Add models to BANK; one on the Hub is not downloaded."""
    from ..bank.entry import check_id
    from ..bank.publish import add_entries
    from ..models.saving import load_model

    folders = {path.resolve().name.lower(): path for path in models}
    if len(folders) < len(models):
        raise typer.BadParameter("two of the folders have the same name, and would become one entry")
    own = _own_bank(bank, revision, create_pr)
    if own is None:
        _show(add_entries(bank, folders, revision=revision, create_pr=create_pr, progress=show_progress()), as_json)
        return
    loaded = {check_id(name): load_model(folder) for name, folder in folders.items()}
    for name, model in loaded.items():
        own.add(model, name)
    _show_own(own, f"{counted(len(loaded), 'entry', 'entries')} added", {"added": list(loaded)}, as_json)


@bank_app.command("remove")
def bank_remove(
    bank: BankArgument,
    entries: Annotated[list[str], typer.Argument(help="Ids of entries.", metavar="ENTRY...")],
    revision: Revision = None,
    create_pr: PullRequest = False,
    as_json: Json = False,
) -> None:
    """Remove entries from BANK; one on the Hub is not downloaded."""
    from ..bank.publish import remove_entries

    own = _own_bank(bank, revision, create_pr)
    if own is None:
        _show(remove_entries(bank, entries, revision=revision, create_pr=create_pr), as_json)
        return
    for entry_id in entries:
        own[entry_id]  # all are known before any goes
    for entry_id in entries:
        own.remove(entry_id)
    _show_own(own, f"{counted(len(entries), 'entry', 'entries')} removed", {"removed": entries}, as_json)


def _own_bank(bank: str, revision: str | None, create_pr: bool) -> Bank | None:
    """The bank in a folder of this machine; None for the id of one on the Hub."""
    from ..bank.bank import Bank
    from ..files.names import is_repo_id

    if not Path(bank).expanduser().exists() and is_repo_id(bank):
        return None
    if revision is not None or create_pr:
        raise OptionError(
            f"--revision and --create-pr are for banks on the Hub, but {bank} is a folder of this machine"
        )
    return Bank.open(bank)


def _show_own(bank: Bank, done: str, ids: dict[str, list[str]], as_json: bool) -> None:
    if as_json:
        print_json({"bank": bank.title, "entries": len(bank)} | ids)
    else:
        out.print(f"{done}; {escape_markup(bank.title)} has {counted(len(bank), 'entry', 'entries')}")


def _publish(bank: Path, repo: str, as_json: bool, **options: Any) -> None:
    """`options`: those of `publish_bank`."""
    from ..bank.bank import Bank
    from ..bank.publish import publish_bank

    _show(publish_bank(Bank.open(bank), repo, progress=show_progress(), **options), as_json)


def _show(done: object, as_json: bool) -> None:
    from dataclasses import asdict

    from ..bank.publish import Published

    assert isinstance(done, Published)
    if as_json:
        print_json(asdict(done))
        return
    if not done.commits:
        out.print(f"Nothing had changed: {escape_markup(done.url)}")
        return
    added, commits = counted(len(done.added), "entry", "entries"), counted(len(done.commits), "commit")
    out.print(f"{added} added, {len(done.removed)} removed in {commits}: {escape_markup(done.url)}")
