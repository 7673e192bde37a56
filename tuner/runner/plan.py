"""Plan: everything that is known and checked before Ray starts: data, models, machine, how many trials at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from tuner.errors import BadInput, HypertuneError, Problem
from tuner.runner.until import check_until
from tuner.search import grid
from tuner.search.choose import choose_sampler
from tuner.search.plan import expected_epochs
from tuner.search.preflight import CountModel, Preflight, Size, keeping, look
from tuner.spec.data import expand_home
from tuner.spec.model import Backbone, UserModel
from tuner.spec.objective import Objective
from tuner.spec.search import AnySampler, Grid
from tuner.spec.space import Space
from tuner.spec.trial_config import TrialConfig
from tuner.training import cost, per_image, weights
from tuner.training.dataset import Dataset
from tuner.training.datasets import DataFacts, Prepared, check_batch, open_dataset, prepare
from tuner.training.precision import resolve_precision

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    `prepared` has the decoded images for each image size of the space (None: the default size). `combinations` is the
    number of different configurations, `grid.LARGEST` + 1 for any number above it, None where a range is continuous.
    """

    space: Space
    prepared: Mapping[int | None, Prepared]
    preflight: Preflight
    combinations: int | None
    count: CountModel
    sampler: AnySampler
    sampler_reason: str
    trials: int
    expected_epochs: int
    at_once: int
    device: str
    precision: str

    @property
    def facts(self) -> DataFacts:
        """About the images; counts and classes are the same at every size."""
        return next(iter(self.prepared.values())).facts

    @property
    def full(self) -> int:
        """Full training length in epochs."""
        return self.preflight.epochs

    @property
    def threads(self) -> int:
        """Threads of one trial."""
        return max(1, int(self.space.fixed.resources.cpu))

    def folder(self, config: TrialConfig) -> Path:
        """Where the decoded images of a trial lie."""
        return self.prepared[config.data.image_size].folder

    @property
    def disk(self) -> int:
        """Bytes that the run folder may take: lines, the weights that are kept, two checkpoints a running trial."""
        search, weights = self.space.fixed.search, self.preflight.largest.params * 4
        kept = min(self.trials, search.keep_checkpoints or self.trials)
        return int(self.expected_epochs * LINE + self.trials * 4 * LINE + (kept + self.at_once * 2 * 3) * weights)

    @cached_property
    def seconds(self) -> float:
        """Rough duration of the whole run: a middle configuration timed here for a second or so."""
        middle = self.preflight.middle
        data = open_dataset(self.folder(middle), middle.data, self.space.fixed.seed)
        try:
            epoch = cost.measure_epoch_seconds(middle, data, device=self.device, threads=self.threads)
        except (HypertuneError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if not isinstance(middle.model, UserModel):
                raise
            rule = f"{middle.model.name} fails when it is trained: {type(error).__name__}: {error}"
            raise BadInput([Problem("model.name", 0, 0, rule)]) from error
        return RAY_START + self.expected_epochs * epoch / self.at_once


LINE = 700
"""Bytes of a line of result.json."""

MOST_SIZES = 10
"""Image sizes that a search may have: each is a cache of its own on the disk."""


TOP = {"val_top3_accuracy": 3, "val_top5_accuracy": 5}


def check_metrics(objectives: Sequence[Objective], classes: int) -> None:
    """See that these images have enough classes for what is improved.

    Raises:
        BadInput: the true class is among the first k of k classes or fewer, whatever a network says.
    """
    for objective in objectives:
        if classes <= (most := TOP.get(objective.metric, 0)):
            raise BadInput(
                f"search.metric: {objective.metric} says nothing of {classes} classes, it needs more than {most}"
            )


def check_ranking(data: Dataset) -> None:
    """See that there is a ROC curve, where the area under it is what is improved.

    Raises:
        BadInput: the validation images are all of one class, which can have been the user's own split.
    """
    kinds = len(set(data.labels[data.validation].tolist()))
    if kinds < 2:
        raise BadInput("search.metric: val_roc_auc needs two classes among the validation images, they have one")


class Sizes(dict[int | None, Prepared]):
    """The decoded images by image size; a size that a configuration asks for is prepared when it first does.

    Raises:
        BadInput: one size more than `MOST_SIZES`.
    """

    def __init__(self, make: Callable[[int | None], Prepared]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, size: int | None) -> Prepared:
        if len(self) >= MOST_SIZES:
            raise BadInput(
                f"data.image_size: more than {MOST_SIZES} sizes, each with a cache of its own; write a choice of a few"
            )
        made = self[size] = self._make(size)
        return made


RAY_START = 8.0
"""Seconds from `ray.init` to the first step, torch's import in the workers included; 7.6 to 10.3 were seen."""


def make_plan(space: Space, cache: Path | None = None, progress: Progress | None = None) -> Plan:
    """Check what the text alone cannot show: the machine, the images, the models.

    Raises:
        BadInput: resources that are not there, unusable images, models that cannot be built.
    """
    at_once, device = check_devices(space)
    fixed = space.fixed
    root = None if fixed.data.root is None else str(expand_home(fixed.data.root).resolve())
    data = fixed.data.model_copy(update={"root": root})
    prepared = Sizes(lambda size: prepare(data.model_copy(update={"image_size": size}), fixed.seed, cache, progress))
    prepared[fixed.data.image_size]  # at least one, to know the images
    count = keeping(model_counter(prepared, device, fixed.search.objectives), fixed.search.rules)
    preflight = look(space, count)
    first = next(iter(prepared.values()))
    if any(objective.metric == "val_roc_auc" for objective in fixed.search.objectives):
        check_ranking(open_dataset(first.folder, data, fixed.seed))
    if "batch_size" in (space.tree.get("train") or {}):  # the default gives way to few images
        check_batch(first.facts, preflight.batch_size)
    trials = count_trials(space)
    sampler, reason = choose_sampler(space, trials)
    check_until(fixed.search, sampler)
    return Plan(
        space=space,
        prepared=prepared,
        preflight=preflight,
        combinations=grid.count(space),
        count=count,
        sampler=sampler,
        sampler_reason=reason,
        trials=trials,
        expected_epochs=expected_epochs(
            fixed.search, trials, preflight.epochs, fixed.seed, whole=sum(start.to_the_end for start in space.starts)
        )
        + (fixed.search.repeats - 1) * preflight.epochs,
        at_once=min(at_once, trials),
        device=device,
        precision=resolve_precision(preflight.middle.train.precision, device),
    )


def model_counter(
    prepared: Mapping[int | None, Prepared], device: str, objectives: Sequence[Objective] = ()
) -> Callable[[TrialConfig], Size]:
    """A function that counts a configuration's model on these images, and refuses what cannot be trained here.

    Pretrained weights are fetched, or read, when a configuration first wants them: on the driver, before any trial.
    """
    checked: set[tuple[str, str]] = set()

    def count(config: TrialConfig) -> Size:
        facts = prepared[config.data.image_size].facts
        precision = resolve_precision(config.train.precision, device)
        check_metrics(objectives, len(facts.classes))
        per_image.check(config.data.augment, facts.image_size, facts.channels)
        start = config.model if isinstance(config.model, Backbone) else None
        if start and (start.arch, start.weights) not in checked:
            weights.check_weights(start)
            checked.add((start.arch, start.weights))
        size = cost.count(
            config,
            classes=len(facts.classes),
            image_size=facts.image_size,
            channels=facts.channels,
            precision=precision,
        )
        return Size(size.params, size.multiply_adds, size.memory_mb, size.model_mb)

    return count


def count_trials(space: Space) -> int:
    """Trials to run: never more than there are configurations; a grid has all unless the file says how many."""
    search, combinations = space.fixed.search, grid.count(space)
    if isinstance(search.sampler, Grid):
        points = grid.size(space)
        return min(points, search.trials) if "trials" in search.model_fields_set else points
    return search.trials if combinations is None else min(search.trials, combinations)


def check_devices(space: Space) -> tuple[int, str]:
    """How many trials fit at once, and on what: cpu or cuda.

    Raises:
        BadInput: one trial asks for more than there is.
    """
    wanted = space.fixed.resources
    gpus = torch.cuda.device_count()
    if wanted.cpu > (cores := count_cores()):
        raise BadInput(
            f"resources.cpu: {wanted.cpu:g} cores a trial, but this machine has {cores}; write at most {cores}"
        )
    if wanted.gpu > gpus:
        have = "no GPU" if not gpus else f"{gpus} GPU{'s' * (gpus > 1)}"
        raise BadInput(
            f"resources.gpu: {wanted.gpu:g} a trial, but this machine has {have}; "
            f"write {'0' if not gpus else f'at most {gpus}'}, or run where there are more"
        )
    if wanted.gpu > 1 and wanted.gpu != int(wanted.gpu):
        raise BadInput(f"resources.gpu: {wanted.gpu:g} is neither a share of one GPU nor a whole number")
    fit = int(cores / wanted.cpu)
    if wanted.gpu:
        fit = min(fit, int(1 / wanted.gpu) * gpus if wanted.gpu < 1 else gpus // int(wanted.gpu))
    return min(fit, wanted.trials_at_once or fit), "cuda" if wanted.gpu else "cpu"


def count_cores(control: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container where it has one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (control / "cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or `max`: no quota
        return cores


def image_shape(facts: DataFacts) -> str:
    """The images in a few words: `32x32 colour`."""
    return f"{facts.image_size}x{facts.image_size} {'colour' if facts.channels == 3 else 'grey'}"
