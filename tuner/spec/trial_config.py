"""The fields of a space file: one plain class a section, every field resolved. The space is checked against these.

A trial trains a `TrialConfig`. `Search` and `Resources` say how trials are chosen and placed and are never searched.
Sections that come in kinds (model, optimizer, ...) have one class a kind, looked up by `name` in `KINDS`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from tuner.spec.objective import (
    METRICS,
    MODES,
    AnyMetric,
    Constraint,
    Metric,
    Mode,
    Objective,
    check_metrics,
    parse_constraint,
)

# YAML gives lists; strict mode would want tuples. Items stay strict: "3" is no number, true is no 1.
Items = Field(strict=False)
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# One value for all blocks, or one a block (grammar R5).
PER_BLOCK: dict[str, Any] = {"per_block": True}


class Section(BaseModel):
    """Base of all sections: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


# ---------------------------------------------------------------- data


class Flip(Section):
    """Mirrors an image left to right with probability p."""

    p: float = Field(0.5, ge=0, le=1, description="probability")


class Crop(Section):
    """Pads by `padding` pixels on each side (zeros after normalisation) and crops back to size, per image."""

    padding: int = Field(4, ge=1, description="pixels of padding on each side")
    p: float = Field(1.0, ge=0, le=1, description="probability")


class FlipCrop(Section):
    """The usual pair for small photographs: a flip for half of the images, a crop of each."""

    padding: int = Field(4, ge=1, description="pixels of padding on each side")


# A bare word instead of a mapping of transforms (grammar R10); with magnitudes: {flip_crop: {padding: 2}}.
AUGMENT_PRESETS: dict[str, dict[str, dict[str, Any]]] = {"none": {}, "flip_crop": {"flip_crop": {}}}


class Augment(Section):
    """Augmentation of the training images, transforms by name; null means not used."""

    # A bare word instead of the mapping stands for one of these.
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = AUGMENT_PRESETS

    HorizontalFlip: Flip | None = Field(None, description="mirror left to right")
    RandomCrop: Crop | None = Field(None, description="pad, then crop back to size")
    flip_crop: FlipCrop | None = Field(None, description="preset: both of them")

    @model_validator(mode="after")
    def _not_twice(self) -> Augment:
        if self.flip_crop and (self.HorizontalFlip or self.RandomCrop):
            raise ValueError("flip_crop flips and crops already; write either the preset or its transforms")
        return self

    @property
    def flip(self) -> Flip | None:
        """The flip to apply, whoever asked for it."""
        return Flip() if self.flip_crop else self.HorizontalFlip

    @property
    def crop(self) -> Crop | None:
        """The crop to apply, whoever asked for it."""
        return Crop(padding=self.flip_crop.padding) if self.flip_crop else self.RandomCrop


class Data(Section):
    """Which images, at what size, split how."""

    dataset: Literal["digits", "shapes", "image_folder", "cifar10"] = Field(description="where the images come from")
    root: str | None = Field(None, description="folder of the images (image_folder, cifar10)")
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
        if self.dataset == "image_folder" and self.root is None:
            raise ValueError("image_folder needs root: the folder that holds the class folders")
        return self


# ---------------------------------------------------------------- model


class Head(Section):
    """From the last feature map to the classes."""

    pool: Literal["average", "flatten"] = Field("average", description="global average pooling, or flatten the map")
    hidden: Annotated[tuple[Count, ...], Items] = Field((), description="units of the hidden layers before the output")


