"""About: what model.json says: the architecture, what is done to an image before it, the classes, the origin."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from tuner.spec.model import AnyModel
from tuner.spec.section import Count, Items, Section

MOST_CLASSES = 100_000
"""More than any list of classes has: a file that says more is damaged."""

Colours = Annotated[tuple[float, ...], Items]


class Origin(Section):
    """Where a model comes from. value: the metric on validation images at `epoch`; train: images it learned from."""

    run: str = ""
    trial: str = ""
    epoch: int = 0
    seed: int = 0
    metric: str = ""
    value: float | None = None
    dataset: str = ""
    fingerprint: str = ""
    train: int = 0
    created: str = ""
    versions: dict[str, str] = Field(default_factory=dict)


class File(Section):
    """What a file must be: its length and its sha256."""

    bytes: int
    sha256: str


class About(Section):
    """Everything but the weights. mean, std: per channel, on a scale of 0 to 1, as training normalised its images.

    model: the section of the space file that builds the network. settings: the sections `train`, and `data` without
    where the images lay. resize: how an image of another shape becomes square. notes: what was done to the model after
    its training, in sentences.
    """

    format: Literal[1] = 1
    name: str
    classes: Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=MOST_CLASSES)]
    image_size: Annotated[int, Field(ge=4, le=1024)]
    channels: Literal[1, 3]
    resize: Literal["stretch", "crop", "pad"]
    mean: Colours
    std: Colours
    model: AnyModel
    params: Count
    origin: Origin = Origin()
    settings: dict[str, Any] = Field(default_factory=dict)
    notes: Annotated[tuple[str, ...], Items] = ()
    files: dict[str, File] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _colours_for_each_channel(self) -> About:
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(f"mean and std must be {self.channels} numbers each, std above 0")
        return self

    @model_validator(mode="after")
    def _words_are_plain(self, info: ValidationInfo) -> About:
        if info.mode != "json":  # a run's own: what its user called things
            return self
        origin = [value for value in vars(self.origin).values() if isinstance(value, str)]
        for text in (self.name, *self.classes, *self.notes, *origin):
            if any(unicodedata.category(each) == "Cc" for each in text):  # a terminal would obey them
                raise ValueError(f"{text[:80]!r} holds control characters; names, classes and notes are plain text")
        if twice := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise ValueError(f"class {twice[0]!r} is there more than once; each has a name of its own")
        return self
