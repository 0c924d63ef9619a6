"""Every kind of data set a user may have, and every way it can be wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_metaprune.data.loading import read_task_data
from hf_metaprune.errors import DataError, OptionError
from tests.tiny import tiny_preprocessing

NAMES = ("ant", "bee", "cow")


def picture(c: int, i: int) -> Image.Image:
    rng = np.random.default_rng(100 * c + i)
    return Image.fromarray(rng.integers(80 * c, 80 * c + 80, (36, 40, 3), dtype=np.uint8))


def write_folder(root: Path, per_class: int = 6, names: tuple[str, ...] = NAMES) -> Path:
    for c, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            picture(c, i).save(root / name / f"{i}.{'jpg' if i % 2 else 'png'}")
    return root


def dataset(per_class: int = 6, names: tuple[str, ...] = NAMES, **columns: str) -> datasets.Dataset:
    image, label = columns.get("image", "image"), columns.get("label", "label")
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(names))})
    rows = [(picture(c, i), c) for c in range(len(names)) for i in range(per_class)]
    return datasets.Dataset.from_dict({image: [r[0] for r in rows], label: [r[1] for r in rows]}, features=features)


def read(source: object, **options: object):
    return read_task_data(source, tiny_preprocessing(), **options)


class Torch(torch.utils.data.Dataset):
    classes = NAMES

    def __len__(self) -> int:
        return 18

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        if i >= len(self):
            raise IndexError(i)
        return torch.from_numpy(np.array(picture(i % 3, i))).permute(2, 0, 1), i % 3


def test_all_sources_give_the_same_task(tmp_path: Path) -> None:
    whole = dataset()
    whole.to_parquet(tmp_path / "parquet" / "train.parquet")
    whole.save_to_disk(tmp_path / "saved")
    sources = [
        whole,
        datasets.DatasetDict({"train": whole}),
        write_folder(tmp_path / "folder"),
        str(tmp_path / "folder"),
        tmp_path / "parquet" / "train.parquet",
        tmp_path / "parquet",
        tmp_path / "saved",
        [(picture(c, i), name) for c, name in enumerate(NAMES) for i in range(6)],
        Torch(),
    ]
    for source in sources:
        data = read(source)
        assert data.task.labels == NAMES, source
        assert (len(data.train), len(data.evaluation)) == (15, 3), source
        assert sorted(data.evaluation.targets.tolist()) == [0, 1, 2], source
        brightness = [data.train.images[data.train.targets == c].float().mean().item() for c in range(3)]
        assert brightness == sorted(brightness), source
        assert "held back" in data.evaluation_split


def test_splits_are_used_where_there_are_some(tmp_path: Path) -> None:
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2)
    data = read(tmp_path)
    assert (len(data.train), len(data.evaluation), data.evaluation_split) == (18, 6, "test")
    both = datasets.DatasetDict({"train": dataset(), "validation": dataset(3)})
    assert read(both).evaluation_split == "validation"


def test_held_back_images_are_stratified_and_follow_the_seed() -> None:
    first, same, other = (read(dataset(10), seed=s).evaluation.images for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert len(read(dataset(10), evaluation_share=0.5).evaluation) == 15
    assert len(read(dataset(2)).evaluation) == 3  # one of two


def test_columns_are_found_by_type_by_name_or_as_told() -> None:
    assert read(dataset(image="scan", label="finding")).task.labels == NAMES
    strings = dataset().cast_column("label", datasets.Value("string"))
    assert read(strings).task.labels == ("0", "1", "2")
    two = dataset().add_column("coarse", [0] * 18).cast_column("coarse", datasets.ClassLabel(names=["x"]))
    assert read(two).task.labels == NAMES
    odd = two.rename_column("label", "fine").rename_column("coarse", "rough")
    with pytest.raises(DataError, match="several label columns: fine, rough.*label_column="):
        read(odd)
    assert read(odd, label_column="fine").task.labels == NAMES
    with pytest.raises(DataError, match="no column 'nosuch'; columns: image, label"):
        read(dataset(), image_column="nosuch")
    with pytest.raises(DataError, match="no image column among: a, label"):
        read(datasets.Dataset.from_dict({"a": [1, 2], "label": ["x", "y"]}))


def test_integer_labels_are_ordered_as_numbers() -> None:
    pairs = [(picture(c % 3, c), c) for c in (10, 9, 2, 10, 9, 2)]
    assert read(pairs).task.labels == ("2", "9", "10")


def test_classes_without_images_are_dropped() -> None:
    part = dataset().filter(lambda label: label != 1, input_columns="label")
    assert read(part).task.labels == ("ant", "cow")


def test_explicit_synsets_are_kept() -> None:
    assert read(dataset(), synsets=["ant.n.01", None, "cow.n.01"]).task.synsets == ("ant.n.01", None, "cow.n.01")
    with pytest.raises(DataError, match="2 synsets for 3 labels"):
        read(dataset(), synsets=["ant.n.01", None])


def test_corrupt_files_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, per_class=40)
    (tmp_path / "bee" / "7.jpg").write_bytes(b"no picture")
    data = read(tmp_path)
    assert len(data.skipped_images) == 1
    assert "7.jpg" in data.skipped_images[0]
    assert len(data.train) + len(data.evaluation) == 119
    for i in range(4):
        (tmp_path / "bee" / f"{2 * i}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="5 of 120 images cannot be read"):
        read(tmp_path)


def test_what_cannot_be_a_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        read(tmp_path / "empty")
    with pytest.raises(DataError, match="there is no file or folder"):
        read(tmp_path / "nosuch")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="unknown kind"):
        read(tmp_path / "notes.txt")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="bad.parquet"):
        read(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="at least two"):
        read(write_folder(tmp_path / "one", names=("ant",)))
    with pytest.raises(DataError, match="fewer than 2 readable images.*ant, bee, cow"):
        read(dataset(1))
    with pytest.raises(DataError, match="no image"):
        read(dataset().select([]))
    with pytest.raises(DataError, match="no image"):
        read([])
    with pytest.raises(DataError, match="'train' has no image"):  # and the test split is not learnt from
        read(datasets.DatasetDict(train=dataset().select([]), test=dataset()))
    with pytest.raises(DataError, match="int as"):
        read(42)
    with pytest.raises(DataError, match="lacks: cow"):
        part = dataset().filter(lambda label: label != 2, input_columns="label")
        read(datasets.DatasetDict({"train": part, "test": dataset()}))
    missing = datasets.Dataset.from_dict({"image": [picture(0, 0)] * 2, "label": ["a", None]})
    with pytest.raises(DataError, match="1 rows have no label"):
        read(missing)


def test_a_class_with_one_image_is_enough_where_there_is_a_test_split() -> None:
    data = read(datasets.DatasetDict({"train": dataset(1), "test": dataset(2)}))
    assert len(data.train) == 3


def test_labels_with_control_characters_are_refused() -> None:
    pairs = [(picture(0, i), name) for i, name in enumerate(["a\x1b[31m", "a\x1b[31m", "b", "b"])]
    with pytest.raises(DataError, match="control characters"):
        read(pairs)


def test_an_unreachable_hub_is_said_plainly() -> None:
    with pytest.raises(
        DataError, match="no file or folder someone/nosuch, and no such data set in the cache, and HF_HUB"
    ):
        read("someone/nosuch")


@pytest.mark.parametrize("root", ["photos [2020]", "a::b", "train"])
@pytest.mark.parametrize("names", [("train", "test", "bee"), ("high-speed train", "test_1", "ant (young)")])
def test_names_of_folders_and_files_decide_nothing_but_the_class(
    tmp_path: Path, root: str, names: tuple[str, ...]
) -> None:
    folder = write_folder(tmp_path / root, names=names)
    (folder / names[0] / "0.png").rename(folder / names[0] / "my-test-1.png")
    data = read(folder)
    assert set(data.task.labels) == set(names)
    assert len(data.train) + len(data.evaluation) == 18


def test_everything_below_a_class_folder_is_of_that_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_folder(tmp_path / "photos")
    (folder / "ant" / "more").mkdir()
    picture(0, 50).save(folder / "ant" / "more" / "50.JPEG")
    picture(0, 51).save(folder / "loose.png")
    (folder / "ant" / ".DS_Store").write_text("")
    (folder / "ant" / "notes.pdf").write_text("")
    data = read(folder)
    assert data.task.labels == NAMES
    counts = torch.bincount(torch.cat([data.train.targets, data.evaluation.targets]))
    assert counts.tolist() == [7, 6, 6]
    assert "photos: 2, such as loose.png" in caplog.text  # the note and the loose picture


def test_splits_of_class_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos" / "Train")
    write_folder(tmp_path / "photos" / "val", per_class=2)
    data = read(tmp_path / "photos")
    assert (len(data.train), len(data.evaluation), data.evaluation_split) == (18, 6, "val")


def test_splits_without_classes_are_left_out_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path / "photos" / "train")
    for i in range(5):  # as for a contest: photos whose classes are to be told
        (tmp_path / "photos" / "test").mkdir(exist_ok=True)
        picture(0, i).save(tmp_path / "photos" / "test" / f"{i}.png")
    data = read(tmp_path / "photos")
    assert (data.task.labels, len(data.train) + len(data.evaluation)) == (NAMES, 18)
    assert "left out folders without classes" in caplog.text
    (tmp_path / "photos" / "train").rename(tmp_path / "photos" / "val")
    (tmp_path / "photos" / "test").rename(tmp_path / "photos" / "train")
    with pytest.raises(DataError, match="train has no folders of classes, and no metadata.csv"):
        read(tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos" / "val")
    with pytest.raises(DataError, match="train has no folders of classes, and no metadata.csv"):
        read(tmp_path / "photos")


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "evaluation", "more"), ("train", "val")])
def test_splits_have_many_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names[:2]:
        write_folder(tmp_path / "photos" / name)
    if "more" in names:  # single photos to look at
        (tmp_path / "photos" / "more").mkdir()
        picture(0, 0).save(tmp_path / "photos" / "more" / "1.png")
    data = read(tmp_path / "photos")
    assert (data.task.labels, data.evaluation_split) == (NAMES, names[1].lower())


def test_the_same_split_twice_is_refused(tmp_path: Path) -> None:
    for name in ("train", "Train"):
        write_folder(tmp_path / "photos" / name)
    with pytest.raises(DataError, match="the same split twice: Train, train"):
        read(tmp_path / "photos")


def test_splits_without_labels_are_left_out() -> None:
    unlabeled = dataset(2).map(lambda _row: {"label": -1})
    data = read(datasets.DatasetDict(train=dataset(), test=unlabeled, validation=dataset(3)))
    assert (data.evaluation_split, len(data.evaluation)) == ("validation", 9)
    with pytest.raises(DataError, match="no label"):
        read(datasets.DatasetDict(train=unlabeled))


def test_several_parquet_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for shard, file in enumerate(files):
        dataset().shard(2, shard, contiguous=False).to_parquet(file)
    for source in (files, [str(f) for f in files], str(tmp_path / "*.parquet")):
        data = read(source)
        assert len(data.train) + len(data.evaluation) == 18
    with pytest.raises(DataError, match="no file has such a name"):
        read(str(tmp_path / "*.arrow"))


def test_what_is_neither_a_file_nor_a_folder_is_no_data_set(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", str(tmp_path / "pipe")):
        with pytest.raises(DataError, match="pipe is neither a file nor a folder"):
            read(source)


class LikeTorchvision(torch.utils.data.Dataset):
    """As torchvision's data sets: pictures, targets, names of classes."""

    classes = ("ant", "bee", "unused", "cow")
    targets = (0, 1, 3) * 6

    def __len__(self) -> int:
        return 18

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return picture(self.targets[i] % 3, i), self.targets[i]


