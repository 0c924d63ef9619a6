"""The trunk of a bank on this machine: teaching it, storing it, and the checkpoints between."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from tqdm.auto import tqdm

from ..data.images import ImageSet
from ..errors import MetaPruneError
from ..files.layout import BANK_FILE, INDEX_FILE, TEACHING_FOLDER, TRUNK_FOLDER, TRUNK_VERSION
from ..files.reading import check_no_links
from ..files.storage import check_writable, new_folder, write_bytes, write_json
from ..models.saving import check_dtype
from ..training.hardware import pick_device
from ..trunk import Teaching, Trunk, TrunkOptions
from ..trunk.checkpoint import load_checkpoint, run_digest, save_checkpoint
from ..trunk.files import save_trunk
from .bank import Bank
from .entry_checks import check_trunk
from .index import index_bytes
from .meta import read_meta

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 60.0
"""Seconds of teaching between two checkpoints, which are lost if the process is killed."""


def teach_bank(
    bank: Bank,
    images: ImageSet,
    options: TrunkOptions | None = None,
    *,
    seed: int = 0,
    dtype: str = "float16",
    device: torch.device | None = None,
    progress: bool = False,
) -> Trunk:
    """Teach the trunk of a bank, and store it in the bank's folder in place of an earlier one.

    A process that was killed goes on from its last checkpoint if it is started again with the same images and options.

    Args:
        bank: a bank in a folder, see `Bank.create`.
        images: images like those that models of the bank will see; their labels are not used.
        options: sizes, schedule and losses; if left out, the defaults.
        seed: seed of batches, augmentation and sizes.
        dtype: how the weights are stored: ``float32``, ``float16`` or ``bfloat16``.
        device: where to teach; if left out, the best device that this machine has.
        progress: show a progress bar.

    Returns:
        The trunk, as it is stored.

    Raises:
        OptionError: the dtype is unknown, or a checkpoint is there of other images or options.
        LockedError: another process teaches the trunk of this bank.
        DataError: the loss is not finite, or there are fewer than two images.
        FormatError: the weights have run away from the base's; an earlier trunk stays.
        StorageError: the folder cannot be written.

    Example:
        A short run; a good trunk takes hours::

            trunk = teach_bank(bank, data.train, TrunkOptions(steps=10, lr=0.01), progress=True)
            print(trunk.ratios, trunk.facts["seconds"])
    """
    check_dtype(dtype)
    bank.complete_table()
    check_no_links(bank.root, f"{TEACHING_FOLDER}/{CHECKPOINT}")
    check_writable(bank.root / TRUNK_FOLDER, overwrite=True, need=bank.base_bytes)
    folder = bank.root / TEACHING_FOLDER
    with bank.lock("trunk", timeout=0):
        bank.__dict__.pop("trunk", None)  # another process may have stored another one
        teaching = Teaching(bank.base, images, options or TrunkOptions(), device or pick_device(), seed)
        digest = run_digest(teaching)
        if not _is_taught(bank, digest):
            load_checkpoint(teaching, folder / CHECKPOINT, digest)
            saved_at = time.monotonic()
            for _ in _steps(teaching, progress):
                if time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
                    save_checkpoint(teaching, folder / CHECKPOINT, digest)
                    saved_at = time.monotonic()
            trunk = teaching.trunk()
            check_trunk(trunk, "the trunk is not stored, use a smaller lr")
            _store(bank, replace(trunk, facts={**trunk.facts, "run": digest}), dtype)
        shutil.rmtree(folder, ignore_errors=True)
    bank.__dict__.pop("trunk", None)
    assert bank.trunk is not None
    return bank.trunk


def _steps(teaching: Teaching, progress: bool) -> Iterator[int]:
    """Take the steps that are left, and yield the number of each."""
    steps = teaching.options.steps
    bar = tqdm(
        range(teaching.step_number, steps), initial=teaching.step_number, total=steps, desc="teaching",
        disable=not progress, leave=False,
    )  # fmt: skip
    for step in bar:
        loss = teaching.step()
        if progress and step % 50 == 0:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        yield step


def _is_taught(bank: Bank, digest: str) -> bool:
    """Return whether the bank has the trunk of a run already."""
    try:
        return bank.trunk is not None and bank.trunk.facts.get("run") == digest
    except MetaPruneError as error:  # it is taught anew
        log.warning("the trunk that is there cannot be used: %s", error)
        return False


def _store(bank: Bank, trunk: Trunk, dtype: str) -> None:
    """Write the trunk's folder, then name it in the bank's files."""
    with new_folder(bank.root / TRUNK_FOLDER, overwrite=True) as work:
        save_trunk(trunk, work, dtype)
    with bank.lock():
        meta = read_meta(bank.root / BANK_FILE) | {"format_version": TRUNK_VERSION, "trunk": TRUNK_FOLDER}
        write_bytes(bank.root / INDEX_FILE, index_bytes(bank.complete_table(), meta))
        write_json(bank.root / BANK_FILE, meta)
        bank.meta = meta
