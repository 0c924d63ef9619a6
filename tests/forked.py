"""Other processes that need not import the library anew: each is a copy of one that has done so and nothing else."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.context
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["context", "run", "run_command"]

IMPORTED = ["timm", "hf_metaprune.pruner", "hf_metaprune.bank.factory", "hf_metaprune.cli.app"]
"""What the first process imports; tests that need more add it before they start it."""


def context() -> multiprocessing.context.ForkServerContext:
    """Return what starts such processes: ``context().Process(target=..., args=...)``."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__, *IMPORTED])
    return forks


def run(function: Callable[..., object], *arguments: object) -> None:
    """Call a function in such a process, and wait for it; an exception in it fails the test."""
    process = context().Process(target=function, args=arguments)
    process.start()
    process.join(300)
    assert process.exitcode == 0, f"{function.__name__} ended with {process.exitcode}; see standard error"


def run_command(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Run ``hf-metaprune`` in the process that this is called in.

    Args:
        arguments: the words after the command's name.
        log: the file that gets what the command writes.
        environment: variables that are read when the command runs, not when something is imported.
    """
    from hf_metaprune.cli import main

    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR counts
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    for output in (sys.stdout, sys.stderr):
        output.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = ["hf-metaprune", *arguments]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # which a process that was forked leaves out