def test_torch_data_sets_and_their_subsets_keep_the_names_of_classes() -> None:
    assert read(LikeTorchvision()).task.labels == NAMES
    assert read(torch.utils.data.Subset(LikeTorchvision(), range(2, 18))).task.labels == NAMES


class Halved(LikeTorchvision):
    """With a `target_transform`, which torchvision applies to items and not to `targets`."""

    classes = ("even", "odd")

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        image, target = super().__getitem__(i)
        return image, target % 2


def test_labels_are_those_of_items_where_a_data_set_keeps_others() -> None:
    for source in (Halved(), torch.utils.data.Subset(Halved(), range(2, 18))):
        data = read(source)
        assert data.task.labels == ("even", "odd")
        assert torch.bincount(data.train.targets).argmax() == 1  # two classes of three are odd


class Broken(torch.utils.data.Dataset):
    """Pairs that are only known once they are read, some of which cannot be."""

    def __init__(self, size: int, bad_items: tuple[int, ...]) -> None:
        self.size, self.bad_items = size, bad_items

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> tuple[Image.Image, str]:
        if i in self.bad_items:
            raise RuntimeError("the archive is damaged")
        return Image.new("RGB", (40, 40), (i % 3, 0, 0)), NAMES[i % 3]


def test_items_that_cannot_be_read_are_skipped_and_named() -> None:
    data = read(Broken(120, (7,)))
    assert data.skipped_images == ["item 7: the archive is damaged"]
    assert len(data.train) + len(data.evaluation) == 119
    for part in (data.train, data.evaluation):  # what comes after the skipped one still has its own label
        assert torch.equal(part.images[:, 0, 0, 0].long(), part.targets)
    with pytest.raises(DataError, match="Broken as .*item 7: the archive is damaged; item 9: .*up to 1%"):
        read(Broken(120, (7, 9)))


