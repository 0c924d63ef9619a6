#!/usr/bin/env python
"""Take the pictures of the page that the documentation shows: a visitor's whole way, with the demo bank.

It takes Chromium (apt-get install chromium, or the like), and the extras space and dev.

    uv run --extra dev scripts/screenshots.py
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from playwright.sync_api import sync_playwright

from hf_metaprune.app import BANK_PAGE, launch, make_app

ROOT = Path(__file__).parents[1]
WIDTH, SHOWN = 960, 720
PATIENCE = 300_000  # milliseconds


def keep(page: Any, path: Path) -> None:
    """The whole page as a small PNG of few colors."""
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    small = shot.resize((SHOWN, round(shot.height * SHOWN / shot.width)), Image.Resampling.LANCZOS)
    small.quantize(256).save(path, optimize=True)
    print(path, small.size, path.stat().st_size)


def visit(page: Any, url: str, out: Path) -> None:
    page.goto(url)
    page.get_by_role("button", name="Use these photos").click()
    page.locator("#classes .class").first.wait_for()
    page.get_by_role("button", name="Make my model").click()
    page.locator("#result .tiles").wait_for()
    page.get_by_role("button", name="Make my model").wait_for()
    keep(page, out / "space.png")
    page.goto(url + BANK_PAGE)
    page.locator("#pictures svg").nth(2).wait_for()
    page.get_by_label("Search").fill("tiger")
    page.wait_for_function("document.querySelectorAll('#entries tbody tr').length < 10")
    page.set_viewport_size({"width": WIDTH, "height": 300})  # the page was higher before the search
    keep(page, out / "bank_page.png")


def main(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = ROOT / "docs",
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 7862,
) -> None:
    """Serve the page, visit it, and write the pictures."""
    app = make_app(ROOT / "space" / "demo_bank", ROOT / "space" / "examples")
    launch(app, server_port=port, quiet=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.set_default_timeout(PATIENCE)
        visit(page, f"http://127.0.0.1:{port}/", out)
        browser.close()
    app.page.close()


if __name__ == "__main__":
    typer.run(main)
