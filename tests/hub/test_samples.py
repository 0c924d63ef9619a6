"""Images of a data set on the Hub: a few of each class, read by a process of its own, whatever is in the files."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_metaprune.data import hub_samples as samples
from hf_metaprune.data.hub_samples import CONVERTED, SampleRequest, read_samples, stream_samples
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.errors import DataError
from tests.hub.server import LoopbackHub

CLASSES = ["ant", "bee", "cod", "dog"]
REPO = "lab/animals"


def picture(number: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def parquet(path: Path, labels: list[object], has_names: bool = True, group: int = 10) -> Path:
    """A file of pictures with labels, in row groups, as `datasets` writes them."""
    kind = datasets.ClassLabel(names=CLASSES) if has_names else datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    images = [{"bytes": picture(i), "path": None} for i in range(len(labels))]
    table = pa.table({"image": images, "label": labels}).cast(features.arrow_schema)
    pq.write_table(table, path, row_group_size=group)
    return path


@pytest.fixture
def served(hub: LoopbackHub, tmp_path: Path) -> LoopbackHub:
    """A data set sorted by class, 30 pictures each."""
    hub.add_org("lab", [])
    file = parquet(tmp_path / "train.parquet", [c for c in range(4) for _ in range(30)])
    hub.put_files(REPO, {"data/train-00000-of-00001.parquet": file.read_bytes()}, repo_type="dataset")
    return hub


def counts(request: SampleRequest) -> Counter[str]:
    return Counter(label for label, _ in read_samples(request))


def test_as_many_of_each_class_as_asked_for_even_where_they_are_sorted(served: LoopbackHub) -> None:
    assert counts(SampleRequest(REPO, per_class=7)) == dict.fromkeys(CLASSES, 7)
    assert counts(SampleRequest(REPO, per_class=5, names=("bee", "dog"))) == {"bee": 5, "dog": 5}
    two = counts(SampleRequest(REPO, classes=2, per_class=6))
    assert len(two) == 2
    assert set(two.values()) == {6}
    assert counts(SampleRequest(REPO, per_class=6)) == counts(SampleRequest(REPO, per_class=6))


@pytest.mark.slow
def test_the_process_gives_photos(served: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    from hf_metaprune.app.uploads import Photos  # Gradio, which takes seconds to import, comes with it

    photos = Photos(Preprocessing((3, 32, 32)))
    receipt = photos.add_from_hub(SampleRequest(REPO, per_class=3, names=("ant", "cod")))
    assert receipt.n_added == 6
    assert {name: len(images) for name, images in photos.by_class.items()} == {"ant": 3, "cod": 3}
    with pytest.raises(DataError, match="no public data set lab/nothing"):
        photos.add_from_hub(SampleRequest("lab/nothing"))
    with pytest.raises(DataError, match="no class 'eel'; it has ant, bee"):
        photos.add_from_hub(SampleRequest(REPO, names=("eel",)))


def test_nobodys_token_is_used(served: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_owner_of_the_server")
    counts(SampleRequest(REPO, per_class=1))
    assert served.requests
    assert all(request.authorization is None for request in served.requests)


def test_what_the_hub_made_of_a_data_set_comes_first(served: LoopbackHub, tmp_path: Path) -> None:
    file = parquet(tmp_path / "x.parquet", ["wolf", "fox"] * 10, has_names=False)
    content = {"default/train/0000.parquet": file.read_bytes(), "default/test/0000.parquet": b"no parquet"}
    repo = served.repo(REPO, "dataset")
    repo.branches[CONVERTED] = repo.branches["main"]
    paths = ["data/train-00000-of-00001.parquet"]
    served.put_files(REPO, content, repo_type="dataset", branch=CONVERTED, delete=paths)
    assert counts(SampleRequest(REPO, per_class=4)) == {"wolf": 4, "fox": 4}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"README.md": b"words"}, "has no parquet files"),
        ({"train.parquet": b"PAR1" + bytes(40) + b"PAR1"}, "cannot read the data set"),
        ({"train.parquet": b""}, "is damaged"),
    ],
)
def test_what_holds_no_images_is_refused(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes], says: str
) -> None:
    hub.add_org("lab", [])
    hub.put_files(REPO, content, repo_type="dataset")
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(DataError, match=says):
        list(stream_samples(SampleRequest(REPO), 60))


@pytest.mark.parametrize("name", ["", "cats", "../../etc", "a/b/c", "https://example.org/x", "a/b?c", "file:///etc"])
def test_what_is_no_id_is_refused_before_anything_is_asked(name: str) -> None:
    with pytest.raises(DataError, match="no id of a data set"):
        list(stream_samples(SampleRequest(name), 10))


def test_paths_in_files_are_not_followed(hub: LoopbackHub, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(0))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    images = [{"bytes": None, "path": str(secret)}] * 4
    table = pa.table({"image": images, "label": [0, 1, 2, 3]}).cast(features.arrow_schema)
    pq.write_table(table, tmp_path / "train.parquet")
    hub.add_org("lab", [])
    hub.put_files(REPO, {"train.parquet": (tmp_path / "train.parquet").read_bytes()}, repo_type="dataset")
    with pytest.raises(DataError, match="no images were found"):
        counts(SampleRequest(REPO))


def test_large_groups_and_files_are_left(served: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no images were found"):
        counts(SampleRequest(REPO, per_class=2, file_bytes=10))
    monkeypatch.setattr(samples, "MAX_GROUP_BYTES", 100)
    with pytest.raises(DataError, match="no images were found"):
        counts(SampleRequest(REPO, per_class=2))


def test_time_ends_it(served: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(DataError, match=r"within 0\.01 s"):
        list(stream_samples(SampleRequest(REPO), 0.01))