def test_labels_of_other_kinds() -> None:
    assert read([(picture(0, i), -1 if i % 2 else 1) for i in range(8)]).task.labels == ("-1", "1")
    for one in (torch.tensor, np.int64, lambda n: torch.tensor([n])):
        assert read([(picture(0, i), one(i % 2)) for i in range(8)]).task.labels == ("0", "1")
    with pytest.raises(DataError, match="neither text nor a number"):
        read([(picture(0, i), [0, 1]) for i in range(8)])
    with pytest.raises(DataError, match="no label"):
        read([(picture(0, i), None) for i in range(8)])
    with pytest.raises(DataError, match="4 images have no label"):  # as pandas writes what is missing
        read([(picture(0, i), float("nan") if i % 2 else 1.0) for i in range(8)])


def test_numbers_that_are_equal_may_be_different_labels() -> None:
    labels = [True, 1, 1.0, 2]
    assert read([(picture(0, i), labels[i % 4]) for i in range(16)]).task.labels == ("True", "1", "1.0", "2")
    assert read([(picture(0, i), "1" if i % 2 else 1) for i in range(8)] + [(picture(1, 1), 2)] * 2).task.labels == (
        "1",
        "2",
    )


@pytest.mark.parametrize("label", ["\N{WOMAN}\u200d\N{PERSONAL COMPUTER}", "می\u200cخواهم"])
def test_words_and_pictures_that_need_joiners_are_labels(label: str) -> None:
    assert read([(picture(0, i), ("x", label)[i % 2]) for i in range(8)]).task.labels[-1] in ("x", label)


