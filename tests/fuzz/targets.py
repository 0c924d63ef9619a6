"""The reading paths: which files of a corpus are altered how, and who reads them."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest import mock

import matplotlib
import numpy as np

from hf_metaprune import Bank
from hf_metaprune.bank.entry_checks import check_magnitudes, check_trunk
from hf_metaprune.bank.index import (
    check_complete,
    index_bytes,
    make_table,
    merge_tables,
    read_stored_meta,
    read_table,
    table_rows,
)
from hf_metaprune.bank.meta import check_meta
from hf_metaprune.bank.repair import recover, repair_index
from hf_metaprune.bank.search import _ModelCheck
from hf_metaprune.bank.sketch import unpack_sketch
from hf_metaprune.bank.validation import check_entry, validate_bank
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.errors import FormatError, HubError, MetaPruneError
from hf_metaprune.hub.header import read_metadata
from hf_metaprune.hub.listing import ListedModel
from hf_metaprune.hub.memory import Memory
from hf_metaprune.masks.scores import sum_scores
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.saving import load_model
from hf_metaprune.models.score_file import load_scores
from hf_metaprune.reporting.bank_card import BankCard
from hf_metaprune.reporting.card import is_untouched
from hf_metaprune.reporting.model_card import ModelCard
from hf_metaprune.reporting.report import AdaptReport
from hf_metaprune.reporting.report_files import load_report
from hf_metaprune.result import load_result
from hf_metaprune.trunk.files import load_trunk
from tests.fuzz.cards import mutate_card, mutate_facts
from tests.fuzz.corpus import Corpus
from tests.fuzz.formats import lfs_pointer, mutate_safetensors
from tests.fuzz.mutators import BytesMutation, json_bytes, mutate_bytes, mutate_json, mutate_value
from tests.fuzz.special import SPECIAL
from tests.fuzz.tables import mutate_index, mutate_places
from tests.fuzz.watch import CaseFailure, Watch

matplotlib.get_configdir(), matplotlib.get_cachedir()  # made now, for while a case is read nothing may be

ENTRY = "bank/tasks/*"
"""The first entry's folder."""


@dataclass(frozen=True)
class Target:
    """Files of the corpus, how each is altered, and what then reads them.

    `writes` names what reading may change. `own` is False where other code than ours opens the files.
    """

    name: str
    files: dict[str, BytesMutation]
    read: Callable[[Corpus], object]
    errors: tuple[type[Exception], ...] = (MetaPruneError,)
    writes: str | None = None
    own: bool = True


class Fuzzer:
    """Runs cases of one target in a copy of the corpus, in a folder of its own, each for at most `seconds` of CPU."""

    def __init__(self, target: Target, corpus: Corpus, folder: Path, seconds: float | None = None) -> None:
        self.target, self.sound, self.folder, self.seconds = target, corpus, folder, seconds
        self.corpus = corpus.copy(folder / "files")
        self.cases = self.refused = 0
        self.last_refusal = ""

    def case(self, rng: Random) -> None:
        """Alter one file, have it read, and put it back.

        Raises:
            CaseFailure: says what reading did; `altered` has the file.
        """
        pattern = rng.choice(list(self.target.files))
        name = self.sound.first(pattern)
        path, sound = self.corpus.root / name, self.sound.root / name
        special = rng.choice(SPECIAL) if self.target.own and rng.random() < 0.04 else None
        mutate = lfs_pointer if rng.random() < 0.04 else self.target.files[pattern]
        self.altered = name, special.__name__.encode() if special else mutate(rng, sound.read_bytes())
        path.unlink()  # who writes over a file that is mapped ends the process
        special(path, sound) if special else path.write_bytes(self.altered[1])
        writes = self.target.writes
        watch = Watch(self.target.errors, self.corpus.root / writes if writes else None, self.seconds)
        self.cases += 1
        try:
            self.refused += watch.run(lambda: self.target.read(self.corpus), self.folder)
            self.last_refusal = watch.refusal or self.last_refusal
        except CaseFailure as failure:
            raise CaseFailure(
                f"{self.target.name}: {name}, {self.altered[1][:120]!r}: {failure}"
            ) from failure.__cause__
        finally:
            self._restore(path, name)

    def _restore(self, path: Path, name: str) -> None:
        if self.target.writes:
            shutil.rmtree(self.corpus.root)
            self.corpus = self.sound.copy(self.folder / "files")
        else:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            shutil.copyfile(self.sound.root / name, path)


def read_bank(corpus: Corpus) -> None:
    """As all commands that list a bank."""
    bank = Bank.open(corpus.bank, strict=False)
    assert repr(bank)
    json.dumps(bank.reference())
    list_entries(bank)
    assert bank.default_ratio is None or 0 < bank.default_ratio < 1
    bank.base_bytes  # noqa: B018
    _render(bank, bank.meta)


