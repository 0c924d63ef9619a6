"""Lists of (image, label), and torch data sets that give such pairs, as a split."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError, reason
from .limits import MAX_CORRUPT_SHARE
from .split import Split, convert_labels, python_value


def read_pairs(source: Any) -> Split:
    """Read a list of (image, label), or a torch data set that gives such pairs.

    Raises:
        DataError: the source has no items, or its items are not such pairs.
    """
    kind = type(source).__name__
    try:
        n = len(source)
        labels = _known_labels(source, n)
    except (TypeError, IndexError, KeyError, ValueError, OSError) as error:
        raise DataError(f"cannot read a {kind} as (image, label) pairs: {reason(error)}") from error
    if not n:
        raise DataError("the data set has no image")
    unreadable: dict[int, str] = {}
    if labels is None:
        labels, unreadable = _read_labels(source, n, kind)
    rows = [i for i in range(n) if i not in unreadable]
    classes, dataset = None, source
    while classes is None and dataset is not None:  # torch's Subset hides the names
        classes, dataset = getattr(dataset, "classes", None), getattr(dataset, "dataset", None)
    values = [python_value(labels[i]) for i in rows]
    if classes is not None and all(isinstance(v, int) and 0 <= v < len(classes) for v in values):
        present = set(values)
        texts, names = [str(classes[v]) for v in values], [str(c) for i, c in enumerate(classes) if i in present]
    else:
        texts, names = convert_labels(values)
    messages = [f"{_item_name(i)}: {why}" for i, why in unreadable.items()]
    return Split(lambda i: source[rows[i]][0], texts, names, lambda i: _item_name(rows[i]), messages)


def _known_labels(source: Any, n: int) -> list[Any] | None:
    """Return the labels, if the source knows them without decoding images, or else None."""
    if isinstance(source, (list, tuple)):
        return [pair[1] for pair in source]
    targets = getattr(source, "targets", None)
    if targets is None and hasattr(source, "dataset") and hasattr(source, "indices"):
        inner = getattr(source.dataset, "targets", None)
        targets = None if inner is None else np.asarray(inner)[list(source.indices)]
    if targets is None or len(targets) != n:
        return None
    labels = list(np.asarray(targets).tolist())
    return labels if _match_items(source, labels) else None


def _match_items(source: Any, labels: list[Any]) -> bool:
    """Return whether the first item of each label has that label.

    A `target_transform` gives items other labels than those that a source keeps.
    """
    firsts = {label: i for i, label in reversed([*enumerate(labels)])}
    for label, i in firsts.items():
        try:
            if python_value(source[i][1]) != label:
                return False
        except MemoryError:
            raise
        except Exception:  # an item that cannot be read is reported later
            continue
    return True


def _read_labels(source: Any, n: int, kind: str) -> tuple[list[Any], dict[int, str]]:
    """Read all items for their labels.

    Returns:
        A label per item, None for an item that cannot be read, and the reason per such item.

    Raises:
        DataError: so many items cannot be read that the images would be refused, too.
    """
    labels: list[Any] = []
    unreadable: dict[int, str] = {}
    for i in range(n):
        try:
            labels.append(source[i][1])
        except MemoryError:
            raise
        except Exception as error:  # data sets of others raise anything
            labels.append(None)
            unreadable[i] = reason(error)
            if len(unreadable) > MAX_CORRUPT_SHARE * n:
                why = "; ".join(f"{_item_name(k)}: {text}" for k, text in list(unreadable.items())[:3])
                raise DataError(
                    f"cannot read a {kind} as (image, label) pairs: {why}; up to 1% of items are skipped"
                ) from error
    return labels, unreadable


def _item_name(i: int) -> str:
    return f"item {i}"