def test_columns_are_refused_where_there_are_none(tmp_path: Path) -> None:
    for source in (write_folder(tmp_path / "photos"), [(picture(0, 0), 0)]):
        for column in ("image_column", "label_column"):
            with pytest.raises(OptionError, match="columns"):
                read(source, **{column: "photo"})
    with pytest.raises(DataError, match="column 'label' holds numbers"):
        read(dataset(), image_column="label")


def test_nothing_is_held_back_if_so_wished() -> None:
    data = read(dataset(), evaluation_share=0)
    assert (len(data.train), len(data.evaluation)) == (18, 0)
    assert read(dataset(per_class=1), evaluation_share=0).train.targets.tolist() == [0, 1, 2]


def test_at_most_so_many_images_of_each_class() -> None:
    data = read([(picture(c, i), NAMES[c]) for c, n in enumerate((4, 30, 30)) for i in range(n)])
    few = data.select((0, 1), per_class=5)
    assert torch.bincount(few.train.targets).tolist() == [3, 5]
    data.evaluation = data.evaluation.subset(np.flatnonzero(data.evaluation.targets.numpy() < 2))
    assert len(data.select((0, 2)).evaluation) > 0  # no evaluation image of the last class


def test_only_the_form_of_a_hub_id_goes_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *_: pytest.fail("the Hub was asked"))
    for name in ("./owner/photos", "../photos", "~/photos", "photos", "a/b/c", str(tmp_path / "photos")):
        with pytest.raises(DataError, match="there is no file or folder"):
            read(name)


