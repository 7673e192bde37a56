"""Published datasets as torchvision reads them, from small files in their formats: class k is k steps brighter."""

from __future__ import annotations

import bz2
import gzip
import inspect
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets as torchvision_sets

from tuner.errors import BadInput
from tuner.spec.data import Data, Dataset
from tuner.training.published import PUBLISHED
from tuner.training.sources import SOURCES, find_source

STEP = 20
LABELS = np.arange(12) % 2  # of every split


def bright(label: int, size: int, *colour: int) -> np.ndarray[Any, Any]:
    return np.full((size, size, *colour), 40 + STEP * label, dtype=np.uint8)


def stack(size: int, *colour: int) -> np.ndarray[Any, Any]:
    return np.stack([bright(int(label), size, *colour) for label in LABELS])


def draw(path: Path, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bright(label, 16, 3)).save(path)


def idx(path: Path, array: np.ndarray[Any, Any], kind: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(">i4" if kind == 12 else "u1").tobytes())


def mnist(folder: str, parts: tuple[str, str]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for part in parts:
            idx(root / folder / "raw" / f"{part}-images-idx3-ubyte", stack(28))
            idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte", LABELS)

    return write


def qmnist(root: Path) -> None:
    for part in ("train", "test"):
        idx(root / "QMNIST" / "raw" / f"qmnist-{part}-images-idx3-ubyte", stack(28))
        idx(root / "QMNIST" / "raw" / f"qmnist-{part}-labels-idx2-int", np.stack([LABELS, LABELS + 5], axis=1), 12)


def cifar(folder: str, train: list[str], test: str, meta: tuple[str, str], key: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / folder).mkdir(parents=True)
        flat = stack(32, 3).transpose(0, 3, 1, 2).reshape(len(LABELS), -1)
        for name in (*train, test):
            (root / folder / name).write_bytes(pickle.dumps({"data": flat, key: LABELS.tolist()}))
        (root / folder / meta[0]).write_bytes(pickle.dumps({meta[1]: ["dark", "light"]}))

    return write


def usps(root: Path) -> None:
    values = stack(16).reshape(len(LABELS), -1) / 127.5 - 1
    lines = [
        f"{label + 1} " + " ".join(f"{i + 1}:{v:.6f}" for i, v in enumerate(row))
        for label, row in zip(LABELS, values, strict=True)
    ]
    for name in ("usps.bz2", "usps.t.bz2"):
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def semeion(root: Path) -> None:
    pixels = stack(16).reshape(len(LABELS), -1) / 255
    np.savetxt(root / "semeion.data", np.hstack([pixels, np.eye(10)[LABELS]]))


def svhn(root: Path) -> None:
    for part in ("train", "test"):
        labels = np.where(LABELS == 0, 10, LABELS)[:, None]
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": stack(32, 3).transpose(1, 2, 3, 0), "y": labels})


def stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    for part in ("train", "test"):
        stack(96, 3).transpose(0, 3, 2, 1).tofile(folder / f"{part}_X.bin")
        (LABELS + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    (folder / "class_names.txt").write_text("dark\nlight\n")


def flowers102(root: Path) -> None:
    labels = np.tile(LABELS, 3)
    for number, label in enumerate(labels, 1):
        draw(root / "flowers-102" / "jpg" / f"image_{number:05d}.jpg", int(label))
    scipy.io.savemat(root / "flowers-102" / "imagelabels.mat", {"labels": labels + 1})
    ids = np.arange(1, len(labels) + 1).reshape(3, -1)
    scipy.io.savemat(root / "flowers-102" / "setid.mat", dict(zip(("trnid", "valid", "tstid"), ids, strict=True)))


def oxford_pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part in ("trainval", "test"):
        names = [f"{'dark' if label == 0 else 'light'}_{part}{i}" for i, label in enumerate(LABELS)]
        for name, label in zip(names, LABELS, strict=True):
            draw(folder / "images" / f"{name}.jpg", int(label))
        lines = [f"{name} {label + 1} 1 1" for name, label in zip(names, LABELS, strict=True)]
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines))


