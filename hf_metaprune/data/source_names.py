"""Whether a data set can be where a user says, found out before it is read and before torch is imported."""

from __future__ import annotations

import glob
from pathlib import Path

from ..errors import DataError
from ..files.names import is_repo_id, user_path
from ..hub.client import hub_answers


def check_source(source: str | Path) -> None:
    """Check that a data set may be where a user says, without reading it.

    Args:
        source: a path, a pattern of paths, or the id of a data set on the Hub.

    Raises:
        DataError: there is no such file or folder, and the name has not the form of an id, or the Hub cannot be
            reached and the cache does not have the data set.
        OptionError: the path is empty, or too long for a path.
    """
    if user_path(source).exists() or (isinstance(source, str) and glob.has_magic(source)):
        return
    if isinstance(source, Path) or not is_repo_id(source):
        raise DataError(f"there is no file or folder {source}, and it is no id on the Hub: such ids are owner/name")
    from huggingface_hub import constants

    if (constants.HF_HUB_OFFLINE or not hub_answers()) and not _is_cached(source):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        raise DataError(
            f"there is no file or folder {source}, and no such data set in the cache, and {why}: check the name"
        )


def _is_cached(repo_id: str) -> bool:
    """Return whether the cache of `datasets` has a data set of the Hub."""
    from datasets import config

    return (Path(config.HF_DATASETS_CACHE) / repo_id.replace("/", "___")).exists()