def list_entries(bank: Bank) -> None:
    """What ranking and voting ask of entries before they read their files."""
    for entry in bank:
        assert len(entry.mask) == len(bank.sizes)
        json.dumps(entry.reference())
        bank.entry_files(entry).path(entry.path)
        f"{entry.method} {entry.owner}".encode()
        make_table([entry.row()])
        if entry.sketch is not None:
            with contextlib.suppress(FormatError):  # as in a ranking, which leaves the entry out
                assert np.isfinite(unpack_sketch(entry.sketch, len(entry.labels))).all()
    f"{bank.skip_reasons}".encode()


def read_index(corpus: Corpus) -> None:
    """As from a folder, and as from the Hub, where the index has the copy of ``bank.json``."""
    path = corpus.bank / "index.parquet"
    list_entries(Bank.open(corpus.bank, strict=False))
    meta = read_stored_meta(path)
    bank = Bank.open(corpus.bank)
    if meta is not None:
        list_entries(Bank(bank.files, check_meta(meta, path), strict=False))
        _render(bank, meta)


def _render(bank: Bank, meta: dict) -> None:
    """The index and the card that publishing into such a bank would make."""
    table = check_complete(read_table(bank.root / "index.parquet"), bank.root)
    content = index_bytes(merge_tables(table, make_table(list(table_rows(table))[:1]), ["x"]), meta)
    BankCard("me/bank", meta, list(table_rows(table))).render().encode()
    assert content


def read_card(corpus: Corpus) -> None:
    """As publishing does with the card that is there."""
    existing = (corpus.model / "README.md").read_text("utf-8", "replace")
    config = {"base_model": {"sha256": "0" * 64}, "labels": ["a", "b"]}
    card = ModelCard("me/model", config, b"", AdaptReport(labels=["a", "b"]), "0" * 64, 5)
    for there, own in ((existing, None), (None, existing), (existing, existing)):
        card.render(there, own).encode()
    is_untouched(existing)


def read_header(corpus: Corpus) -> None:
    """The header by ranges, as a search reads it."""
    content = (corpus.model / "model.safetensors").read_bytes()
    read_metadata(lambda start, stop: content[start:stop])


def read_listed(corpus: Corpus) -> None:
    """A model from the Hub's list, up to the check of its header; a model that is bad is left out, never an error."""
    try:
        item = json.loads((corpus.root / "listed.json").read_bytes())
    except (ValueError, RecursionError) as error:  # the client's, for the list as a whole
        raise HubError("this is no list") from error
    content = (corpus.model / "model.safetensors").read_bytes()
    commons = Bank(Bank.open(corpus.bank).files, Bank.open(corpus.bank).meta, strict=False)

    def part(*_: object) -> dict:
        return read_metadata(lambda start, stop: content[start:stop])

    memory = Memory(sqlite3.connect(":memory:"))
    with mock.patch("hf_metaprune.bank.search.fetch_metadata", part):
        entry = _ModelCheck(commons, None, memory)(ListedModel.from_item(item))
    if entry is not None:
        commons.use_entries({entry.id: entry})
        assert len(entry.mask) == len(commons.sizes)
        make_table([entry.row()])
        f"{entry.method} {commons.skip_reasons}".encode()


def read_entry(corpus: Corpus) -> None:
    """As before an entry votes, and as `bank validate` does."""
    bank = Bank.open(corpus.bank)
    bank.base = BASES.get(corpus.root) or BASES.setdefault(corpus.root, bank.base)  # type: ignore[misc]
    entry = bank[Path(corpus.first(ENTRY)).name]
    if not list(check_entry(bank, entry)):
        return
    check_magnitudes(load_model(entry.folder).network.state_dict(), bank.base)  # had the index another digest
    with entry.open_weights() as weights:
        for name in weights.keys():  # noqa: SIM118
            weights.get_tensor(name)


BASES: dict[Path, BaseModel] = {}


def read_trunk(corpus: Corpus) -> None:
    """A bank's trunk, and a slice of it."""
    base = BASES.get(corpus.root) or BASES.setdefault(corpus.root, Bank.open(corpus.bank).base)
    trunk = load_trunk(corpus.root / "trunk", base)
    check_trunk(trunk, "trunk")
    json.dumps(dict(trunk.facts))
    trunk.slice(base.config(trunk.mask(trunk.ratios[-1]), ["a", "b"]))


def read_base(corpus: Corpus) -> None:
    """A base that timm saved."""
    assert BaseModel.load(corpus.bank / "base").sizes


def read_other_base(corpus: Corpus) -> None:
    """A base that transformers saved."""
    assert BaseModel.load(corpus.other_base).sizes


def read_report(corpus: Corpus) -> None:
    """A saved model's report, and what is made of it."""
    report = load_report(corpus.model / "report.json")
    repr(report)
    json.dumps(report.to_dict(), allow_nan=False)
    config = {"base_model": {"sha256": "0" * 64}, "labels": ["a", "b"]}
    ModelCard("me/model", config, b"", report, "0" * 64, 5).render().encode()


def read_page(corpus: Corpus) -> None:
    """A saved model's report as a page."""
    load_result(corpus.model, device="cpu").to_html().encode()


