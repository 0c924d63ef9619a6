"""A sample of a data set's images on the Hub, read by a process of its own: a stranger chose the data set.

The process has no token, a limit of memory, and is ended when time is over. It reads parquet files of that repo alone,
those that the Hub makes of every public data set if there are any, and runs nothing of what it reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

import numpy as np

from ..errors import DataError, MetaPruneError, printable, reason
from ..files.names import is_repo_id
from ..hub.client import hub_api, hub_errors
from .sources import IMAGE_NAMES, LABEL_NAMES, TRAIN_NAMES, pick_column

CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps data sets as parquet."""
MEMORY = 3 << 30
"""Bytes of data that the process may hold."""
GROUP_BYTES = 256_000_000
"""Row groups that say they are larger are not read."""
MOST_FILES, MOST_GROUPS, PATIENCE = 16, 400, 20
"""Files and row groups that are looked at, and groups in a row that bring nothing new."""
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OAUTH_CLIENT_SECRET")
LONGEST_HEADER = 20_000


@dataclass(frozen=True)
class Wanted:
    """What to take of a data set: so many images of so many classes, or of those named."""

    repo_id: str
    classes: int = 10
    per_class: int = 20
    names: tuple[str, ...] = ()
    file_bytes: int = 25_000_000


def sampled(wanted: Wanted, seconds: float) -> Iterator[tuple[str, bytes]]:
    """Class and encoded image, one after the other, until there are enough or time is over.

    Raises:
        DataError: it is no id, there is no such public data set, it has no images with labels, the Hub cannot be
            reached, or nothing came in time.
    """
    wanted = replace(wanted, repo_id=wanted.repo_id.removeprefix("https://huggingface.co/datasets/").strip("/"))
    if not is_repo_id(wanted.repo_id):
        raise DataError("that is no id of a data set; ids are owner/name, such as beans-lovers/beans")
    with tempfile.TemporaryDirectory() as home:
        env = {k: v for k, v in os.environ.items() if k not in TOKENS}
        env |= {"HF_HOME": home, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
        command = [sys.executable, "-m", __name__, json.dumps(asdict(wanted))]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
        )
        assert child.stdout
        late = threading.Timer(seconds, child.kill)
        late.start()
        came = False
        try:
            for found in _frames(child.stdout, wanted.file_bytes):
                came = True
                yield found
        finally:
            late.cancel()
            child.kill()
            child.wait()
            child.stdout.close()
        if not came:
            raise DataError(f"no images of {wanted.repo_id} came within {seconds:g} s: try a smaller data set")


def _frames(stream: IO[bytes], most: int) -> Iterator[tuple[str, bytes]]:
    while line := stream.readline(LONGEST_HEADER):
        try:
            head = json.loads(line)
        except ValueError:  # cut off
            return
        if "error" in head:
            raise DataError(head["error"])
        data = stream.read(min(int(head["size"]), most))
        if len(data) < head["size"]:
            return
        yield head["label"], data


