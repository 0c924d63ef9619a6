"""Commands that write to the Hub: ``publish``, and ``bank publish``, ``add``, ``remove`` and ``sync``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .bank import bank_app
from .output import Json, note, out, plain, print_json, show_progress

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
    from ..result import load_result

    check_dtype(dtype)
    url = load_result(model).push_to_hub(
        repo, private=private, revision=revision, create_pr=create_pr, license=license, dtype=dtype
    )
    if as_json:
        print_json({"url": url})
    else:
        out.print(f"Published: {plain(url)}")


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
    _publish(bank, repo, private, revision, create_pr, license, False, as_json)


@bank_app.command("sync")
def bank_sync(
    bank: Annotated[Path, typer.Argument(help="Folder of a bank.", metavar="BANK")],
    repo: RepoArgument,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Make REPO have the entries of BANK and no others."""
    _publish(bank, repo, None, revision, False, None, True, as_json)


@bank_app.command("add")
def bank_add(
    repo: RepoArgument,
    models: Annotated[
        list[Path], typer.Argument(help="Folders of models; their names become ids.", metavar="MODEL...")
    ],
    revision: Revision = None,
    create_pr: PullRequest = False,
    as_json: Json = False,
) -> None:
    """Add models to the bank REPO on the Hub, without downloading it."""
    from ..bank.publish import add_entries

    folders = {path.resolve().name.lower(): path for path in models}
    if len(folders) < len(models):
        raise typer.BadParameter("two of the folders have the same name, and would become one entry")
    _show(add_entries(repo, folders, revision=revision, create_pr=create_pr, progress=show_progress()), as_json)


@bank_app.command("remove")
def bank_remove(
    repo: RepoArgument,
    entries: Annotated[list[str], typer.Argument(help="Ids of entries.", metavar="ENTRY...")],
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Remove entries from the bank REPO on the Hub, without downloading it."""
    from ..bank.publish import remove_entries

    _show(remove_entries(repo, entries, revision=revision), as_json)


def _publish(
    bank: Path,
    repo: str,
    private: bool | None,
    revision: str | None,
    create_pr: bool,
    license: str | None,
    delete: bool,
    as_json: bool,
) -> None:
    from ..bank.bank import Bank
    from ..bank.publish import publish_bank

    opened = Bank.open(bank)
    done = publish_bank(
        opened, repo, private=private, revision=revision, create_pr=create_pr, license=license, delete=delete,
        progress=show_progress(),
    )  # fmt: skip
    _show(done, as_json)


def _show(done: object, as_json: bool) -> None:
    from dataclasses import asdict

    from ..bank.publish import Published

    assert isinstance(done, Published)
    if as_json:
        print_json(asdict(done))
        return
    if not done.commits:
        note("nothing had changed")
    commits = f"{len(done.commits)} commit{'s' if len(done.commits) != 1 else ''}"
    out.print(f"{len(done.added)} entries added, {len(done.removed)} removed in {commits}: {plain(done.url)}")
