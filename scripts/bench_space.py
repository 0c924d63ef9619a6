#!/usr/bin/env python
"""Benchmark: how long the page keeps a visitor waiting, from its start to the model of the shipped example.

Three spans, in a real browser: from the command to an answer with the page; from the press of "Make my model" to the
first sign of progress; and from that press to a model that can be tried. It takes Chromium (apt-get install chromium,
or the like), and a machine with nothing else to do.

    uv run --extra dev scripts/bench_space.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.error import URLError

import gradio
import torch
import typer
from playwright.sync_api import sync_playwright

BARS = {"page": 10.0, "first sign": 2.0, "model": 60.0}
"""Seconds that are hoped for."""
PATIENCE = 300.0


@contextmanager
def served(port: int) -> Iterator[float]:
    """``hf-metaprune space`` in a process of its own; seconds until it answered with the page."""
    began = time.perf_counter()
    server = subprocess.Popen(["hf-metaprune", "space", "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        yield answered(f"http://127.0.0.1:{port}/", server) - began
    finally:
        server.terminate()
        server.wait()


def answered(url: str, server: subprocess.Popen) -> float:
    """When the page was there.

    Raises:
        SystemExit: the server has ended, or is silent for too long.
    """
    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                answer.read()
                return time.perf_counter()
        except (URLError, OSError):
            time.sleep(0.02)
    raise SystemExit("the page could not be served")


def visit(page: Any, url: str) -> dict[str, float]:
    """Seconds that the example takes."""
    page.goto(url)
    page.get_by_role("button", name="Use these photos").click()
    page.locator("#classes .class").first.wait_for()
    page.get_by_role("button", name="Make my model").click()
    began = time.perf_counter()
    page.locator("#progress :text('Looking')").first.wait_for()
    sign = time.perf_counter() - began
    page.locator("#result .tiles").wait_for()
    return {"first sign": sign, "model": time.perf_counter() - began}


def main(
    runs: Annotated[int, typer.Option(help="Times to start the page.")] = 3,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 7863,
) -> None:
    """Start it, visit it, and print the seconds of each run beside what is hoped for."""
    timings: dict[str, list[float]] = {name: [] for name in BARS}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(runs):
            with served(port) as start:
                page = browser.new_page()
                page.set_default_timeout(PATIENCE * 1000)
                for name, seconds in {"page": start, **visit(page, f"http://127.0.0.1:{port}/")}.items():
                    timings[name].append(seconds)
                page.close()
        browser.close()
    print(f"gradio {gradio.__version__}, torch {torch.__version__}, {os.cpu_count()} cores")
    for name, seconds in timings.items():
        print(f"{name}: {', '.join(f'{s:.1f}' for s in seconds)} s (hoped for: {BARS[name]:.0f})")


if __name__ == "__main__":
    typer.run(main)
