"""What a name opens: a folder, a bank that comes with the library, or a repo of the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_metaprune import BaseModel, load_result, open_bank
from hf_metaprune.bank.bank import Bank
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.errors import FormatError, OptionError
from hf_metaprune.files import shipped


def test_shipped_banks_open_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in shipped.SHIPPED_BANKS:
        assert len(open_bank(name)) > 10
    assert (shipped.shipped_path(shipped.EXAMPLE_TASK) / "train.parquet").exists()


def test_no_folder_hides_a_shipped_bank(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped_name = open_bank("demo-bank").name
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-bank").symlink_to(bank.root)
    assert open_bank("demo-bank").name == shipped_name != bank.name
    assert open_bank("./demo-bank").name == open_bank(Path("demo-bank")).name == bank.name


def test_an_empty_name_is_not_the_current_folder() -> None:
    for read in (open_bank, Bank.open, BaseModel.load, load_result, lambda name: read_task_data(name, Preprocessing())):
        with pytest.raises(OptionError, match="a path is empty"):
            read("")
        with pytest.raises(OptionError, match=r"^xxx+\.\.\. is too long for the name of a file"):
            read("x" * 300)
        with pytest.raises(OptionError, match="is too long"):
            read("/".join(["y" * 200] * 30))
        with pytest.raises(OptionError, match="has a null character"):
            read("a\0b")


def test_a_folder_may_begin_with_a_tilde(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~no-such-user").symlink_to(bank.root)
    assert open_bank("./~no-such-user").name == bank.name
    with pytest.raises(OptionError, match="there is no such user here; write ./~no-such-user for a folder"):
        open_bank("~no-such-user")


@pytest.mark.parametrize("name", ["./owner/bank", "../bank", "~/bank", "/no/bank", "bank", "a/b/c"])
def test_only_the_form_of_a_hub_id_goes_to_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Bank, "from_hub", lambda *_, **__: pytest.fail("the Hub was asked"))
    with pytest.raises(FormatError, match="there is no folder .* the banks that come with the library are demo-bank"):
        open_bank(name)
