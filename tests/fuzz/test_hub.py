"""Altered files on a Hub, over HTTP: a bad model is left out of a search, a bad bank is refused."""

from __future__ import annotations

import contextlib
from random import Random

import pytest
import yaml  # type: ignore[import-untyped]

from hf_metaprune import Bank
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.errors import MetaPruneError
from hf_metaprune.reporting.card import split_card
from tests.fuzz.cards import mutate_facts
from tests.fuzz.corpus import Corpus
from tests.fuzz.formats import lfs_pointer, mutate_safetensors
from tests.fuzz.mutators import mutate_json
from tests.fuzz.tables import mutate_index
from tests.hub import LoopbackHub

MODELS, BANKS = 100, 30


def mutate_readme(rng: Random, content: str) -> bytes:
    """A card with other values; the Hub lists it, for it has the tag."""
    data, text = split_card(content)
    data = mutate_facts(rng, data)
    data = (data if isinstance(data, dict) else {}) | {"tags": ["metaprune"]}
    return f"---\n{yaml.safe_dump(data)}---\n{text}".encode("utf-8", "surrogatepass")


@pytest.mark.slow
def test_no_model_spoils_a_search(hub: LoopbackHub, corpus: Corpus) -> None:
    files = {name: (corpus.model / name).read_bytes() for name in ("README.md", "config.json", "model.safetensors")}
    for n in range(MODELS):
        rng, name = Random(n), f"eve/m{n}"
        if n % 2:
            hub.put_files(name, files | {"README.md": mutate_readme(rng, files["README.md"].decode())})
        else:
            mutate = rng.choice((mutate_safetensors, mutate_safetensors, mutate_safetensors, lfs_pointer))
            hub.put_files(name, files | {"model.safetensors": mutate(rng, files["model.safetensors"])})
    odd = files["README.md"].replace(b"metaprune:\n", b"ignore_metadata_errors: 1\nmodel-index: [5]\nmetaprune:\n", 1)
    hub.put_files("eve/odd", files | {"README.md": odd})
    hub.put_files("zoe/good", files)
    commons = Bank.from_search(corpus.bank)
    assert "zoe--good" in commons.entries
    assert 10 < len(commons.skip_reasons) < MODELS
    for entry in list(commons):
        with contextlib.suppress(MetaPruneError):
            entry.verify()
    commons["zoe--good"].verify()


@pytest.mark.slow
def test_banks_are_refused_or_read(hub: LoopbackHub, corpus: Corpus) -> None:
    publish_bank(Bank.open(corpus.bank), "me/bank")
    entry = corpus.first("bank/tasks/*").removeprefix("bank/")
    mutations = {
        "index.parquet": mutate_index,
        f"{entry}/config.json": mutate_json,
        f"{entry}/model.safetensors": mutate_safetensors,
        "base/config.json": mutate_json,
    }
    sound, refusals = hub.read_files("me/bank"), 0
    for n in range(BANKS):
        rng = Random(n)
        name = rng.choice(list(mutations))
        mutate = rng.choice((mutations[name], mutations[name], mutations[name], lfs_pointer))
        hub.put_files("me/bank", sound | {name: mutate(rng, sound[name])})
        try:
            bank = Bank.from_hub("me/bank")
            for candidate in list(bank)[:1]:
                candidate.verify()
        except MetaPruneError:
            refusals += 1
    assert 0 < refusals < BANKS
