"""Published datasets, through torchvision's own classes: which splits they have, and where their images lie in them.

torchvision fetches them once, on the driver, and checks the files against known sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from tuner.errors import BadInput, Problem
from tuner.spec.data import Data, expand_home
from tuner.training.cache import cache_root
from tuner.training.decode import Items
from tuner.training.piles import NOT_DRAWN, Pile, Piles, Source, carved, has_own

Arguments = dict[str, Any]
DIGITS = tuple("0123456789")
COMPLETE = 0.99
"""Share of the published images below which a folder counts as cut short, say by an unpacking that was ended."""


def _arrays(found: Any) -> Items:
    return np.asarray(found.data)


def _planes(found: Any) -> Items:  # SVHN and STL10 keep the channels first
    return np.asarray(found.data).transpose(0, 2, 3, 1)


def _turned(found: Any) -> Items:  # EMNIST stores its images mirrored along the diagonal
    return np.asarray(found.data).transpose(0, 2, 1)


def _files(attribute: str) -> Callable[[Any], Items]:
    return lambda found: [str(path) for path in getattr(found, attribute)]


def _pairs(attribute: str) -> Callable[[Any], Items]:
    return lambda found: [str(path) for path, _ in getattr(found, attribute)]


def _pair_labels(attribute: str) -> Callable[[Any], Any]:
    return lambda found: [label for _, label in getattr(found, attribute)]


def _caltech101(found: Any) -> Items:
    folder = Path(found.root, "101_ObjectCategories")
    pairs = zip(found.y, found.index, strict=True)
    return [str(folder / found.categories[label] / f"image_{number:04d}.jpg") for label, number in pairs]


def _caltech256(found: Any) -> Items:
    folder = Path(found.root, "256_ObjectCategories")
    pairs = zip(found.y, found.index, strict=True)
    return [str(folder / found.categories[label] / f"{label + 1:03d}_{number:04d}.jpg") for label, number in pairs]


def _qmnist_labels(found: Any) -> Any:
    return found.targets[:, 0]  # the others say who wrote the digit


@dataclass(frozen=True)
class Published:
    """A published dataset: how torchvision opens it, where it keeps images and labels, and what to fetch by hand.

    kind: the class in torchvision.datasets. train, test, validation: arguments for each split; None: it has none.
    total: images that were published, of all these splits. image_size, channels: None where they differ by image.
    archive, site, place: the files that torchvision unpacks, where they are, and the folder below the root for them.
    """

    kind: str
    total: int
    archive: str
    site: str
    place: str = "."
    train: Arguments = field(default_factory=lambda: {"split": "train"})
    test: Arguments | None = field(default_factory=lambda: {"split": "test"})
    validation: Arguments | None = None
    images: Callable[[Any], Items] = _arrays
    labels: Callable[[Any], Any] = lambda found: found.targets
    classes: Callable[[Any], Any] = lambda found: found.classes
    image_size: int | None = None
    channels: int | None = 3


def _digits_of(found: Any) -> tuple[str, ...]:
    return DIGITS


def _listed(found: Any) -> Any:
    return found._labels


FIRST: Arguments = {"train": True}
SECOND: Arguments = {"train": False}
IDX = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"
_by_flag = partial(Published, train=FIRST, test=SECOND)
_idx = partial(_by_flag, total=70_000, archive=IDX, image_size=28, channels=1)

PUBLISHED: dict[str, Published] = {
    "cifar10": _by_flag("CIFAR10", 60_000, "cifar-10-python.tar.gz", "www.cs.toronto.edu/~kriz", image_size=32),
    "cifar100": _by_flag("CIFAR100", 60_000, "cifar-100-python.tar.gz", "www.cs.toronto.edu/~kriz", image_size=32),
    "mnist": _idx("MNIST", site="ossci-datasets.s3.amazonaws.com/mnist", place="MNIST/raw", classes=_digits_of),
    "fashion_mnist": _idx(
        "FashionMNIST", site="fashion-mnist.s3-website.eu-central-1.amazonaws.com", place="FashionMNIST/raw"
    ),
    "kmnist": _idx("KMNIST", site="codh.rois.ac.jp/kmnist/dataset/kmnist", place="KMNIST/raw"),
    "qmnist": _by_flag(
        "QMNIST",
        120_000,
        "qmnist-train-images-idx3-ubyte.gz, qmnist-train-labels-idx2-int.gz, "
        "qmnist-test-images-idx3-ubyte.gz, qmnist-test-labels-idx2-int.gz",
        "raw.githubusercontent.com/facebookresearch/qmnist/master",
        "QMNIST/raw",
        labels=_qmnist_labels,
        classes=_digits_of,
        image_size=28,
        channels=1,
    ),
    "emnist": Published(
        "EMNIST",
        131_600,
        "gzip.zip",
        "biometrics.nist.gov/cs_links/EMNIST",
        "EMNIST/raw",
        train={"split": "balanced", "train": True},
        test={"split": "balanced", "train": False},
        images=_turned,
        image_size=28,
        channels=1,
    ),
    "usps": _by_flag(
        "USPS",
        9_298,
        "usps.bz2, usps.t.bz2",
        "www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass",
        classes=_digits_of,
        image_size=16,
        channels=1,
    ),
    "semeion": Published(
        "SEMEION",
        1_593,
        "semeion.data",
        "archive.ics.uci.edu/ml/machine-learning-databases/semeion",
        train={},
        test=None,
        labels=lambda found: found.labels,
        classes=_digits_of,
        image_size=16,
        channels=1,
    ),
    "svhn": Published(
        "SVHN",
        99_289,
        "train_32x32.mat, test_32x32.mat",
        "ufldl.stanford.edu/housenumbers",
        images=_planes,
        labels=lambda found: found.labels,
        classes=_digits_of,
        image_size=32,
    ),
    "stl10": Published(
        "STL10",
        13_000,
        "stl10_binary.tar.gz",
        "ai.stanford.edu/~acoates/stl10",
        images=_planes,
        labels=lambda found: found.labels,
        image_size=96,
    ),
    "flowers102": Published(
        "Flowers102",
        8_189,
        "102flowers.tgz, imagelabels.mat, setid.mat",
        "www.robots.ox.ac.uk/~vgg/data/flowers/102",
        "flowers-102",
        validation={"split": "val"},
        images=_files("_image_files"),
        labels=_listed,
    ),
    "oxford_pets": Published(
        "OxfordIIITPet",
        7_349,
        "images.tar.gz, annotations.tar.gz",
        "www.robots.ox.ac.uk/~vgg/data/pets/data",
        "oxford-iiit-pet",
        train={"split": "trainval"},
        images=_files("_images"),
        labels=_listed,
    ),
    "eurosat": Published(
        "EuroSAT",
        27_000,
        "EuroSAT.zip",
        "huggingface.co/datasets/torchgeo/eurosat",
        "eurosat",
        train={},
        test=None,
        images=_pairs("samples"),
        image_size=64,
    ),
    "food101": Published(
        "Food101",
        101_000,
        "food-101.tar.gz",
        "data.vision.ee.ethz.ch/cvl",
        images=_files("_image_files"),
        labels=_listed,
    ),
    "dtd": Published(
        "DTD",
        5_640,
        "dtd-r1.0.1.tar.gz",
        "www.robots.ox.ac.uk/~vgg/data/dtd/download",
        "dtd",
        validation={"split": "val"},
        images=_files("_image_files"),
        labels=_listed,
    ),
    "gtsrb": Published(
        "GTSRB",
        39_270,
        "GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip, GTSRB_Final_Test_GT.zip",
        "sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370",
        "gtsrb",
        images=_pairs("_samples"),
        labels=_pair_labels("_samples"),
        classes=lambda found: [str(number) for number in range(43)],
    ),
    "fgvc_aircraft": Published(
        "FGVCAircraft",
        10_000,
        "fgvc-aircraft-2013b.tar.gz",
        "www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives",
        validation={"split": "val"},
        images=_files("_image_files"),
        labels=_listed,
    ),
    "stanford_cars": Published(  # its site is gone: torchvision reads it where somebody has it
        "StanfordCars",
        16_185,
        "the folders devkit, cars_train and cars_test and the file cars_test_annos_withlabels.mat",
        "a copy of the Stanford Cars dataset",
        "stanford_cars",
        images=_pairs("_samples"),
        labels=_pair_labels("_samples"),
    ),
    "caltech101": Published(
        "Caltech101",
        8_677,
        "caltech-101.zip",
        "data.caltech.edu/records/mzrjq-6wc02",
        "caltech101",
        train={},
        test=None,
        images=_caltech101,
        labels=lambda found: found.y,
        classes=lambda found: found.categories,
        channels=None,
    ),
    "caltech256": Published(
        "Caltech256",
        30_607,
        "256_ObjectCategories.tar",
        "data.caltech.edu/records/nyy15-4j048",
        "caltech256",
        train={},
        test=None,
        images=_caltech256,
        labels=lambda found: found.y,
        classes=lambda found: [name.partition(".")[2] or name for name in found.categories],
        channels=None,
    ),
    "imagenette": Published(
        "Imagenette",
        13_394,
        "imagenette2.tgz",
        "s3.amazonaws.com/fast-ai-imageclas",
        test={"split": "val"},
        images=_pairs("_samples"),
        labels=_pair_labels("_samples"),
        classes=lambda found: [names[0] for names in found.classes],
    ),
    "country211": Published(
        "Country211",
        63_300,
        "country211.tgz",
        "openaipublic.azureedge.net/clip/data",
        validation={"split": "valid"},
        images=_pairs("samples"),
    ),
    "rendered_sst2": Published(
        "RenderedSST2",
        9_613,
        "rendered-sst2.tgz",
        "openaipublic.azureedge.net/clip/data",
        validation={"split": "val"},
        images=_pairs("_samples"),
        labels=_pair_labels("_samples"),
    ),
    "sun397": Published(
        "SUN397",
        108_754,
        "SUN397.tar.gz",
        "vision.princeton.edu/projects/2010/SUN",
        train={},
        test=None,
        images=_files("_image_files"),
        labels=_listed,
    ),
}


def published(name: str, data: Data, seed: int) -> Source:
    """A published dataset, fetched into `data.root`, by default a folder of the cache, when its images are needed.

    Raises:
        BadInput: (on load) it is not there and cannot be fetched, or it was cut short.
    """
    entry = PUBLISHED[name]
    root = expand_home(data.root).absolute() if data.root else cache_root(None) / "downloads"
    return Source(
        lambda: _load(name, entry, root),
        {"root": str(root), **(carved(data, seed) if entry.test is None else {})},
        image_size=entry.image_size,
        channels=entry.channels,
        ignored={**has_own(entry.validation is not None, entry.test is not None, name), **NOT_DRAWN},
    )


def _load(name: str, entry: Published, root: Path) -> Piles:
    splits = {"train": entry.train, "validation": entry.validation, "test": entry.test}
    found = {split: _open(name, entry, root, given) for split, given in splits.items() if given is not None}
    piles = {split: Pile(entry.images(one), _int64(entry.labels(one))) for split, one in found.items()}
    count = sum(len(pile.labels) for pile in piles.values())
    if count < COMPLETE * entry.total:
        rule = f"{count:,} images of {name}, but {entry.total:,} were published: it was cut short"
        raise BadInput([Problem(str(root / entry.place), 0, 0, f"{rule}; delete it, and it is fetched again")])
    return Piles(tuple(map(str, entry.classes(found["train"]))), **piles)


def _open(name: str, entry: Published, root: Path, given: Arguments) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, entry.kind)
    try:
        return kind(root, **given, download=False)
    except (OSError, RuntimeError):  # absent, or in part
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):  # two searches may want it at once
            return kind(root, **given, download=True)
    except (OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        todo = f"put {entry.archive} (from {entry.site}) into {root / entry.place}"
        rule = f"no {entry.kind} here, nor could it be fetched ({why}); {todo}, or use dataset: image_folder"
        raise BadInput([Problem(str(root), 0, 0, f"{rule} with a folder of your own")]) from error


def _int64(labels: Any) -> NDArray[np.int64]:
    return np.asarray(labels).astype(np.int64)
