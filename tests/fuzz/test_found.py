"""What fuzzing found once, file by file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from hf_metaprune import Bank
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.errors import FormatError, MetaPruneError, StorageError
from hf_metaprune.files.storage import MAX_CONTAINERS, MAX_DEPTH, parse_json, read_json
from hf_metaprune.hub.header import MAX_HEADER_BYTES, read_metadata
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.saving import load_config, load_model
from hf_metaprune.models.weights import load_weights
from hf_metaprune.reporting.card import is_untouched, split_card
from hf_metaprune.reporting.model_card import ModelCard
from hf_metaprune.reporting.report import AdaptReport
from hf_metaprune.reporting.report_files import load_report
from tests.bank.edits import edit_index, edit_json, first
from tests.fuzz.corpus import Corpus
from tests.fuzz.formats import pack, unpack
from tests.fuzz.watch import little_memory
from tests.hub import LoopbackHub
from tests.models.conftest import copies

MODEL = ("README.md", "config.json", "model.safetensors")


@pytest.mark.parametrize(
    "line",
    [
        "x: !!bool zz",
        "x: !!int ''",
        "x: !!timestamp zz",
        "x: !!float ''",
        "x: !!omap 5",
        "? [a]\n: b",
        "x: " + "[" * 999,
    ],
)
def test_yaml_that_does_not_fit_its_tag(line: str) -> None:
    with pytest.raises(FormatError, match="YAML"):
        split_card(f"---\n{line}\n---\n")


def card(existing: str) -> str:
    config = {"base_model": {"sha256": "0" * 64}, "labels": ["a", "b"]}
    return ModelCard("me/model", config, b"", AdaptReport(labels=["a", "b"]), "0" * 64, 5).render(existing)


def test_numbers_of_cards_are_left_as_they_are_and_long_ones_take_no_time() -> None:
    number = f"x: 0x{'f' * 90}"
    text = card(f"---\n{number}\n---\nMy words.\n")
    assert text.startswith(f"---\n{number}\nlibrary_name: hf-metaprune\n")
    assert text.endswith("---\n\nMy words.\n")
    for long in (
        f"0x{'f' * 5000}",
        "1" + ":1" * 400_000,
        "-1:" + "59:" * 300_000 + "1.5",
        "!!float 1" + ":1" * 400_000,
    ):
        mine = f"---\nx: {long}\n---\nMy words.\n"
        with pytest.raises(FormatError, match="more than 100 characters"):
            split_card(mine)
        assert card(mine) == mine


@pytest.mark.parametrize(("tags", "own_tags"), [("5", []), ("cats", ["cats"]), ("[[a], cats, {b: c}]", ["cats"])])
def test_tags_that_are_no_list_of_texts(tags: str, own_tags: list[str]) -> None:
    data, text = split_card(card(f"---\ntags: {tags}\n---\nMy words.\n"))
    assert text.strip() == "My words."
    assert data["tags"][4:] == own_tags


def test_many_directives_are_refused() -> None:
    """libyaml compares each with all others: 1 MB of them took 7 seconds."""
    for line_end in "\n\r\x85\u2028\u2029":
        with pytest.raises(FormatError, match="directives"):
            split_card("---\n" + f"%TAG !x! a{line_end}" * 1000 + "\n---\n")
    assert split_card("---\nprice: |\n  %TAG !x! a\n---\n")[0] == {"price": "%TAG !x! a"}


@pytest.mark.slow
def test_many_empty_lines_are_read_once() -> None:
    assert not is_untouched("\n" * 500_000 + "x")  # once took their number squared: hours
    assert card("---\nmine: |\n  a" + "\n" * 200_000 + "---\nMy words.\n").endswith("My words.\n")


def test_json_that_python_reads_but_cannot_write(tmp_path: Path) -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert parse_json("[" + ",".join(["[]"] * (MAX_CONTAINERS - 1)) + "]")
    with pytest.raises(ValueError, match="more than 200000 lists and objects"):
        parse_json(b"[" + b",".join([b"{}"] * MAX_CONTAINERS) + b"]")
    for text in ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "[" * 100_000, '"\\ud800"', '{"\\ud800": 1}'):
        with pytest.raises(ValueError, match="levels|surrogates"):
            parse_json(text)
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(FormatError, match="cannot be read"):
            read_json(tmp_path / "x.json")


def test_a_base_named_by_a_number(own_bank: Bank) -> None:
    path = own_bank.root / "bank.json"
    edit_json(path, base_model=own_bank.meta["base_model"] | {"sha256": int("1" * 64)})
    with pytest.raises(FormatError, match="no sha256"):
        Bank.open(own_bank.root)


def test_a_base_that_is_not_there(own_bank: Bank) -> None:
    edit_json(own_bank.root / "bank.json", base_model=own_bank.meta["base_model"] | {"path": "elsewhere"})
    with pytest.raises(StorageError, match="cannot read"):
        Bank.open(own_bank.root).base_bytes  # noqa: B018


def test_sides_that_are_infinite() -> None:
    with pytest.raises(FormatError, match="wrong type"):
        Preprocessing.from_config({"input_size": [3, float("inf"), 32], "mean": [0] * 3, "std": [1] * 3})


def test_configs_that_transformers_stumbles_over(own_bank: Bank) -> None:
    folder = first(own_bank).folder
    whole = (folder / "config.json").read_text()
    for metrics in ({"dtype": []}, json.loads("[" * 600 + "]" * 600)):
        (folder / "config.json").write_text(whole)
        edit_json(folder / "config.json", metrics=metrics)
        with pytest.raises(FormatError, match="config.json"):
            load_config(folder)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e5m2, torch.uint64])
def test_counters_of_odd_types(own_bank: Bank, base_folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    folder, name = first(own_bank).folder, "network.bn1.num_batches_tracked"
    path = folder / "model.safetensors"
    save_file(copies(path) | {name: torch.zeros((), dtype=dtype)}, path)
    with pytest.raises(FormatError, match="has dtype"):
        load_model(folder)
    (tmp_path / "config.json").write_bytes((base_folder / "config.json").read_bytes())
    state = copies(base_folder / "model.safetensors") | {"more": torch.zeros(3, dtype=dtype)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match="is of type"):
        BaseModel.load(tmp_path)


@pytest.mark.parametrize("path", [".", "base", "tasks"])
def test_removing_an_entry_deletes_nothing_else(own_bank: Bank, path: str) -> None:
    entry = first(own_bank)
    edit_index(own_bank, path=path)
    before = sorted(own_bank.root.parent.rglob("*"))
    with pytest.raises(FormatError, match="no place for one"):
        own_bank.remove(entry.id)
    assert sorted(own_bank.root.parent.rglob("*")) == before


def test_published_rows_that_lack_something(hub: LoopbackHub, own_bank: Bank) -> None:
    publish_bank(own_bank, "me/bank")
    table = pq.read_table(own_bank.root / "index.parquet")
    for change in ({"labels": [None, "a", "b"]}, {"labels": None}, {"id": None}):
        rows = table.to_pylist()
        rows[0] |= change
        loose = pa.Table.from_pylist(rows, schema=pa.schema([field.with_nullable(True) for field in table.schema]))
        pq.write_table(loose, own_bank.root / "altered.parquet")
        hub.put_files("me/bank", {"index.parquet": (own_bank.root / "altered.parquet").read_bytes()})
        with pytest.raises(FormatError, match="a row has no"):
            publish_bank(own_bank, "me/bank")


@pytest.mark.parametrize(
    "changes",
    [
        {"bank": "x"},
        {"bank": {"repo_id": 5}},
        {"evaluated_on": {"": None}},
        {"baselines": {"x": {}}},
        {"emissions": {"x": 1}},
        {"test_images": "x"},
        {"neighbors": [{"id": "a", "score": 1.0, "labels": ["a"], "share": "x"}]},
    ],
    ids=str,
)
def test_reports_of_which_no_card_can_be_made(corpus: Corpus, tmp_path: Path, changes: dict) -> None:
    path = tmp_path / "report.json"
    path.write_bytes((corpus.model / "report.json").read_bytes())
    assert load_report(path).labels
    edit_json(path, **changes)
    with pytest.raises(FormatError, match="is not a report"):
        load_report(path)


def with_header(content: bytes, **changes: object) -> bytes:
    header, body = unpack(content)
    return pack(json.dumps(header | changes).encode(), body)


def test_a_header_that_multiplies_texts(hub: LoopbackHub, corpus: Corpus) -> None:
    """The client multiplies the numbers of a shape, of which one may be a text, and then the product is 100 GB."""
    files = {name: (corpus.model / name).read_bytes() for name in MODEL}
    bomb = {"dtype": "F16", "shape": ["x" * 1000, 10**8], "data_offsets": [0, 0]}
    hub.put_files("eve/bomb", files | {"model.safetensors": with_header(files["model.safetensors"], bomb=bomb)})
    with little_memory():
        assert list(Bank.from_search(corpus.bank).entries) == ["eve--bomb"]


def test_headers_are_read_by_parts() -> None:
    content = pack(json.dumps({"__metadata__": {"a": "b" * 200_000}}).encode(), b"body")
    assert read_metadata(lambda start, stop: content[start:stop])["a"] == "b" * 200_000
    sizes = (b"", b"1234567", pack(b"{}", b"", 100), pack(b"[]", b""), pack(b"{}", b"", MAX_HEADER_BYTES + 1))
    for wrong in (*sizes, pack(b'{"__metadata__": []}', b""), pack(b"[" * 60_000, b"")):
        with pytest.raises(FormatError):
            read_metadata(lambda start, stop, wrong=wrong: wrong[start:stop])


@pytest.mark.parametrize("line", ["ignore_metadata_errors: true", "self: 5", "model-index: [5]", "model-index: {a: 1}"])
def test_no_card_ends_a_search(hub: LoopbackHub, corpus: Corpus, line: str) -> None:
    files = {name: (corpus.model / name).read_bytes() for name in MODEL}
    odd = files["README.md"].replace(b"metaprune:\n", f"{line}\nmetaprune:\n".encode(), 1)
    hub.put_files("eve/odd", files | {"README.md": odd})
    hub.put_files("zoe/good", files)
    assert {"eve--odd", "zoe--good"} == set(Bank.from_search(corpus.bank).entries)


@pytest.mark.parametrize("changes", [{"method": {"a": 1}}, {"size": 10**30}, {"size": -1}, {"size": 1.5}])
def test_facts_that_no_index_can_hold(hub: LoopbackHub, corpus: Corpus, changes: dict) -> None:
    import yaml  # type: ignore[import-untyped]

    files = {name: (corpus.model / name).read_bytes() for name in MODEL}
    data, text = split_card(files["README.md"].decode())
    data["metaprune"] |= changes
    hub.put_files("eve/odd", files | {"README.md": f"---\n{yaml.safe_dump(data)}---\n{text}".encode()})
    with pytest.raises(MetaPruneError, match="method is not a text"):
        Bank.from_search(corpus.bank, strict=True)


@pytest.mark.parametrize("shape", [[0, 2**64 - 1], [0, 2**63 - 1, 2**63 - 1]])
def test_a_tensor_of_no_values_in_a_shape_that_torch_lacks(tmp_path: Path, shape: list[int]) -> None:
    header = json.dumps({"t": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(FormatError, match="model.safetensors cannot be read"):
        load_weights(tmp_path / "model.safetensors")


def test_a_tensor_of_too_many_dimensions_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"t": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(FormatError, match="65 dimensions"):
        load_weights(tmp_path / "model.safetensors")
