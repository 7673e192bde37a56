"""TrialConfig: everything that decides how one trial trains, every field resolved; SpaceConfig: a whole space file.

A trial trains a `TrialConfig`. `Search` and `Resources` say how trials are chosen and placed and are never searched.
Sections that come in kinds (model, optimizer, ...) have one class a kind, looked up by `name` in `KINDS`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tuner.spec.data import Data
from tuner.spec.model import AnyModel, Cnn
from tuner.spec.search import Search
from tuner.spec.section import Count, Section, kinds_of
from tuner.spec.train import Train


class TrialConfig(Section):
    """Everything that decides how one trial trains; two equal ones give the same curve on the same machine."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="seed of weights, order and augmentation")
    data: Data
    model: AnyModel = Field(default_factory=Cnn, description="the network")
    train: Train = Field(default_factory=Train, description="how it is trained")


# Fields whose value a running trial can change: no shape of weights or optimiser state depends on them.
MID_RUN = (
    "train.optimizer.lr",
    "train.optimizer.weight_decay",
    "train.optimizer.momentum",
    "train.optimizer.betas",
    "train.optimizer.alpha",
    "train.batch_size",
    "model.dropout",
    "data.augment",
)


class Resources(Section):
    """What one trial gets; `auto` is measured before the search, for each kind of machine."""

    cpu: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        1.0, description="cores a trial, also its threads, at least one; auto: measured"
    )
    gpu: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        0.0, description="GPUs a trial, fractions share one; auto: measured, 0 where there is none"
    )
    trials_at_once: Count | None = Field(None, description="at most so many at once; default: as many as fit")
    mps: bool = Field(
        False, description="start NVIDIA MPS for the run: trials that share a GPU then compute side by side"
    )


_NAME = re.compile(r"^\w[\w.\- ]*$")
MAX_NAME = 200  # bytes; folders may have 255


class SpaceConfig(TrialConfig):
    """A whole space file with one value chosen for everything that is searched."""

    name: str = Field(
        description="name of the run, and of its folder",
        json_schema_extra={"pattern": _NAME.pattern, "maxLength": MAX_NAME},
    )
    search: Search = Field(default_factory=Search, description="how to search")
    resources: Resources = Field(default_factory=Resources, description="what one trial gets")

    @field_validator("name")
    @classmethod
    def _fit_for_a_folder(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"must begin with a letter or digit and hold only those, spaces and . _ -, got {value!r}")
        if (size := len(value.encode())) > MAX_NAME:
            raise ValueError(f"names a folder: at most {MAX_NAME} bytes, got {size}")
        return value

    def trial(self) -> TrialConfig:
        """The part that one trial needs."""
        return TrialConfig(seed=self.seed, data=self.data, model=self.model, train=self.train)


# Sections that come in kinds: path -> name -> class. A bare word is short for {name: word} (grammar R6).
KINDS: dict[str, dict[str, type[Section]]] = {
    "model": kinds_of(TrialConfig.model_fields["model"].annotation),
    **{f"train.{field}": kinds_of(Train.model_fields[field].annotation) for field in ("optimizer", "schedule")},
    **{f"search.{field}": kinds_of(Search.model_fields[field].annotation) for field in ("sampler", "scheduler")},
}
