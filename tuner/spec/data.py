"""The fields of `data`: which images, at what size, split and augmented how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tuner.spec.augment import AUGMENT_PRESETS, Augment
from tuner.spec.section import USER_CODE, Section

Dataset = Literal[
    "digits",
    "shapes",
    "image_folder",
    "npz",
    "csv",
    "cifar10",
    "cifar100",
    "mnist",
    "fashion_mnist",
    "kmnist",
    "qmnist",
    "emnist",
    "usps",
    "semeion",
    "svhn",
    "stl10",
    "flowers102",
    "oxford_pets",
    "eurosat",
    "food101",
    "dtd",
    "gtsrb",
    "fgvc_aircraft",
    "stanford_cars",
    "caltech101",
    "caltech256",
    "imagenette",
    "country211",
    "rendered_sst2",
    "sun397",
]

# What `root` must be where nothing can be fetched.
ROOTS = {
    "image_folder": "the folder that holds the class folders",
    "npz": "a file with arrays of images and labels",
    "csv": "a file with columns path and label",
}


def expand_home(path: str) -> Path:
    """A path as it is written: `~` is a home directory, but where there is no such user it stays what it says."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises a RuntimeError there)


class Data(Section):
    """Which images, at what size, split how."""

    dataset: Dataset | Annotated[str, Field(pattern=USER_CODE)] = Field(
        description="where the images come from: a name, or the user's own module:function"
    )
    root: str | None = Field(None, description="folder of the images, or the file of an npz or csv")
    arguments: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict, description="arguments of the user's own function"
    )
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        None, description="side in pixels; default: the dataset's own, else the median side, at most 224"
    )
    resize: Literal["stretch", "crop", "pad"] = Field(
        "stretch", description="how an image of another shape becomes square"
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 grey, 3 colour; default: the dataset's own, colour if any image has it"
    )
    subset: Annotated[int, Field(ge=2)] | None = Field(
        None, description="use only so many training images, stratified; taken before val_fraction"
    )
    val_fraction: float = Field(0.2, gt=0, lt=1, description="share of the training images kept for validation")
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="share set apart as test images where the dataset has no test split of its own"
    )
    train_on: Literal["train", "all"] = Field(
        "train",
        description="all: the validation images too, which then say nothing; only `finalize --with-validation` does it",
    )
    normalize: Literal["auto", "train", "imagenet", "none"] = Field(
        "auto",
        description="mean and deviation: of the training images, or of ImageNet; auto: those that pretrained weights "
        "were trained with, else of the training images",
    )
    augment: Augment = Field(default_factory=Augment, description="augmentation of the training images")
    # shapes only: drawn by the program
    classes: Annotated[int, Field(ge=2, le=12)] = Field(4, description="shapes: number of classes")
    images: Annotated[int, Field(ge=20)] = Field(2000, description="shapes: number of training images drawn")
    noise: float = Field(0.1, ge=0, le=1, description="shapes: standard deviation of pixel noise, 1 = full range")

    @field_validator("augment", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return AUGMENT_PRESETS.get(value, value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _root_where_needed(self) -> Data:
        if self.dataset in ROOTS and self.root is None:
            raise ValueError(f"{self.dataset} needs root: {ROOTS[self.dataset]}")
        if self.arguments and ":" not in self.dataset:
            raise ValueError(f"arguments are for a function of your own, not for {self.dataset}")
        return self