def find(wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """What `sampled` yields, in this process.

    Raises:
        DataError: there are no images with labels.
        HubError: there is no such public data set, or the Hub cannot be reached.
    """
    import pyarrow as pa

    with hub_errors(wanted.repo_id, "read the data set"):
        try:
            yield from _Taking(wanted).run(_parquet_files(wanted.repo_id))
        except pa.ArrowInvalid as error:
            raise DataError(f"{wanted.repo_id} is damaged: {reason(error)}") from error


def _parquet_files(repo_id: str) -> list[str]:
    """Paths, as the Hub's file system has them, of the files of the split to learn from."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    api = hub_api(False)
    for revision in (CONVERTED, "main"):
        try:
            paths = api.list_repo_files(repo_id, repo_type="dataset", revision=revision)
        except RevisionNotFoundError:
            continue
        except RepositoryNotFoundError:
            raise DataError(f"there is no public data set {repo_id} on the Hub: look at its name there") from None
        found = _of_training([path for path in paths if path.endswith(".parquet")])
        if found:
            return [f"datasets/{repo_id}@{revision.replace('/', '%2F')}/{path}" for path in found]
    raise DataError(f"{repo_id} has no parquet files: the Hub makes them of public data sets of images, after a while")


def _of_training(paths: Sequence[str]) -> list[str]:
    """Of a repo's files those of one configuration and of the split to learn from."""
    folders = sorted({path.partition("/")[0] for path in paths if "/" in path})
    if folders:
        first = next((name for name in ("default", "plain_text") if name in folders), folders[0])
        paths = [path for path in paths if path.startswith(f"{first}/")]
    training = [p for p in paths if any(name in p.lower() for name in TRAIN_NAMES)]
    return sorted(training or paths)


class _Taking:
    """Row groups in a random order, until there is enough of each class."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted, self.rng = wanted, np.random.default_rng(0)
        self.held: Counter[str] = Counter()
        self.waiting = set(wanted.names)
        self.most = len(self.waiting) or wanted.classes

    def run(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        from huggingface_hub import HfFileSystem

        files = HfFileSystem(token=False)
        idle = 0
        for file, group in self._groups(files, paths):
            before = sum(self.held.values())
            yield from self._of_group(file, group)
            idle = 0 if sum(self.held.values()) > before else idle + 1
            full = [name for name, count in self.held.items() if count >= self.wanted.per_class]
            if len(full) >= self.most or idle >= PATIENCE:
                break
        if not sum(self.held.values()):
            names = f" of {', '.join(sorted(self.waiting))}" if self.waiting else ""
            raise DataError(f"{self.wanted.repo_id}: no images{names} were found")

    def _groups(self, files: Any, paths: Sequence[str]) -> Iterator[tuple[Any, int]]:
        """Files and numbers of row groups: one of each file in turn."""
        import pyarrow.parquet as pq

        chosen = [paths[i] for i in self.rng.permutation(len(paths))[:MOST_FILES]]
        opened: dict[str, Any] = {}
        orders: dict[str, list[int]] = {}
        for number in range(MOST_GROUPS):
            path = chosen[number % len(chosen)]
            if path not in opened:
                opened[path] = pq.ParquetFile(files.open(path, block_size=1 << 20))
                orders[path] = self.rng.permutation(opened[path].num_row_groups).tolist()
            if orders[path]:
                yield opened[path], orders[path].pop()
            elif not any(orders.values()) and len(opened) == len(chosen):
                return

    def _of_group(self, file: Any, group: int) -> Iterator[tuple[str, bytes]]:
        if file.metadata.row_group(group).total_byte_size > GROUP_BYTES:
            return
        image, label, names = _columns(file.schema_arrow)
        self._know(names)
        labels = _as_names(file.read_row_group(group, columns=[label])[label].to_pylist(), names)
        rows = [i for i, name in enumerate(labels) if name is not None and self._takes(name)]
        if not rows:
            return
        images = file.read_row_group(group, columns=[image])[image]
        for i in rows:
            name, value = labels[i], images[i].as_py()
            data = value.get("bytes") if isinstance(value, dict) else value
            if name is None or self.held[name] >= self.wanted.per_class:
                continue
            if isinstance(data, bytes) and len(data) <= self.wanted.file_bytes:
                self.held[name] += 1
                yield name, data

    def _know(self, names: Sequence[str] | None) -> None:
        """Refuse a name that the data set has not; of fewer classes than wanted, all are enough."""
        if names is None:
            return
        unknown = sorted(self.waiting - set(names))
        if unknown:
            some = ", ".join(names[:20])
            raise DataError(f"{self.wanted.repo_id} has no class {unknown[0]!r}; it has {some}")
        self.most = min(self.most, len(names))

    def _takes(self, name: str) -> bool:
        """Whether an image of that class is still wanted; a class that is new takes its place."""
        if self.waiting:
            return name in self.waiting and self.held[name] < self.wanted.per_class
        if name not in self.held and len(self.held) < self.wanted.classes:
            self.held[name] = 0
        return name in self.held and self.held[name] < self.wanted.per_class


def _columns(schema: Any) -> tuple[str, str, list[str] | None]:
    """The columns of images and of labels, and the classes' names where numbers stand for them.

    Raises:
        DataError: there are none, or several.
    """
    import datasets

    try:
        features = datasets.Features.from_arrow_schema(schema)
    except Exception as error:  # the schema's metadata is a stranger's
        raise DataError(f"its columns cannot be understood: {reason(error)}") from error
    is_image = {n for n, f in features.items() if isinstance(f, datasets.Image)}
    is_label = {n for n, f in features.items() if isinstance(f, datasets.ClassLabel)}
    image = pick_column("image", None, features, is_image, IMAGE_NAMES)
    label = pick_column("label", None, features, is_label, LABEL_NAMES)
    return image, label, list(features[label].names) if label in is_label else None


def _as_names(labels: Sequence[Any], names: Sequence[str] | None) -> list[str | None]:
    if names is None:
        return [str(v) if isinstance(v, (str, int)) else None for v in labels]
    return [names[v] if isinstance(v, int) and 0 <= v < len(names) else None for v in labels]


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def main() -> None:
    """The process: what is wanted is its argument, as JSON; what is found goes out in frames."""
    _limit_memory()
    asked = json.loads(sys.argv[1])
    out = sys.stdout.buffer
    try:
        for label, data in find(Wanted(**asked | {"names": tuple(asked["names"])})):
            out.write(json.dumps({"label": label[:1000], "size": len(data)}).encode() + b"\n" + data)
            out.flush()
    except MetaPruneError as error:
        out.write(json.dumps({"error": printable(str(error))[:2000]}).encode() + b"\n")
    except Exception as error:  # files of strangers: readers raise anything
        out.write(json.dumps({"error": printable(f"it cannot be read: {reason(error)}")[:2000]}).encode() + b"\n")


if __name__ == "__main__":
    main()
