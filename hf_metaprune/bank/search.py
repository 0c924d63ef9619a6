"""The commons: a bank of single pruned models that anybody has published on the Hub.

The Hub lists models by one constant tag; what a model says of itself (masks, labels, digest) is in the YAML of its
card, and comes with the listing. Each claim is checked against the header of the model's weights, by one range request;
the weights themselves are only fetched, and checked in full, when the model votes. Headers are kept by commit, so
that a later search only asks for what is new.
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
from ..hub.files import DOWNLOADS
from ..hub.header import metadata_on_hub
from ..hub.listing import ListedModel, list_models
from ..hub.memory import Memory
from ..models.weight_file import check_metadata
from ..text import counted
from .entry import COMMIT, Entry, check_id
from .reader import BankReader

log = logging.getLogger(__name__)

B = TypeVar("B", bound=BankReader)

AT_A_TIME = 256
MOST_WAITING = 10_000
"""Models of owners who have had their share that are remembered."""
COMMONS = "models on the Hub"
HEADER_KEYS = ("format_version", "base_model_sha256", "masks_digest", "labels")
"""What is read, and remembered, of a header."""


def search_hub(bank: B, options: SearchOptions, progress: bool = False) -> B:
    """The bank with entries from all over the Hub instead of its own: published models of the same base.

    Args:
        bank: has the base, and says how the Hub is asked; its own entries are not used.
        options: which models.

    Raises:
        HubError: the Hub cannot be reached, or the token is wrong. FormatError: a model is bad, and the bank is strict.
    """
    found: dict[str, Entry] = {}
    limit, token = options.limit or sys.maxsize, bank.hub_options.get("token")
    commons = type(bank)(bank.files, bank.meta | {"name": COMMONS}, strict=bank.strict, hub_options=bank.hub_options)
    with Memory.open(bank.hub_options.get("cache_dir")) as memory:
        check = _ModelCheck(commons, token, memory)
        listed = _listed(options, token, check.seen)
        bar = tqdm(desc="searching the Hub", unit="model", disable=not progress, total=options.limit)
        with bar, ThreadPoolExecutor(DOWNLOADS) as pool:
            while len(found) < limit and (some := list(islice(listed, AT_A_TIME))):
                for entry in pool.map(check, some):
                    if entry is not None and len(found) < limit:
                        found[entry.id] = entry
                        bar.update()
    if check.trouble is not None and not found:
        raise check.trouble
    commons.use_entries(found)
    commons.title, commons.why_empty = COMMONS, check.summary(options)
    if not found:
        log.warning("the search found no model that may vote: %s", commons.why_empty)
    return commons


def _listed(options: SearchOptions, token: str | bool | None, seen: dict[str, str]) -> Iterator[ListedModel]:
    """Models that may be used, trusted ones first, each once; what becomes of each is noted in `seen`.

    Where only some are wanted (`limit`), nobody who is not trusted fills more than a quarter of the places before
    everybody else was asked.
    """
    waiting: list[ListedModel] = []
    places = max(1, (options.limit or sys.maxsize) // 4)
    owners: Counter[str] = Counter()
    for model, trusted in _admitted(options, token, seen):
        owner = model.id.partition("/")[0].lower()
        owners[owner] += 1
        if trusted or options.author is not None or owners[owner] <= places:
            yield model
        elif len(waiting) < MOST_WAITING:
            waiting.append(model)
    yield from waiting


def _admitted(
    options: SearchOptions, token: str | bool | None, seen: dict[str, str]
) -> Iterator[tuple[ListedModel, bool]]:
    """Models that may be used, each once, and whether they are trusted; those that are come first."""
    wanted, trusted = [TAG, *options.tags], {name.lower() for name in options.trusted}
    for owner in [*options.first_owners, options.author]:
        first = owner is not options.author
        for model in list_models(wanted, owner, token):
            names = {model.id.lower(), str(owner).lower()}
            if model.id in seen or not is_repo_id(model.id) or (first and not names & trusted):
                continue
            admitted = options.admits(model.id)
            seen[model.id] = "used" if admitted else "not allowed"
            if admitted:
                yield model, first


class _ModelCheck:
    """From a listed model to an entry, or None; what was found out is remembered by commit."""

    def __init__(self, bank: BankReader, token: str | bool | None, memory: Memory) -> None:
        self.bank, self.memory, self.token = bank, memory, token
        self.trouble: HubUnreachableError | None = None
        self.seen: dict[str, str] = {}
        """What became of each model that was listed."""
        self.patience = Patience()

    def summary(self, options: SearchOptions) -> str:
        """How many models were found, and why none of them is used, if none is."""
        asked = [f"of {options.author}"] * bool(options.author) + [f"tagged {tag}" for tag in options.tags]
        if not self.seen and asked:
            return f"the Hub lists no model {' and '.join(asked)}: check the spelling"
        fates = Counter(self.seen.values())
        del fates["used"]
        what = ", ".join(f"{n} {fate}" for fate, n in fates.most_common())
        listed = counted(len(self.seen), "model")
        if not self.seen:
            return f"the Hub lists {listed} yet: publish one, or take a bank"
        return f"the Hub lists {listed}" + (f" ({what})" if what else "")

    def __call__(self, model: ListedModel) -> Entry | None:
        try:
            facts = self._facts(model)
            if facts["base_sha256"] != self.bank.base_sha256:
                self.seen[model.id] = "of another base"
                return None
            entry = Entry.from_row(self.bank, _row(model, facts))
            self._check_header(model, entry)
            return entry
        except (FormatError, HubError) as error:
            if isinstance(error, HubUnreachableError):
                self.trouble = error
            if self.patience.ends(error) or self.bank.strict:
                raise
            self.bank.left_out[model.id] = f"left out {model.id}: {error}"
            self.seen[model.id] = "left out"
            return None

    def _facts(self, model: ListedModel) -> dict[str, Any]:
        """The ``metaprune`` block of a card."""
        facts = model.card.get("metaprune")
        if not isinstance(facts, dict) or not COMMIT.fullmatch(model.sha):
            raise FormatError("its card has no metaprune block")
        try:
            check_json_value(facts)
        except ValueError as error:
            raise FormatError(f"its card has {error}") from error
        if type(facts.get("format_version")) is not int or not 1 <= facts["format_version"] <= FORMAT_VERSION:
            raise FormatError(f"format version {str(facts.get('format_version'))[:20]} is not one that can be read")
        if not isinstance(facts.get("base_sha256"), str):
            raise FormatError("its card does not name a base")
        return facts

    def _check_header(self, model: ListedModel, entry: Entry) -> None:
        """Check the card against the header of the weights; asked for once a commit."""
        key = f"{model.id}@{model.sha}"
        found = self.memory.get(key)
        if found is None:
            found = {"header": self._header(model)}  # what cannot be read is not remembered: it may be on the way that
            self.memory.put(key, found)  # it was spoilt
        wanted = {
            "base_model_sha256": self.bank.base_sha256,
            "masks_digest": entry.mask.digest(),
            "labels": json.dumps(list(entry.labels), ensure_ascii=False),
        }
        check_metadata(found["header"], wanted, f"{model.id}: {WEIGHTS}", "its card", complete=True)

    def _header(self, model: ListedModel) -> dict[str, str]:
        found = metadata_on_hub(model.id, WEIGHTS, model.sha, self.token)
        return {key: value for key in HEADER_KEYS if isinstance(value := found.get(key), str)}


def _masks(facts: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(facts["masks"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError("the masks of its card cannot be read") from error


def _row(model: ListedModel, facts: dict[str, Any]) -> dict[str, Any]:
    """A row as of an index."""
    labels, synsets = facts.get("labels"), facts.get("synsets")
    if not isinstance(labels, list) or not isinstance(synsets, list | None):
        raise FormatError("the labels of its card are no list")
    return {
        "id": repo_entry_id(model.id),
        "labels": labels,
        "synsets": synsets or [None] * len(labels),
        "masks": _masks(facts),
        "method": facts.get("method"),
        "ratio": facts.get("ratio"),
        "metrics": json.dumps(facts.get("metrics") or {}),
        "path": ".",
        "repo_id": model.id,
        "revision": model.sha,
        "size": facts.get("size"),
        "sha256": facts.get("sha256"),
        "scores_sha256": facts.get("scores_sha256"),
    }


def repo_entry_id(repo_id: str) -> str:
    """The id of the entry that a repo's model is."""
    name = re.sub(r"[^a-z0-9._-]", "-", repo_id.lower().replace("/", "--"))
    return check_id(name if len(name) <= 96 else f"{name[:87]}-{sha256(repo_id.lower().encode()).hexdigest()[:8]}")
