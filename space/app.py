"""The Space of hf_metaprune: the page is in the package; this names the bank and the examples."""

from pathlib import Path

from hf_metaprune.app import launch, make_app

HERE = Path(__file__).parent

if __name__ == "__main__":
    launch(make_app(HERE / "demo_bank", HERE / "examples")).block()