def read_model(corpus: Corpus) -> None:
    """A saved model, as `predict` reads it."""
    result = load_result(corpus.model, device="cpu")
    repr(result)
    ModelCard.from_result(result, "me/model", None, corpus.model).render().encode()


def read_pretrained(corpus: Corpus) -> None:
    """Through transformers."""
    from transformers import AutoModelForImageClassification

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        AutoModelForImageClassification.from_pretrained(corpus.model)


def read_scores(corpus: Corpus) -> None:
    """As of an entry that votes by scores."""
    bank = Bank.open(corpus.bank)
    scores = load_scores(corpus.root / "mask_scores.safetensors", bank.sizes, bank.base_sha256)
    sum_scores([scores, scores])


def read_photos(corpus: Corpus) -> None:
    """A data set that `datasets` has saved."""
    read_task_data(corpus.root / "photos", Preprocessing(input_size=(3, 8, 8)))


def read_pictures(corpus: Corpus) -> None:
    """Photos in class folders."""
    read_task_data(corpus.root / "pictures", Preprocessing(input_size=(3, 8, 8)))


def repair(corpus: Corpus) -> None:
    """What writes into a bank."""
    validate_bank(Bank.open(corpus.bank, strict=False))
    repair_index(corpus.bank)
    bank = Bank.open(corpus.bank, strict=False)
    recover(bank)


def remove(corpus: Corpus) -> None:
    """Taking entries out of a bank, wherever its index says that they lie."""
    bank = Bank.open(corpus.bank, strict=False)
    for entry_id in list(bank.entries):
        with contextlib.suppress(MetaPruneError):
            bank.remove(entry_id)
    assert (corpus.bank / "bank.json").exists()
    assert (corpus.bank / "base" / "model.safetensors").exists()
    assert (corpus.bank / "tasks").exists()


def _listed(rng: Random, content: bytes) -> bytes:
    """An item of the Hub's list."""
    item = json.loads(content)
    if rng.random() < 0.1:
        return json_bytes(rng, mutate_value(rng, item))
    return json_bytes(rng, item | {"cardData": mutate_facts(rng, item["cardData"])})


TRANSFORMERS = (MetaPruneError, OSError, ValueError, TypeError, RecursionError, RuntimeError)
"""transformers parses the config before it asks us, and fills the tensors; it raises these by itself."""

TARGETS = {
    target.name: target
    for target in [
        Target("bank.json", {"bank/bank.json": mutate_json}, read_bank),
        Target("index", {"bank/index.parquet": mutate_index}, read_index),
        Target("card", {"model/README.md": mutate_card}, read_card, own=False),
        Target("header", {"model/model.safetensors": mutate_safetensors}, read_header, own=False),
        Target("listed", {"listed.json": _listed}, read_listed, own=False),
        Target("entry config", {f"{ENTRY}/config.json": mutate_json}, read_entry),
        Target("entry weights", {f"{ENTRY}/model.safetensors": mutate_safetensors}, read_entry),
        Target(
            "base", {"bank/base/config.json": mutate_json, "bank/base/model.safetensors": mutate_safetensors}, read_base
        ),
        Target(
            "transformers base",
            {f"other_base/{name}.json": mutate_json for name in ("config", "preprocessor_config")}
            | {"other_base/model.safetensors": mutate_safetensors},
            read_other_base,
        ),
        Target(
            "trunk",
            {"trunk/config.json": mutate_json, "trunk/model.safetensors": mutate_safetensors},
            read_trunk,
        ),
        Target(
            "data set",
            {f"photos/{name}.json": mutate_json for name in ("dataset_dict", "train/state", "train/dataset_info")},
            read_photos,
        ),
        Target(
            "picture",
            {
                f"pictures/a/{kind}": mutate_bytes
                for kind in ("*.jpg", "b.*", "*.png", "c.*", "*.gif", "*.bmp", "*.tif", "*.ppm")
            }
            | {"pictures/a/a.webp": mutate_bytes, "pictures/b/b.webp": mutate_bytes, "pictures/b/b.tif": mutate_bytes},
            read_pictures,
            own=False,  # a link in a folder of photos is followed, as the page on trust says
        ),
        Target("scores", {"mask_scores.safetensors": mutate_safetensors}, read_scores),
        Target("report", {"model/report.json": mutate_json}, read_report),
        Target("page", {f"model/{name}.json": mutate_json for name in ("config", "report")}, read_page),
        Target(
            "model",
            {f"model/{name}.json": mutate_json for name in ("config", "preprocessor_config", "report")}
            | {"model/model.safetensors": mutate_safetensors},
            read_model,
        ),
        Target(
            "from_pretrained",
            {"model/config.json": mutate_json, "model/model.safetensors": mutate_safetensors},
            read_pretrained,
            TRANSFORMERS,
            own=False,
        ),
        Target(
            "repair",
            {"bank/index.parquet": mutate_index, f"{ENTRY}/config.json": mutate_json, "bank/bank.json": mutate_json},
            repair,
            writes="bank",
        ),
        Target("remove", {"bank/index.parquet": mutate_places}, remove, writes="bank"),
    ]
}