def folders(*parts: str, name: str = "{c}/{i}.jpg") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for part in parts:
            for i, label in enumerate(LABELS):
                draw(
                    root
                    / part
                    / name.format(c="ab"[label], w=("negative", "positive")[label], n=label + 1, i=i, k=i // 2 + 1),
                    int(label),
                )

    return write


def caltech101(root: Path) -> None:
    folders("caltech101/101_ObjectCategories", name="{c}/image_{k:04d}.jpg")(root)
    (root / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir()


def lists(base: str, images: str, write_list: Callable[[Path, str, list[str]], None]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for part in ("train", "val", "test"):
            names = [f"{'ab'[label]}/{part}{i}.jpg" for i, label in enumerate(LABELS)]
            for name, label in zip(names, LABELS, strict=True):
                draw(root / base / images / name, int(label))
            write_list(root / base, part, names)

    return write


def dtd(root: Path) -> None:
    def write_list(base: Path, part: str, names: list[str]) -> None:
        (base / "labels").mkdir(exist_ok=True)
        (base / "labels" / f"{part}1.txt").write_text("\n".join(names))

    lists("dtd/dtd", "images", write_list)(root)


def food101(root: Path) -> None:
    def write_list(base: Path, part: str, names: list[str]) -> None:
        (base / "meta").mkdir(exist_ok=True)
        listed = {c: [name[:-4] for name in names if name[0] == c] for c in "ab"}
        (base / "meta" / f"{part}.json").write_text(json.dumps(listed))

    lists("food-101", "images", write_list)(root)


def fgvc_aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    for part in ("train", "val", "test"):
        for i, label in enumerate(LABELS):
            draw(data / "images" / f"{part}{i}.jpg", int(label))
        lines = [f"{part}{i} {('A 1', 'B 2')[label]}" for i, label in enumerate(LABELS)]
        (data / f"images_variant_{part}.txt").write_text("\n".join(lines))
    (data / "variants.txt").write_text("A 1\nB 2\n")


def gtsrb(root: Path) -> None:
    folders("gtsrb/GTSRB/Training", name="{c}/{i}.ppm")(root)
    lines = ["Filename;ClassId"]
    for i, label in enumerate(LABELS):
        draw(root / "gtsrb/GTSRB/Final_Test/Images" / f"{i}.ppm", int(label))
        lines.append(f"{i}.ppm;{label}")
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(lines))


def stanford_cars(root: Path) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    kind = [("fname", object), ("class", object)]
    for part, path in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = np.array([(f"{i}.jpg", int(label) + 1) for i, label in enumerate(LABELS)], dtype=kind)
        scipy.io.savemat(base / path, {"annotations": rows})
        for i, label in enumerate(LABELS):
            draw(base / f"cars_{part}" / f"{i}.jpg", int(label))
    scipy.io.savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["A", "B"], dtype=object)})


def sun397(root: Path) -> None:
    folders("SUN397", name="{c}/{c}/sun_{i}.jpg")(root)
    (root / "SUN397" / "ClassName.txt").write_text("/a/a\n/b/b\n")


FAKES: dict[str, Callable[[Path], None]] = {
    "cifar10": cifar(
        "cifar-10-batches-py",
        [f"data_batch_{i}" for i in range(1, 6)],
        "test_batch",
        ("batches.meta", "label_names"),
        "labels",
    ),
    "cifar100": cifar("cifar-100-python", ["train"], "test", ("meta", "fine_label_names"), "fine_labels"),
    "mnist": mnist("MNIST", ("train", "t10k")),
    "fashion_mnist": mnist("FashionMNIST", ("train", "t10k")),
    "kmnist": mnist("KMNIST", ("train", "t10k")),
    "emnist": mnist("EMNIST", ("emnist-balanced-train", "emnist-balanced-test")),
    "qmnist": qmnist,
    "usps": usps,
    "semeion": semeion,
    "svhn": svhn,
    "stl10": stl10,
    "flowers102": flowers102,
    "oxford_pets": oxford_pets,
    "eurosat": folders("eurosat/2750"),
    "food101": food101,
    "dtd": dtd,
    "gtsrb": gtsrb,
    "fgvc_aircraft": fgvc_aircraft,
    "stanford_cars": stanford_cars,
    "caltech101": caltech101,
    "caltech256": folders("caltech256/256_ObjectCategories", name="{n:03d}.{c}/{n:03d}_{k:04d}.jpg"),
    "imagenette": folders("imagenette2/train", "imagenette2/val", name="n0{c}/{i}.jpeg"),
    "country211": folders("country211/train", "country211/valid", "country211/test"),
    "rendered_sst2": folders(*(f"rendered-sst2/{part}" for part in ("train", "valid", "test")), name="{w}/{i}.png"),
    "sun397": sun397,
}


