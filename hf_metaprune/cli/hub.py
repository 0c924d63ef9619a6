"""Commands that write to the Hub: ``publish``, and ``bank publish``, ``sync``, ``add`` and ``remove``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError
from ..files.names import is_repo_id, user_path
from ..files.storage import check_folder
from ..text import quantity
from .bank import BankArgument, bank_app
from .output import Json, escape_markup, out, print_json, show_progress

if TYPE_CHECKING:
    from ..bank.bank import Bank

RepoArgument = Annotated[str, typer.Argument(help="Repo on the Hub: owner/name.", metavar="REPO")]
Private = Annotated[bool | None, typer.Option("--private/--public", help="Visibility of a new repo.")]
Revision = Annotated[str | None, typer.Option(help="Branch to write to; main by default.")]
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
    """Upload MODEL with its card to the Hub. This needs a token: `hf auth login`, or HF_TOKEN."""
    check_folder(model)  # before what takes seconds to import
    from ..models.saving import check_dtype
    from ..reporting.publishing import publish_model
    from ..result import load_result

    check_dtype(dtype)
    published = publish_model(
        load_result(model), repo, private=private, revision=revision, create_pr=create_pr, license=license, dtype=dtype
    )
    if as_json:
        print_json({"url": published.url, "commits": published.commits})
    elif published.commits:
        out.print(f"Published: {escape_markup(published.url)}")
    else:
        out.print(f"Nothing had changed: {escape_markup(published.url)}")


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
    """Upload BANK to the Hub. Files that are there already are not sent again, so a stopped upload continues."""
    _publish(bank, repo, as_json, private=private, revision=revision, create_pr=create_pr, license=license)


@bank_app.command("sync")
def bank_sync(
    bank: Annotated[Path, typer.Argument(help="Folder of a bank.", metavar="BANK")],
    repo: RepoArgument,
    revision: Revision = None,
    create_pr: PullRequest = False,
    as_json: Json = False,
) -> None:
    """Upload BANK to REPO, and remove all other entries from REPO."""
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
    """Add models to BANK; a bank on the Hub is not downloaded."""
    for path in models:
        check_folder(path)  # before what takes seconds to import
    folders = {path.resolve().name.lower(): path for path in models}
    if len(folders) < len(models):
        raise typer.BadParameter("two of the folders have the same name, which becomes the id of the entry: rename one")
    local_bank = _open_local_bank(bank, revision, create_pr)
    from ..bank.entry import check_id
    from ..bank.publish import add_entries
    from ..models.saving import load_model

    if local_bank is None:
        _show_published(
            add_entries(bank, folders, revision=revision, create_pr=create_pr, progress=show_progress()), as_json
        )
        return
    models_by_id = {check_id(name): load_model(folder) for name, folder in folders.items()}
    for name, model in models_by_id.items():
        local_bank.check_addition(model, name)  # a mistake is an error before any entry is added
    for name, model in models_by_id.items():
        local_bank.add(model, name)
    _show_local_change(
        local_bank, f"{quantity(len(models_by_id), 'entry', 'entries')} added", {"added": list(models_by_id)}, as_json
    )


@bank_app.command("remove")
def bank_remove(
    bank: BankArgument,
    entries: Annotated[list[str], typer.Argument(help="Ids of entries.", metavar="ENTRY...")],
    revision: Revision = None,
    create_pr: PullRequest = False,
    as_json: Json = False,
) -> None:
    """Remove entries from BANK; a bank on the Hub is not downloaded."""
    local_bank = _open_local_bank(bank, revision, create_pr)
    if local_bank is None:
        from ..bank.publish import remove_entries

        _show_published(remove_entries(bank, entries, revision=revision, create_pr=create_pr), as_json)
        return
    for entry_id in entries:
        local_bank[entry_id]  # an unknown id is an error before any entry is removed
    for entry_id in entries:
        local_bank.remove(entry_id)
    _show_local_change(
        local_bank, f"{quantity(len(entries), 'entry', 'entries')} removed", {"removed": entries}, as_json
    )


def _open_local_bank(bank: str, revision: str | None, create_pr: bool) -> Bank | None:
    """Open a bank in a folder of this machine; return None for the id of a bank on the Hub."""
    if not user_path(bank).exists() and is_repo_id(bank):
        return None
    if revision is not None or create_pr:
        raise OptionError(
            f"--revision and --create-pr are for banks on the Hub, but {bank} is a folder of this machine"
        )
    check_folder(bank)  # before what takes seconds to import
    from ..bank.bank import Bank

    return Bank.open(bank)


def _show_local_change(bank: Bank, change: str, ids: dict[str, list[str]], as_json: bool) -> None:
    if as_json:
        print_json({"bank": bank.title, "entries": len(bank)} | ids)
    else:
        out.print(f"{change}; {escape_markup(bank.title)} has {quantity(len(bank), 'entry', 'entries')}")


def _publish(bank: Path, repo: str, as_json: bool, **options: Any) -> None:
    """Publish a bank; `options` are those of `publish_bank`."""
    check_folder(bank)  # before what takes seconds to import
    from ..bank.bank import Bank
    from ..bank.publish import publish_bank

    _show_published(publish_bank(Bank.open(bank), repo, progress=show_progress(), **options), as_json)


def _show_published(published: object, as_json: bool) -> None:
    from dataclasses import asdict

    from ..bank.publish import Published

    assert isinstance(published, Published)
    if as_json:
        print_json(asdict(published))
        return
    if not published.commits:
        out.print(f"Nothing had changed: {escape_markup(published.url)}")
        return
    added, commits = quantity(len(published.added), "entry", "entries"), quantity(len(published.commits), "commit")
    out.print(f"{added} added, {len(published.removed)} removed in {commits}: {escape_markup(published.url)}")