class Cnn(Section):
    """Plain convolutional network: blocks of convolution, pooling, norm, activation, dropout; then a head."""

    name: Literal["cnn"] = "cnn"
    depth: Count = Field(3, description="number of blocks")
    convs: Annotated[int, Field(ge=1, le=8)] = Field(1, description="convolutions in each block")
    width: Count | Annotated[tuple[Count, ...], Items] = Field(
        32, description="channels of the first block, or of each block", json_schema_extra=PER_BLOCK
    )
    growth: float = Field(2.0, ge=0.25, le=8, description="each block is so many times as wide as the one before")
    kernel: Count | Annotated[tuple[Count, ...], Items] = Field(
        3, description="kernel side in pixels, odd", json_schema_extra=PER_BLOCK
    )
    padding: Literal["same", "valid"] = Field("same", description="same keeps the map's size, valid shrinks it")
    norm: Literal["none", "batch"] = Field("batch", description="normalisation after each convolution")
    activation: Literal["relu", "leaky_relu", "gelu", "silu"] = Field("relu", description="activation function")
    pool: Literal["max", "average", "none"] = Field("max", description="halves the map once a block")
    dropout: Fraction = Field(0.0, description="rate of dropout at the end of each block and before the output")
    head: Head = Field(default_factory=Head, description="what follows the last block")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if any(k % 2 == 0 for k in (value if isinstance(value, tuple) else (value,))):
            raise ValueError("a kernel's side must be odd, so that it has a centre; try 3 or 5")
        return value

    @model_validator(mode="after")
    def _one_item_a_block(self) -> Cnn:
        for field in ("width", "kernel"):
            value = getattr(self, field)
            if isinstance(value, tuple) and len(value) != self.depth:
                raise ValueError(f"{field} lists {len(value)} blocks, depth says {self.depth}")
        return self


# ---------------------------------------------------------------- train


class Adam(Section):
    """Adam (Kingma and Ba, 2015); weight decay is L2 in the gradient."""

    name: Literal["adam"] = "adam"
    lr: Rate = Field(1e-3, description="learning rate")
    betas: Annotated[tuple[Fraction, Fraction], Items] = Field((0.9, 0.999), description="decay of both moments")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty")


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: Rate = Field(1e-3, description="learning rate")
    betas: Annotated[tuple[Fraction, Fraction], Items] = Field((0.9, 0.999), description="decay of both moments")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")


class Sgd(Section):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: Rate = Field(0.05, description="learning rate")
    momentum: Fraction = Field(0.9, description="momentum")
    nesterov: bool = Field(False, description="Nesterov's momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class RmsProp(Section):
    """RMSprop (Tieleman and Hinton, 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: Rate = Field(1e-3, description="learning rate")
    alpha: Fraction = Field(0.99, description="decay of the squared gradient's average")
    momentum: Fraction = Field(0.0, description="momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty")


class Constant(Section):
    """The same learning rate throughout."""

    name: Literal["constant"] = "constant"


class OneCycle(Section):
    """One cycle (Smith, 2018): from lr/25 to lr over `warmup`, then down to `final_lr`, both slopes cosines."""

    name: Literal["onecycle"] = "onecycle"
    warmup: float = Field(0.25, ge=0, lt=1, description="share of all steps in which the rate rises")
    final_lr: float | None = Field(None, ge=0, description="rate at the end; default: lr / 10,000")


class Train(Section):
    """How a trial is trained."""

    epochs: Count = Field(10, description="full training length; every trial could get this far")
    batch_size: Count = Field(64, description="images a step")
    optimizer: Adam | AdamW | Sgd | RmsProp = Field(default_factory=Adam, discriminator="name", description="optimiser")
    schedule: Constant | OneCycle = Field(
        default_factory=Constant, discriminator="name", description="course of the learning rate"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="arithmetic; auto: bf16 where the processor computes it fast, else fp32 (fp16 needs a GPU)"
    )


class TrialConfig(Section):
    """Everything that decides how one trial trains; two equal ones give the same curve on the same machine."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="seed of weights, order and augmentation")
    data: Data
    model: Cnn = Field(default_factory=Cnn, description="the network")
    train: Train = Field(default_factory=Train, description="how it is trained")


# ---------------------------------------------------------------- search


class Auto(Section):
    """Chooses a sampler by the space and the budget, and says why."""

    name: Literal["auto"] = "auto"


class RandomSampler(Section):
    """Independent draws from the space."""

    name: Literal["random"] = "random"


class Grid(Section):
    """Every combination once, in the order written; continuous ranges need a step."""

    name: Literal["grid"] = "grid"


class Qmc(Section):
    """Quasi-random points that fill the space more evenly than chance (Bergstra and Bengio, 2012)."""

    name: Literal["qmc"] = "qmc"
    sequence: Literal["sobol", "halton"] = Field("sobol", description="which sequence")


class Tpe(Section):
    """Tree-structured Parzen estimator, multivariate and grouped (Bergstra et al., 2011; Falkner et al., 2018)."""

    name: Literal["tpe"] = "tpe"
    startup_trials: Count = Field(10, description="random trials before the model takes over")
    candidates: Count = Field(24, description="points weighed against each other for each suggestion")


class Gp(Section):
    """Gaussian process with log expected improvement: for few, expensive trials."""

    name: Literal["gp"] = "gp"
    startup_trials: Count = Field(10, description="random trials before the model takes over")


class CmaEs(Section):
    """Covariance matrix adaptation (Hansen, 2016) over the numbers that always exist; learns from finished ones."""

    name: Literal["cmaes"] = "cmaes"
    startup_trials: Count = Field(1, description="random trials before the model takes over")
    population: Annotated[int, Field(ge=4)] | None = Field(
        None, description="trials a generation; default: 4 + 3 ln(number of settings)"
    )


class Nsga2(Section):
    """Genetic search for several objectives (Deb et al., 2002)."""

    name: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=2)] = Field(20, description="trials a generation")
    crossover: float = Field(0.9, ge=0, le=1, description="probability that a child has two parents")


