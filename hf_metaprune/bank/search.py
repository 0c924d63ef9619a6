"""The commons: a bank of single pruned models that anybody has published on the Hub.

The Hub lists models by one constant tag. A model's masks, labels and digest are in the YAML of its card, which comes
with the listing. Each card is checked against the header of the model's weights, by one range request. The weights are
only downloaded, and checked in full, when the model votes. Headers are kept by commit, so that a later search only
requests new ones.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from typing import Any, TypeVar

from tqdm.auto import tqdm

from ..config import SearchOptions
from ..errors import FormatError, HubError, HubUnreachableError
from ..files.layout import FORMAT_VERSION, WEIGHTS
from ..files.names import is_repo_id
from ..files.storage import check_json_value
from ..hub.client import TAG, Patience
from ..hub.files import PARALLEL_DOWNLOADS
from ..hub.header import fetch_metadata
from ..hub.listing import ListedModel, list_models
from ..hub.memory import Memory
from ..models.class_means import from_text
from ..models.weight_file import check_metadata
from ..text import quantity
from .entry import Entry
from .entry_checks import COMMIT_PATTERN, check_id
from .reader import BankReader

log = logging.getLogger(__name__)

B = TypeVar("B", bound=BankReader)

CHECKS_PER_BATCH = 256
"""Models that are listed and checked at a time."""
MAX_WAITING_MODELS = 10_000
"""Most models that wait because their owner has used up a fair share of the places."""
COMMONS = "models on the Hub"
"""The name, in messages, of the bank that a search makes."""
HEADER_KEYS = ("format_version", "base_model_sha256", "masks_digest", "labels")
"""Keys of a header that are checked and kept."""


def search_hub(bank: B, options: SearchOptions, progress: bool = False) -> B:
    """Search the Hub for models of a bank's base, and return a bank of them.

    Args:
        bank: a bank of the base; its options for the Hub and its strictness are used, its entries are not.
        options: which models are searched for.
        progress: show a progress bar.

    Returns:
        A bank of the same class, whose entries are the models; it may be empty.

    Raises:
        HubError: the Hub cannot be reached, or the token is wrong.
        FormatError: a model is malformed, and the bank is strict.
    """
    entries: dict[str, Entry] = {}
    limit, token = options.limit or sys.maxsize, bank.hub_options.get("token")
    commons = type(bank)(bank.files, bank.meta | {"name": COMMONS}, strict=bank.strict, hub_options=bank.hub_options)
    with Memory.open(bank.hub_options.get("cache_dir")) as memory:
        check = _ModelCheck(commons, token, memory)
        models = _list_by_share(options, token, check.fates)
        bar = tqdm(desc="searching the Hub", unit="model", disable=not progress, total=options.limit)
        with bar, ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            while len(entries) < limit and (batch := list(islice(models, CHECKS_PER_BATCH))):
                for entry in pool.map(check, batch):
                    if entry is not None and len(entries) < limit:
                        entries[entry.id] = entry
                        bar.update()
    if check.hub_error is not None and not entries:
        raise check.hub_error
    commons.use_entries(entries)
    commons.title, commons.empty_hint = COMMONS, check.summary(options)
    if not entries:
        log.warning("the search found no model that may vote: %s", commons.empty_hint)
    return commons


def _list_by_share(options: SearchOptions, token: str | bool | None, fates: dict[str, str]) -> Iterator[ListedModel]:
    """Yield models that may be used, trusted ones first, each once.

    If the number is limited, an owner who is not trusted gets at most a quarter of the places, unless the other owners
    leave some.

    Args:
        options: which models are searched for.
        token: for the Hub.
        fates: filled with a word for each listed model, by its id: what became of it.
    """
    waiting_models: list[ListedModel] = []
    fair_share = max(1, (options.limit or sys.maxsize) // 4)
    owners: Counter[str] = Counter()
    for model, trusted in _list_admitted(options, token, fates):
        owner = model.id.partition("/")[0].lower()
        owners[owner] += 1
        if trusted or options.author is not None or owners[owner] <= fair_share:
            yield model
        elif len(waiting_models) < MAX_WAITING_MODELS:
            waiting_models.append(model)
    yield from waiting_models


def _list_admitted(
    options: SearchOptions, token: str | bool | None, fates: dict[str, str]
) -> Iterator[tuple[ListedModel, bool]]:
    """Yield models that may be used, each once, and whether each is trusted; trusted ones come first."""
    tags, trusted_names = [TAG, *options.tags], {name.lower() for name in options.trusted}
    for owner in [*options.first_owners, options.author]:
        is_trusted = owner is not options.author
        for model in list_models(tags, owner, token):
            model_names = {model.id.lower(), str(owner).lower()}
            if model.id in fates or not is_repo_id(model.id) or (is_trusted and not model_names & trusted_names):
                continue
            is_admitted = options.admits(model.id)
            fates[model.id] = "used" if is_admitted else "not allowed"
            if is_admitted:
                yield model, is_trusted


class _ModelCheck:
    """A check of listed models: called with one, it returns its entry or None; headers are remembered by commit."""

    def __init__(self, bank: BankReader, token: str | bool | None, memory: Memory) -> None:
        self.bank, self.memory, self.token = bank, memory, token
        self.hub_error: HubUnreachableError | None = None
        self.fates: dict[str, str] = {}
        """By the id of a listed model: what became of it."""
        self.patience = Patience()

    def summary(self, options: SearchOptions) -> str:
        """Return in words how many models the Hub lists, and why models were not used."""
        conditions = [f"of {options.author}"] * bool(options.author) + [f"tagged {tag}" for tag in options.tags]
        if not self.fates and conditions:
            return f"the Hub lists no model {' and '.join(conditions)}: check the spelling"
        fates = Counter(self.fates.values())
        del fates["used"]
        details = ", ".join(f"{n} {fate}" for fate, n in fates.most_common())
        models = quantity(len(self.fates), "model")
        if not self.fates:
            return f"the Hub lists {models} yet: publish one, or use a bank"
        return f"the Hub lists {models}" + (f" ({details})" if details else "")

    def __call__(self, model: ListedModel) -> Entry | None:
        try:
            facts = self._card_facts(model)
            if facts["base_sha256"] != self.bank.base_sha256:
                self.fates[model.id] = "of another base"
                return None
            entry = Entry.from_row(self.bank, _index_row(model, facts))
            self._check_header(model, entry)
            return entry
        except (FormatError, HubError) as error:
            if isinstance(error, HubUnreachableError):
                self.hub_error = error
            if self.patience.should_stop(error) or self.bank.strict:
                raise
            self.bank.skip_reasons[model.id] = f"left out {model.id}: {error}"
            self.fates[model.id] = "left out"
            return None

    def _card_facts(self, model: ListedModel) -> dict[str, Any]:
        """Return the ``metaprune`` block of a model's card."""
        facts = model.card.get("metaprune")
        if not isinstance(facts, dict) or not COMMIT_PATTERN.fullmatch(model.sha):
            raise FormatError("its card has no metaprune block")
        try:
            check_json_value(facts)
        except ValueError as error:
            raise FormatError(f"its card has {error}") from error
        if type(facts.get("format_version")) is not int or not 1 <= facts["format_version"] <= FORMAT_VERSION:
            version = str(facts.get("format_version"))[:20]
            raise FormatError(f"format version {version} cannot be read: this version reads 1 to {FORMAT_VERSION}")
        if not isinstance(facts.get("base_sha256"), str):
            raise FormatError("its card does not name a base")
        return facts

    def _check_header(self, model: ListedModel, entry: Entry) -> None:
        """Check a card against the header of the weights, which is requested once per commit."""
        key = f"{model.id}@{model.sha}"
        cached_facts = self.memory.get(key)
        if cached_facts is None:
            # a header that cannot be read raises before it is kept: it may have been damaged on its way
            cached_facts = {"header": self._read_header(model)}
            self.memory.put(key, cached_facts)
        expected = {
            "base_model_sha256": self.bank.base_sha256,
            "masks_digest": entry.mask.digest(),
            "labels": json.dumps(list(entry.labels), ensure_ascii=False),
        }
        check_metadata(cached_facts["header"], expected, f"{model.id}: {WEIGHTS}", "its card", complete=True)

    def _read_header(self, model: ListedModel) -> dict[str, str]:
        metadata = fetch_metadata(model.id, WEIGHTS, model.sha, self.token)
        return {key: value for key in HEADER_KEYS if isinstance(value := metadata.get(key), str)}