def write_parquet_of_paths(folder: Path, other_path: str = "") -> Path:
    """Write a parquet file beside photos that it names by their paths, the last one by another path."""
    paths = [str(path) for path in sorted(write_folder(folder / "photos").rglob("*.*"))]
    images = [{"bytes": None, "path": path} for path in [*paths[:-1], other_path or paths[-1]]]
    rows = datasets.Dataset.from_dict({"image": images, "label": [i // 6 for i in range(18)]})
    rows.to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def test_images_by_path_are_read_in_the_folder_of_the_data_set_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(0, 99).save(tmp_path / "private.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "private.png")
    file = write_parquet_of_paths(tmp_path / "own")
    assert len(read(file).train) == len(read([str(file)]).train) == 15
    for number, path in enumerate(
        [f"{tmp_path}/private.png", "private.png", f"{tmp_path}/link.png", "own/../link.png"]
    ):
        file = write_parquet_of_paths(tmp_path / str(number), path)
        (tmp_path / f"rows {number}").mkdir()
        file_alone = file.rename(tmp_path / f"rows {number}" / file.name)
        for source in (file_alone, [str(file_alone)], file_alone.parent, f"{file_alone.parent}/*.parquet"):
            with pytest.raises(DataError, match=r"is not in the folder of the data set, and is not read"):
                read(source)


@pytest.mark.parametrize("name", ["../private/x.arrow", "/etc/passwd", 3])
def test_a_saved_data_set_names_no_file_elsewhere(tmp_path: Path, name: object) -> None:
    datasets.Dataset.from_dict({"image": [1, 2], "label": [0, 1]}).save_to_disk(tmp_path / "data")
    state = tmp_path / "data" / "state.json"
    values = json.loads(state.read_text())
    values["_data_files"][0]["filename"] = name
    state.write_text(json.dumps(values))
    with pytest.raises(DataError, match="names a file in another folder"):
        read_task_data(str(tmp_path / "data"), tiny_preprocessing())


def saved_elsewhere(tmp_path: Path) -> tuple[Path, Path]:
    """Return a saved data set, and the folder of another one beside it."""
    for name in ("private", "mine"):
        datasets.DatasetDict(train=dataset()).save_to_disk(str(tmp_path / name))
    return tmp_path / "mine", tmp_path / "private"


@pytest.mark.parametrize("absolute", [False, True])
def test_splits_of_a_saved_data_set_are_in_its_folder(tmp_path: Path, absolute: bool) -> None:
    mine, private = saved_elsewhere(tmp_path)
    split = str(private / "train") if absolute else "../private/train"
    (mine / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    with pytest.raises(DataError, match="names a file in another folder"):
        read(mine)


@pytest.mark.parametrize("name", ["train", "train/data-00000-of-00001.arrow"])
def test_links_in_a_saved_data_set_are_refused(tmp_path: Path, name: str) -> None:
    mine, private = saved_elsewhere(tmp_path)
    read(mine)
    target = mine / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    target.symlink_to(private / name)
    with pytest.raises(DataError, match="is a symbolic link"):
        read(mine)


def test_a_parquet_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    dataset().to_parquet(str(tmp_path / "private.parquet"))
    (tmp_path / "data" / "train.parquet").symlink_to(tmp_path / "private.parquet")
    with pytest.raises(DataError, match="is a symbolic link"):
        read(tmp_path / "data")
