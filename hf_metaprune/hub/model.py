"""Publishing one pruned model: its files, its report and its card, in one commit."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards.card import MAX_CARD_BYTES
from ..cards.model_card import ModelCard
from ..errors import HubError
from ..layout import BANK_FILE, CARD, CONFIG, MODEL_FILES
from ..models.configuration import MetaPrunedConfig
from ..storage import parse_json
from .files import MAX_SMALL_BYTES
from .repo import Operation, Published, Repo, holds_weights, read_text

if TYPE_CHECKING:
    from ..result import AdaptResult


def publish_model(
    result: AdaptResult,
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

    A card that was edited there by hand keeps its text.

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

    from ..result import AdaptResult

    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    with tempfile.TemporaryDirectory() as name:
        shown = AdaptResult(result.model, result.preprocessing, result.report.public(), result.device)
        folder = shown.save_pretrained(Path(name) / "model", dtype=dtype)
        card = ModelCard.of(shown, repo_id, license, folder)
        files = {path.name: path for path in sorted(folder.iterdir()) if path.name != CARD}
        repo.ensure(private)

        def operations(head: str) -> list[Operation]:
            there = repo.sizes([*MODEL_FILES, BANK_FILE], head)
            if BANK_FILE in there:
                raise HubError(f"{repo_id} holds a bank: choose another name, or use `hf-metaprune bank add`")
            _check_ours(repo, head)
            existing = read_text(repo, CARD, head, MAX_CARD_BYTES) if CARD in there else None
            made: list[Operation] = [CommitOperationAdd(name, path) for name, path in files.items()]
            made.append(CommitOperationAdd(CARD, card.render(existing).encode()))
            stale = sorted(there.keys() - files.keys() - {CARD})
            return made + [CommitOperationDelete(name) for name in stale]

        commit = repo.commit(operations, f"Publish a model for {len(result.report.labels)} classes")
    return Published(repo.url, commits=[commit] if commit else [])


def _check_ours(repo: Repo, head: str) -> None:
    """Refuse to write over somebody's model that is none of this library's.

    Raises:
        HubError: there is one.
    """
    names = repo.names(head)
    kind: Any = None
    if CONFIG in names:
        with suppress(ValueError):
            found = parse_json(read_text(repo, CONFIG, head, MAX_SMALL_BYTES))
            kind = found.get("model_type") if isinstance(found, dict) else None
    if kind != MetaPrunedConfig.model_type and (CONFIG in names or holds_weights(names)):
        raise HubError(f"{repo.repo_id} holds a model of another kind: choose another name")