AnySampler = RandomSampler | Grid | Qmc | Tpe | Gp | CmaEs | Nsga2
"""A sampler that can be asked: `auto` has been resolved."""


class NoScheduler(Section):
    """Every trial trains to the end."""

    name: Literal["none"] = "none"


class Asha(Section):
    """Asynchronous successive halving, stopping form (Li et al., 2020)."""

    name: Literal["asha"] = "asha"
    grace: Count = Field(1, description="epochs before a trial may be stopped; the first rung")
    factor: Annotated[int, Field(ge=2)] = Field(3, description="one of so many goes on at each rung")
    brackets: Count = Field(1, description="groups of trials, each with a grace `factor` times that of the one before")


class Hyperband(Section):
    """Asynchronous Hyperband (Li et al., 2018, 2020): as many brackets as fit, trials spread as Hyperband does."""

    name: Literal["hyperband"] = "hyperband"
    grace: Count = Field(1, description="epochs before a trial of the most eager bracket may be stopped")
    factor: Annotated[int, Field(ge=2)] = Field(3, description="one of so many goes on at each rung")


class Median(Section):
    """Median stopping rule (Golovin et al., 2017): stops a trial whose best so far is below the median of averages."""

    name: Literal["median"] = "median"
    grace: Count = Field(1, description="epochs before a trial may be stopped")
    least: Annotated[int, Field(ge=2)] = Field(3, description="other trials that must have reached the epoch")


