"""A sample of images from a data set on the Hub, read by a process of its own, because a stranger chose the data set.

The process has no token and a limit of memory, and it is killed when time is over. It reads only parquet files of that
repo, preferably those that the Hub makes of every public data set. It runs no code of the data set.
"""

from __future__ import annotations

import json
import os
import re
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
MAX_MEMORY_BYTES = 3 << 30
"""Memory that the process may allocate."""
MAX_GROUP_BYTES = 256_000_000
"""Row groups whose metadata says that they are larger are not read."""
MAX_FILES, MAX_GROUPS, MAX_IDLE_GROUPS = 16, 400, 20
"""Most files and row groups that are read, and most row groups in a row without a new image."""
PASSED_VARIABLES = re.compile(
    r"PATH|PYTHON\w*|VIRTUAL_ENV|LD_LIBRARY_PATH|LANG|LC_\w+|TMPDIR|TEMP|TMP|SYSTEMROOT|HF_ENDPOINT|HF_HUB_OFFLINE"
    r"|HF_HUB_\w*TIMEOUT|\w+_PROXY|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE",
    re.IGNORECASE,
)
"""Environment variables that the process gets: what it needs to run and to reach the Hub, and no token."""
MAX_HEADER_BYTES = 20_000
"""Longest line of JSON before an image between the processes."""


@dataclass(frozen=True)
class SampleRequest:
    """The images to read from a data set."""

    repo_id: str
    """Id of the data set on the Hub."""
    classes: int = 10
    """Number of classes; ignored if `names` are given."""
    per_class: int = 20
    """Images per class."""
    names: tuple[str, ...] = ()
    """Names of the classes; empty for any classes."""
    file_bytes: int = 25_000_000
    """Most bytes of an encoded image; larger images are skipped."""


def stream_samples(request: SampleRequest, seconds: float) -> Iterator[tuple[str, bytes]]:
    """Yield class name and encoded image until there are enough images, or time is over.

    Args:
        request: which images to read; the address of the data set's page is accepted as its id.
        seconds: time after which the reading process is killed.

    Raises:
        DataError: the id is not valid, there is no such public data set, it has no images with labels, the Hub cannot
            be reached, or no image came in time.
    """
    request = replace(request, repo_id=request.repo_id.removeprefix("https://huggingface.co/datasets/").strip("/"))
    if not is_repo_id(request.repo_id):
        raise DataError("that is no id of a data set; ids are owner/name, such as beans-lovers/beans")
    with tempfile.TemporaryDirectory() as home:
        env = {name: value for name, value in os.environ.items() if PASSED_VARIABLES.fullmatch(name)}
        env |= {"HF_HOME": home, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
        command = [sys.executable, "-m", __name__, json.dumps(asdict(request))]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
        )
        assert child.stdout
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        has_images = False
        try:
            for sample in _read_frames(child.stdout, request.file_bytes):
                has_images = True
                yield sample
        finally:
            timer.cancel()
            child.kill()
            child.wait()
            child.stdout.close()
        if not has_images:
            raise DataError(f"no images of {request.repo_id} came within {seconds:g} s: try a smaller data set")


