"""Publishing one pruned model: its files, its report and its card, in one commit."""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError, HubError, StorageError, reason
from ..files.layout import BANK_FILE, CARD, CONFIG, MODEL_FILES, PREPROCESSOR, WEIGHTS
from ..files.names import is_repo_id
from ..files.reading import check_regular, is_present, read_regular
from ..files.storage import parse_json
from ..hub.files import MAX_SMALL_BYTES
from ..hub.repo import STARTER_FILES, Operation, Published, Repo, read_text
from ..masks.packing import pack_mask
from ..models.configuration import MetaPrunedConfig
from ..models.modeling import MetaPrunedForImageClassification
from ..models.public_files import is_public, public_json
from .adapted import AdaptedModel
from .card import MAX_CARD_BYTES, is_edited, sends_own_text, split_card
from .misclassified import Mistake
from .model_card import ModelCard
from .model_files import write_model_files
from .report import AdaptReport


@dataclass
class _PublicResult:
    """The parts of a result that may be published: no mistakes, no folder, and a report without notes."""

    model: MetaPrunedForImageClassification
    report: AdaptReport
    folder: Path | None = None
    mistakes: Sequence[Mistake] = ()


log = logging.getLogger(__name__)


def publish_model(
    result: AdaptedModel,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    license: str | None = None,
    dtype: str = "float16",
) -> Published:
    """Publish a model in a repo of the Hub, which is made if needed, in one commit.

    If the repo has the same files already, no commit is made. A card that was edited by hand keeps its text: the
    published card, or else that in the folder that the model was loaded from.

    Args:
        result: the model and its report.
        repo_id: ``owner/name``.
        private: whether a new repo is private; if left out, the owner's default holds.
        revision: a branch to write to, made if needed; ``main`` if left out.
        create_pr: open a pull request instead of writing to the branch.
        token: with write access; if left out, that of the user's login or of ``HF_TOKEN``.
        license: for the card, such as ``apache-2.0``.
        dtype: how the weights are stored: ``float32``, ``float16`` or ``bfloat16``.

    Returns:
        The address of the page or the pull request, and the commit.

    Raises:
        HubError: there is no token, it may not write there, the repo holds a bank, or the Hub cannot be reached.
        FormatError: the config has metrics or a method that may not be published.
        StorageError: the card in the folder that the model was loaded from cannot be read.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    if not is_public([result.model.config.metrics, result.model.config.method]):
        raise FormatError(
            "the model cannot be published: its config's metrics or method have a text that is no word, and might be a "
            "path or an address"
        )
    with tempfile.TemporaryDirectory() as name:
        report = result.report.public_copy(len(pack_mask(result.model.mask())))
        public_result, folder = _PublicResult(result.model, report), Path(name)
        write_model_files(public_result, folder, repo_id, dtype=dtype)
        for file in (folder / CONFIG, folder / PREPROCESSOR):
            file.write_bytes(public_json(file))
        card = ModelCard.from_result(public_result, repo_id, license, folder)
        _check_base_id(card, repo)
        own_card = _own_card(result)
        files = {path.name: path for path in sorted(folder.iterdir()) if path.name != CARD}
        repo.ensure(private)

        def operations(head: str) -> list[Operation]:
            existing_files = repo.file_sizes([*MODEL_FILES, BANK_FILE], head)
            if BANK_FILE in existing_files:
                raise HubError(f"{repo_id} holds a bank: choose another name, or use `hf-metaprune bank add`")
            _check_destination(repo, head)
            existing = read_text(repo, CARD, head, MAX_CARD_BYTES) if CARD in existing_files else None
            if (
                own_card is not None
                and existing is not None
                and is_edited(own_card)
                and not sends_own_text(existing, own_card)
            ):
                log.warning("the card on the Hub keeps its text, which was edited there; the folder's card is not sent")
            changes: list[Operation] = [CommitOperationAdd(name, path) for name, path in files.items()]
            content = card.render(existing, own_card)
            _check_card(content, card.facts(), repo_id)
            changes.append(CommitOperationAdd(CARD, content.encode()))
            stale_files = sorted(existing_files.keys() - files.keys() - {CARD})
            return changes + [CommitOperationDelete(name) for name in stale_files]

        commit = repo.commit(operations, f"Publish a model for {len(result.report.labels)} classes")
    return Published(repo.url, commits=[commit] if commit else [])


def _own_card(result: AdaptedModel) -> str | None:
    """Return the card in the folder that a model was loaded from, or None if it cannot be read."""
    path = result.folder / CARD if result.folder is not None else None
    if path is None or not is_present(path):
        return None
    try:
        check_regular(path)
    except OSError as error:
        raise StorageError(error.errno or errno.EIO, f"{path} cannot be read: {reason(error)}") from error
    try:
        content = read_regular(path, MAX_CARD_BYTES).decode("utf-8", "replace")
        split_card(content)
    except (FormatError, OSError) as error:
        log.warning("the card %s is not sent: %s", path, error)
        return None
    return content


def _check_base_id(card: ModelCard, repo: Repo) -> None:
    """Remove the base's repo from the card unless it has the base's weights: a bank's maker may name any repo."""
    base_id = card.base.get("repo_id")
    if not isinstance(base_id, str) or not is_repo_id(base_id):
        return
    digest = None
    with suppress(HubError):
        digest = repo.file_digest(base_id, WEIGHTS, card.base.get("revision"))
    if digest != card.base.get("sha256"):
        log.warning("the card does not name %s as the base, because its weights could not be verified", base_id)
        card.config["base_model"] = card.base | {"repo_id": None}


def _check_destination(repo: Repo, head: str) -> None:
    """Refuse to write into a repo that holds something else than a model of this library.

    Raises:
        HubError: the repo holds another model or other files.
    """
    names = repo.names(head)
    if names <= STARTER_FILES:
        return
    kind: Any = None
    if CONFIG in names:
        with suppress(ValueError):
            config = parse_json(read_text(repo, CONFIG, head, MAX_SMALL_BYTES))
            kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != MetaPrunedConfig.model_type:
        other_file = next(iter(sorted(names - STARTER_FILES)))
        raise HubError(f"{repo.repo_id} holds something else ({other_file}): choose another name")


def _check_card(content: str, facts: dict[str, Any], repo_id: str) -> None:
    """Refuse a card whose ``metaprune`` block could not be updated, because no search would accept the model.

    Raises:
        HubError: the published card was edited so that its YAML cannot be read.
    """
    with suppress(FormatError):
        if split_card(content)[0].get("metaprune") == facts:
            return
    raise HubError(
        f"the README.md of {repo_id} cannot be brought up to date, because its YAML cannot be read: repair or delete "
        "it on the Hub, then publish again"
    )
