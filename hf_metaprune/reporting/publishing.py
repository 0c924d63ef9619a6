"""Publishing one pruned model: its files, its report and its card, in one commit."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError, HubError
from ..files.layout import BANK_FILE, CARD, CONFIG, MODEL_FILES, WEIGHTS
from ..files.names import is_repo_id
from ..files.storage import parse_json
from ..hub.files import MAX_SMALL_BYTES
from ..hub.repo import NOBODYS, Operation, Published, Repo, read_text
from ..models.configuration import MetaPrunedConfig
from ..models.modeling import MetaPrunedForImageClassification
from .adapted import Adapted
from .card import MAX_CARD_BYTES, is_edited, split, takes_own
from .misclassified import Mistake
from .model_card import ModelCard
from .model_files import write_model_files
from .report import AdaptReport


@dataclass
class _Public:
    """What others may see of a result."""

    model: MetaPrunedForImageClassification
    report: AdaptReport
    folder: Path | None = None
    mistakes: Sequence[Mistake] = ()


log = logging.getLogger(__name__)


def publish_model(
    result: Adapted,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    license: str | None = None,
    dtype: str = "float16",
) -> Published:
    """Put a model into a repo of the Hub, made if need be, in one commit; none if it is there already.

    A card that was edited by hand keeps its text: the one there, or that of the folder the model was loaded from.

    Args:
        repo_id: ``owner/name``.
        private: whether a repo that is made is private; if left out, as its owner has set it.
        revision: a branch to write to, made if need be; ``main`` if left out.
        create_pr: open a pull request instead of writing.
        token: with write access; if left out, that of the user's login or of ``HF_TOKEN``.
        license: for the card, such as ``apache-2.0``.
        dtype: how the weights are stored: ``float32``, ``float16`` or ``bfloat16``.

    Raises:
        HubError: there is no token, it may not write there, the repo holds a bank, or the Hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    with tempfile.TemporaryDirectory() as name:
        shown, folder = _Public(result.model, result.report.public()), Path(name)
        write_model_files(shown, folder, repo_id, dtype=dtype)
        card = ModelCard.from_result(shown, repo_id, license, folder)
        _check_base_id(card, repo)
        own = _own_card(result)
        files = {path.name: path for path in sorted(folder.iterdir()) if path.name != CARD}
        repo.ensure(private)

        def operations(head: str) -> list[Operation]:
            there = repo.sizes([*MODEL_FILES, BANK_FILE], head)
            if BANK_FILE in there:
                raise HubError(f"{repo_id} holds a bank: choose another name, or use `hf-metaprune bank add`")
            _check_ours(repo, head)
            existing = read_text(repo, CARD, head, MAX_CARD_BYTES) if CARD in there else None
            if own is not None and existing is not None and is_edited(own) and not takes_own(existing, own):
                log.warning("the card on the Hub was edited there and keeps its text; that of the folder is not sent")
            made: list[Operation] = [CommitOperationAdd(name, path) for name, path in files.items()]
            content = card.render(existing, own)
            _check_card(content, card.facts(), repo_id)
            made.append(CommitOperationAdd(CARD, content.encode()))
            stale = sorted(there.keys() - files.keys() - {CARD})
            return made + [CommitOperationDelete(name) for name in stale]

        commit = repo.commit(operations, f"Publish a model for {len(result.report.labels)} classes")
    return Published(repo.url, commits=[commit] if commit else [])


def _own_card(result: Adapted) -> str | None:
    """The card in the folder that a model was loaded from, which people may have edited."""
    path = result.folder / CARD if result.folder is not None else None
    if path is None or not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise FormatError(f"it has more than {MAX_CARD_BYTES} bytes")
        content = path.read_bytes().decode("utf-8", "replace")
        split(content)
    except FormatError as error:
        log.warning("%s is not sent: %s", path, error)
        return None
    return content


def _check_base_id(card: ModelCard, repo: Repo) -> None:
    """Name the base's repo only if its weights are those of the base: a bank's maker may say anything."""
    base_id = card.base.get("repo_id")
    if not isinstance(base_id, str) or not is_repo_id(base_id):
        return
    found = None
    with suppress(HubError):
        found = repo.file_digest(base_id, WEIGHTS, card.base.get("revision"))
    if found != card.base.get("sha256"):
        log.warning("the card does not name %s: its weights are not known to be the base's", base_id)
        card.config["base_model"] = card.base | {"repo_id": None}


def _check_ours(repo: Repo, head: str) -> None:
    """Refuse to write where something lies that is no model of this library.

    Raises:
        HubError: there is something.
    """
    names = repo.names(head)
    if names <= NOBODYS:
        return
    kind: Any = None
    if CONFIG in names:
        with suppress(ValueError):
            found = parse_json(read_text(repo, CONFIG, head, MAX_SMALL_BYTES))
            kind = found.get("model_type") if isinstance(found, dict) else None
    if kind != MetaPrunedConfig.model_type:
        other = next(iter(sorted(names - NOBODYS)))
        raise HubError(f"{repo.repo_id} holds something else ({other}): choose another name")


def _check_card(content: str, facts: dict[str, Any], repo_id: str) -> None:
    """Refuse a card that was edited so that it cannot say what the new model is: no search would take the model.

    Raises:
        HubError: says so.
    """
    with suppress(FormatError):
        if split(content)[0].get("metaprune") == facts:
            return
    raise HubError(
        f"the README.md of {repo_id} cannot be brought up to date, since its YAML cannot be read: mend it there, or "
        "delete it, and publish again"
    )