def _read_frames(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield class name and encoded image from the process's output: a line of JSON, then the image's bytes."""
    while line := stream.readline(MAX_HEADER_BYTES):
        try:
            header = json.loads(line)
        except ValueError:  # the process was killed within the line
            return
        if "error" in header:
            raise DataError(header["error"])
        data = stream.read(min(int(header["size"]), max_bytes))
        if len(data) < header["size"]:
            return
        yield header["label"], data


def read_samples(request: SampleRequest) -> Iterator[tuple[str, bytes]]:
    """Yield what `stream_samples` yields, but read in this process.

    Raises:
        DataError: there are no images with labels.
        HubError: there is no such public data set, or the Hub cannot be reached.
    """
    import pyarrow as pa

    with hub_errors(request.repo_id, "read the data set"):
        try:
            yield from _Sampler(request).run(_parquet_files(request.repo_id))
        except pa.ArrowInvalid as error:
            raise DataError(f"{request.repo_id} is damaged: {reason(error)}") from error


def _parquet_files(repo_id: str) -> list[str]:
    """Return the paths of the training split's files, as the Hub's file system names them."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    api = hub_api(False)
    for revision in (CONVERTED, "main"):
        try:
            paths = api.list_repo_files(repo_id, repo_type="dataset", revision=revision)
        except RevisionNotFoundError:
            continue
        except RepositoryNotFoundError:
            raise DataError(f"there is no public data set {repo_id} on the Hub: look at its name there") from None
        files = _training_files([path for path in paths if path.endswith(".parquet")])
        if files:
            return [f"datasets/{repo_id}@{revision.replace('/', '%2F')}/{path}" for path in files]
    raise DataError(f"{repo_id} has no parquet files: the Hub makes them of public data sets of images, after a while")


def _training_files(paths: Sequence[str]) -> list[str]:
    """Return those of a repo's files that belong to its first configuration and to the training split."""
    folders = sorted({path.partition("/")[0] for path in paths if "/" in path})
    if folders:
        first = next((name for name in ("default", "plain_text") if name in folders), folders[0])
        paths = [path for path in paths if path.startswith(f"{first}/")]
    training = [p for p in paths if any(name in p.lower() for name in TRAIN_NAMES)]
    return sorted(training or paths)


class _Sampler:
    """A reader of row groups in a random order, until there are enough images of each class."""

    def __init__(self, request: SampleRequest) -> None:
        self.request, self.rng = request, np.random.default_rng(0)
        self.counts: Counter[str] = Counter()
        self.requested = set(request.names)
        self.max_classes = len(self.requested) or request.classes

    def run(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield class name and encoded image from some of the files.

        Raises:
            DataError: no image was found, or a requested class does not exist.
        """
        from huggingface_hub import HfFileSystem

        files = HfFileSystem(token=False)
        idle = 0
        for file, group in self._groups(files, paths):
            before = sum(self.counts.values())
            yield from self._read_group(file, group)
            idle = 0 if sum(self.counts.values()) > before else idle + 1
            full_classes = [name for name, count in self.counts.items() if count >= self.request.per_class]
            if len(full_classes) >= self.max_classes or idle >= MAX_IDLE_GROUPS:
                break
        if not sum(self.counts.values()):
            names = f" of {', '.join(sorted(self.requested))}" if self.requested else ""
            raise DataError(f"{self.request.repo_id}: no images{names} were found")

    def _groups(self, files: Any, paths: Sequence[str]) -> Iterator[tuple[Any, int]]:
        """Yield a file and the number of a row group, one group of each file in turn."""
        import pyarrow.parquet as pq

        sampled_paths = [paths[i] for i in self.rng.permutation(len(paths))[:MAX_FILES]]
        open_files: dict[str, Any] = {}
        orders: dict[str, list[int]] = {}
        for number in range(MAX_GROUPS):
            path = sampled_paths[number % len(sampled_paths)]
            if path not in open_files:
                open_files[path] = pq.ParquetFile(files.open(path, block_size=1 << 20))
                orders[path] = self.rng.permutation(open_files[path].num_row_groups).tolist()
            if orders[path]:
                yield open_files[path], orders[path].pop()
            elif not any(orders.values()) and len(open_files) == len(sampled_paths):
                return

    def _read_group(self, file: Any, group: int) -> Iterator[tuple[str, bytes]]:
        """Yield class name and encoded image of the needed rows of a row group."""
        if file.metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
            return
        image, label, names = _find_columns(file.schema_arrow)
        self._check_classes(names)
        labels = _class_names(file.read_row_group(group, columns=[label])[label].to_pylist(), names)
        rows = [i for i, name in enumerate(labels) if name is not None and self._is_needed(name)]
        if not rows:
            return
        images = file.read_row_group(group, columns=[image])[image]
        for i in rows:
            name, value = labels[i], images[i].as_py()
            data = value.get("bytes") if isinstance(value, dict) else value
            if name is None or self.counts[name] >= self.request.per_class:
                continue
            if isinstance(data, bytes) and len(data) <= self.request.file_bytes:
                self.counts[name] += 1
                yield name, data

    def _check_classes(self, names: Sequence[str] | None) -> None:
        """Refuse requested classes that the data set lacks, and expect no more classes than it has."""
        if names is None:
            return
        unknown = sorted(self.requested - set(names))
        if unknown:
            examples = ", ".join(names[:20])
            raise DataError(f"{self.request.repo_id} has no class {unknown[0]!r}; it has {examples}")
        self.max_classes = min(self.max_classes, len(names))

    def _is_needed(self, name: str) -> bool:
        """Return whether an image of that class is still needed; a new class is added if there is room for it."""
        if self.requested:
            return name in self.requested and self.counts[name] < self.request.per_class
        if name not in self.counts and len(self.counts) < self.request.classes:
            self.counts[name] = 0
        return name in self.counts and self.counts[name] < self.request.per_class


def _find_columns(schema: Any) -> tuple[str, str, list[str] | None]:
    """Return the columns of images and of labels, and the classes' names if labels are numbers.

    Raises:
        DataError: there is no such column, or there are several.
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


def _class_names(labels: Sequence[Any], names: Sequence[str] | None) -> list[str | None]:
    """Return the class name per label, or None for a label without one."""
    if names is None:
        return [str(v) if isinstance(v, (str, int)) else None for v in labels]
    return [names[v] if isinstance(v, int) and 0 <= v < len(names) else None for v in labels]


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


def main() -> None:
    """Run the process: read the request from the first argument, as JSON, and write samples to the standard output."""
    _limit_memory()
    fields = json.loads(sys.argv[1])
    output = sys.stdout.buffer
    try:
        for label, data in read_samples(SampleRequest(**fields | {"names": tuple(fields["names"])})):
            output.write(json.dumps({"label": label[:1000], "size": len(data)}).encode() + b"\n" + data)
            output.flush()
    except MetaPruneError as error:
        output.write(json.dumps({"error": printable(str(error))[:2000]}).encode() + b"\n")
    except Exception as error:  # files of strangers: readers raise anything
        output.write(json.dumps({"error": printable(f"it cannot be read: {reason(error)}")[:2000]}).encode() + b"\n")


if __name__ == "__main__":
    main()
