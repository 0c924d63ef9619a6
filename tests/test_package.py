"""The package as a whole: what an import costs, and that its public names exist."""

from __future__ import annotations

import pytest

import hf_metaprune
from hf_metaprune.cli import main

HEAVY = [
    "transformers",
    "timm",
    "datasets",
    "accelerate",
    "nltk",
    "matplotlib",
    "pyarrow",
    "torchvision",
    "rich",
    "typer",
]


@pytest.mark.slow
def test_import_takes_nothing_heavy_along(run_python) -> None:
    """`import hf_metaprune` must stay cheap: what is heavy is imported when it is used."""
    output = run_python(
        "import torch, sys; before = set(sys.modules); import hf_metaprune\n"
        f"print(sorted((set(sys.modules) - before) & set({HEAVY})))"
    )
    assert output.strip() == "[]"


@pytest.mark.slow
def test_the_command_and_the_page_start_without_what_is_heavy(run_python) -> None:
    """``--help`` says something at once, and the page is there before torch is."""
    for module in ("cli.app", "app"):
        output = run_python(
            f"import sys, hf_metaprune.{module}\n"
            "print(sorted(set(sys.modules) & {'torch', 'transformers', 'timm', 'datasets', 'matplotlib'}))"
        )
        assert output.strip() == "[]", module


@pytest.mark.slow
def test_a_mistyped_folder_is_said_before_anything_heavy_is_imported(run_python) -> None:
    output = run_python(
        "import sys\n"
        "from hf_metaprune.cli import main\n"
        "for words in ('predict no a.png', 'inspect no', 'export no', 'publish no me/x', 'bank show no',"
        " 'adapt no photos --out x', 'sweep no photos --out x', 'adapt no/bank photos --out x',"
        " 'adapt demo-bank ./no --out x', 'sweep demo-bank no --out x', 'bank validate no', 'bank publish no me/x',"
        " 'bank add no no', 'bank add me/x no', 'bank remove no x',"
        " 'space --bank ./no', 'bank explore no', 'demo --bank ./no', 'demo --data ./no'):\n"
        "    try: main(words.split())\n"
        "    except SystemExit as end: print(end.code, end=' ')\n"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'timm', 'datasets', 'matplotlib'}))\n"
        "try: main('adapt demo-bank me/photos --out x'.split())\n"  # asks the cache of `datasets`
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    assert output.split("\n")[0] == "1 " * 19 + "[]"
    assert output.split("\n")[1] == "1 False"


@pytest.mark.parametrize(
    "words", [["predict", "", "a.png"], ["adapt", "demo-bank", "photos", "--out", ""], ["publish", "x", "--revision="]]
)
def test_an_empty_argument_is_not_the_current_folder(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 1
    assert "is empty; write . for the current folder" in capsys.readouterr().err


def test_public_names() -> None:
    for name in hf_metaprune.__all__:
        assert getattr(hf_metaprune, name) is not None
    assert set(hf_metaprune.__all__) <= set(dir(hf_metaprune))