@pytest.fixture
def any_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision takes our small files for the published ones, however few they are, and fetches nothing."""
    for module in ("cifar", "svhn", "semeion", "flowers102"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).exists()
        )
    monkeypatch.setattr(
        torchvision_sets.STL10, "_check_integrity", lambda found: Path(found.root, "stl10_binary").exists()
    )
    wnids = {"n0a": ("dark", "one more name"), "n0b": ("light",)}
    monkeypatch.setattr(torchvision_sets.Imagenette, "_WNID_TO_CLASS", wnids)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", offline)
    for name, entry in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED, name, replace(entry, total=1))


def there(path: Any, md5: str | None = None) -> bool:
    return Path(path).exists()


def offline(*arguments: Any, **more: Any) -> None:
    raise OSError("Name or service not known")


def test_sources_are_those_that_the_space_file_names() -> None:
    assert set(SOURCES) == set(get_args(Dataset)) and set(FAKES) == set(PUBLISHED)


@pytest.mark.parametrize("name", FAKES)
def test_published_images_keep_their_labels(name: str, tmp_path: Path, any_content: None) -> None:
    FAKES[name](tmp_path)
    piles = find_source(Data.model_validate({"dataset": name, "root": str(tmp_path)}), 0).load()
    entry = PUBLISHED[name]
    assert (piles.test is None, piles.validation is None) == (entry.test is None, entry.validation is None)
    for pile in filter(None, (piles.train, piles.validation, piles.test)):
        pixels = pile.items if isinstance(pile.items, np.ndarray) else [np.asarray(Image.open(p)) for p in pile.items]
        brightness = [round((float(image.mean()) - 40) / STEP) for image in pixels]
        assert brightness == pile.labels.tolist() and len(set(brightness)) == 2
        assert pile.labels.max() < len(piles.classes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchvision_has_the_class_and_takes_our_arguments(name: str) -> None:
    entry = PUBLISHED[name]
    kind = getattr(torchvision_sets, entry.kind)
    taken = inspect.signature(kind).parameters
    passed = {key for given in (entry.train, entry.test, entry.validation) for key in given or ()}
    through = {"train", "download"} if any(p.kind is p.VAR_KEYWORD for p in taken.values()) else set()
    assert passed | {"download"} <= set(taken) | through


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "stanford_cars"])
def test_torchvision_knows_the_files_and_the_site_that_we_name(name: str) -> None:
    entry = PUBLISHED[name]
    source = inspect.getsource(inspect.getmodule(getattr(torchvision_sets, entry.kind)) or torchvision_sets)
    files = entry.archive.split(", ")
    assert [file for file in files if file not in source] == []
    assert entry.site.removeprefix("www.").split("/")[0] in source


@pytest.mark.parametrize("name", PUBLISHED)
def test_offline_it_says_what_to_fetch_and_where_to_put_it(name: str, tmp_path: Path, any_content: None) -> None:
    source = find_source(Data.model_validate({"dataset": name, "root": str(tmp_path / "new")}), 0)
    with pytest.raises(BadInput) as caught:
        source.load()
    entry, message = PUBLISHED[name], str(caught.value)
    assert "\n" not in message and entry.archive in message and entry.site in message
    assert str(tmp_path / "new" / entry.place) in message and "image_folder" in message


def test_an_archive_put_there_by_hand_is_unpacked(tmp_path: Path, any_content: None) -> None:
    mnist("MNIST", ("train", "t10k"))(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.utils.check_integrity", there)
        piles = find_source(Data(dataset="mnist", root=str(tmp_path)), 0).load()
    assert len(piles.train.labels) == len(LABELS)


def test_a_dataset_that_was_cut_short_is_not_taken(tmp_path: Path) -> None:
    FAKES["eurosat"](tmp_path)
    with pytest.raises(BadInput, match="12 images of eurosat, but 27,000 were published: it was cut short; delete it"):
        find_source(Data(dataset="eurosat", root=str(tmp_path)), 0).load()


def test_without_a_root_it_is_kept_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, any_content: None
) -> None:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(tmp_path))
    mnist("MNIST", ("train", "t10k"))(tmp_path / "downloads")
    assert len(find_source(Data(dataset="mnist"), 0).load().train.labels) == len(LABELS)