class Pbt(Section):
    """Population-based training (Jaderberg et al., 2017): the worst go on from the best ones' weights, changed.

    The population is all trials of the search; every `every` epochs they wait for each other.
    """

    name: Literal["pbt"] = "pbt"
    every: Count = Field(4, description="epochs between two comparisons")
    mutate: Annotated[tuple[str, ...], Items] | None = Field(
        None, description="searched fields that change; default: all that may change in mid-run"
    )
    share: float = Field(0.25, gt=0, le=0.5, description="share of the worst that is replaced, and of the best copied")
    resample: float = Field(0.25, ge=0, le=1, description="probability that a field is drawn anew, else moved a little")


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

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of a duration like `90s`, `30m` or `2h`.

    Raises:
        ValueError: the text is no such duration, or it is zero.
    """
    match = _DURATION.fullmatch(text)
    if not match or not float(match[1]):
        raise ValueError(f"no duration: {text!r}; write 90s, 30m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def _readable(rule: str) -> str:
    parse_constraint(rule)
    return rule


Rule = Annotated[str, AfterValidator(_readable)]


class Search(Section):
    """How configurations are chosen and stopped, and what happens when one fails."""

    trials: Count = Field(20, description="number of trials")
    time: str | None = Field(None, description="time budget, like 90s, 30m or 2h; running epochs are ended")
    metric: Metric | dict[AnyMetric, Mode] = Field(
        "val_accuracy", description="what the search improves, or several with max or min; the first stops trials"
    )
    constraints: Annotated[tuple[Rule, ...], Items] = Field(
        (), description="rules like params <= 200000 or latency_ms <= 5 that a configuration must keep"
    )
    sampler: Auto | RandomSampler | Grid | Qmc | Tpe | Gp | CmaEs | Nsga2 = Field(
        default_factory=Auto, discriminator="name", description="which configuration next"
    )
    scheduler: NoScheduler | Asha | Hyperband | Median | Pbt = Field(
        default_factory=Asha, discriminator="name", description="which trial to stop early"
    )
    start_from: Annotated[tuple[dict[str, Any], ...], Items] = Field(
        (), description="configurations to try first: names or paths with values, plus label and to_the_end"
    )
    repeats: Count = Field(1, description="seeds that the best early configuration is trained with, to know the noise")
    retries: Annotated[int, Field(ge=0)] = Field(2, description="times that a trial goes on after its process died")
    out_of_memory: Literal["fail", "retry_alone"] = Field(
        "fail", description="what becomes of a trial that ran out of memory; retry_alone: once, with nothing beside it"
    )
    hang_after: str = Field("5m", description="a trial without an epoch for so long, and for ten usual ones, is ended")
    max_failed: float = Field(0.2, ge=0, le=1, description="share of failed trials above which the run exits with 1")
    keep_checkpoints: Count | None = Field(
        3, description="best trials whose weights are kept; null: those of every trial"
    )

    @field_validator("time", "hang_after")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            parse_duration(value)
        return value

    @field_validator("metric", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        check_metrics(list(value) if isinstance(value, dict) else [value])
        return value

    @field_validator("metric")
    @classmethod
    def _in_their_direction(cls, value: str | dict[str, Mode]) -> str | dict[str, Mode]:
        for metric, mode in value.items() if isinstance(value, dict) else ():
            if mode != MODES[metric]:
                raise ValueError(f"{metric}: better is {MODES[metric]}, got {mode}")
        return value

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is improved, the one that drives the scheduler first."""
        modes = self.metric if isinstance(self.metric, dict) else {self.metric: METRICS[self.metric]}
        return tuple(Objective(metric, mode) for metric, mode in modes.items())

    @property
    def rules(self) -> tuple[Constraint, ...]:
        """The constraints."""
        return tuple(parse_constraint(text) for text in self.constraints)

    @property
    def seconds(self) -> float | None:
        """The time budget in seconds."""
        return None if self.time is None else parse_duration(self.time)


class Resources(Section):
    """What one trial gets."""

    cpu: float = Field(1, gt=0, description="cores a trial; also its threads, at least one")
    gpu: float = Field(0, ge=0, description="GPUs a trial; fractions share one")
    trials_at_once: Count | None = Field(None, description="at most so many at once; default: as many as fit")


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
    "model": {"cnn": Cnn},
    "train.optimizer": {"adam": Adam, "adamw": AdamW, "sgd": Sgd, "rmsprop": RmsProp},
    "train.schedule": {"constant": Constant, "onecycle": OneCycle},
    "search.sampler": {
        "auto": Auto,
        "random": RandomSampler,
        "grid": Grid,
        "qmc": Qmc,
        "tpe": Tpe,
        "gp": Gp,
        "cmaes": CmaEs,
        "nsga2": Nsga2,
    },
    "search.scheduler": {"none": NoScheduler, "asha": Asha, "hyperband": Hyperband, "median": Median, "pbt": Pbt},
}