def _decode_masks(facts: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(facts["masks"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError("the masks of its card cannot be read") from error


def _index_row(model: ListedModel, facts: dict[str, Any]) -> dict[str, Any]:
    """Return a model as a row of an index."""
    labels, synsets = facts.get("labels"), facts.get("synsets")
    if not isinstance(labels, list) or not isinstance(synsets, list | None):
        raise FormatError("the labels or synsets of its card are not a list")
    return {
        "id": repo_entry_id(model.id),
        "labels": labels,
        "synsets": synsets or [None] * len(labels),
        "masks": _decode_masks(facts),
        "method": facts.get("method"),
        "ratio": facts.get("ratio"),
        "metrics": json.dumps(facts.get("metrics") or {}),
        "path": ".",
        "repo_id": model.id,
        "revision": model.sha,
        "size": facts.get("size"),
        "sha256": facts.get("sha256"),
        "scores_sha256": facts.get("scores_sha256"),
        "class_means": from_text(facts["class_means"], len(labels)) if "class_means" in facts else None,
    }


def repo_entry_id(repo_id: str) -> str:
    """Return the id of the entry that a repo's model becomes."""
    name = re.sub(r"[^a-z0-9._-]", "-", repo_id.lower().replace("/", "--"))
    return check_id(name if len(name) <= 96 else f"{name[:87]}-{sha256(repo_id.lower().encode()).hexdigest()[:8]}")
