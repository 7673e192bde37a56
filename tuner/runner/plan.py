"""Plan: everything that is known and checked before Ray starts: data, models, machines, how many trials at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from tuner.errors import BadInput, HypertuneError, Problem
from tuner.packing.machine import this_machine
from tuner.packing.pack import share_of
from tuner.packing.packing import Machine, Packing, Share
from tuner.runner.sharing import Measure, Progress, Typical, check_machines, share_machines
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
from tuner.training.cache import cache_root
from tuner.training.dataset import Dataset
from tuner.training.datasets import DataFacts, Prepared, check_batch, open_dataset, prepare
from tuner.training.precision import resolve_precision


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    `prepared` has the decoded images for each image size of the space (None: the default size). `combinations` is the
    number of different configurations, `grid.LARGEST` + 1 for any number above it, None where a range is continuous.
    `packings`: one for each kind of machine, in their order. `heaviest`: MiB that the largest configuration may need.
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
    packings: tuple[Packing, ...]
    heaviest: float
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
    def at_once(self) -> int:
        """Trials at once on all machines together, where they are typical ones."""
        fit = sum(packing.machine.nodes * packing.at_once for packing in self.packings)
        return min(fit, self.space.fixed.resources.trials_at_once or fit, self.trials)

    @property
    def used(self) -> Packing:
        """The packing of the first kind of machine that takes trials."""
        return next(packing for packing in self.packings if packing.at_once)

    @property
    def threads(self) -> int:
        """Threads of a typical trial."""
        return self.used.typical.threads

    def share(self, packing: Packing, size: Size) -> Share:
        """What a configuration of this size gets on a machine that is packed so."""
        return share_of(packing, size.memory_mb)

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
    def seconds(self) -> float | None:
        """Rough duration of the whole run: by what trials at once reached, else by a middle configuration timed here
        for a second or so; None where trials run on GPUs of other machines and were not measured."""
        if rate := sum(packing.machine.nodes * _rate(packing) for packing in self.packings):
            facts, full = self.facts, sum(packing.machine.nodes * packing.at_once for packing in self.packings)
            epoch = (facts.train + facts.validation * LOOK) / rate  # of all that run at once
            return RAY_START + self.expected_epochs * epoch * full / self.at_once
        if self.device == "cuda" and not torch.cuda.is_available():
            return None
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


def _rate(packing: Packing) -> float:
    """Images a second of all trials on such a machine, 0 where that was not measured."""
    return dict(packing.measured).get(packing.at_once, 0.0)


LOOK = 1 / 3
"""Of the time of a training step that a validated image takes: the way forward of a way there and back."""

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


class Sized:
    """Counts models as `count` does, and remembers the configuration that needs most memory."""

    def __init__(self, count: CountModel) -> None:
        self._count = count
        self._largest: tuple[TrialConfig, Size] | None = None

    def __call__(self, config: TrialConfig) -> Size:
        """Its size."""
        size = self._count(config)
        if self._largest is None or size.memory_mb > self._largest[1].memory_mb:
            self._largest = config, size
        return size

    @property
    def largest(self) -> tuple[TrialConfig, Size]:
        """Of all that were counted."""
        assert self._largest
        return self._largest


RAY_START = 8.0
"""Seconds from `ray.init` to the first step, torch's import in the workers included; 7.6 to 10.3 were seen."""


def make_plan(
    space: Space,
    cache: Path | None = None,
    progress: Progress | None = None,
    *,
    machines: Sequence[Machine] | None = None,
    measure: Measure | None = None,
) -> Plan:
    """Check what the text alone cannot show: the machines, the images, the models; measure where the file says auto.

    machines: the kinds that trials run on, None for this one; measure: how to measure on another machine.

    Raises:
        BadInput: resources that are not there, unusable images, models that cannot be built.
        HypertuneError: measuring does not work.
    """
    wanted = space.fixed.resources
    kinds = (this_machine(),) if machines is None else tuple(machines)
    device = check_machines(wanted, kinds, here=machines is None)
    fixed = space.fixed
    root = None if fixed.data.root is None else str(expand_home(fixed.data.root).resolve())
    data = fixed.data.model_copy(update={"root": root})
    prepared = Sizes(lambda size: prepare(data.model_copy(update={"image_size": size}), fixed.seed, cache, progress))
    prepared[fixed.data.image_size]  # at least one, to know the images
    count = keeping(model_counter(prepared, device, fixed.search.objectives), fixed.search.rules)
    sized = Sized(count)
    preflight = look(space, sized)
    first = next(iter(prepared.values()))
    if any(objective.metric == "val_roc_auc" for objective in fixed.search.objectives):
        check_ranking(open_dataset(first.folder, data, fixed.seed))
    if "batch_size" in (space.tree.get("train") or {}):  # the default gives way to few images
        check_batch(first.facts, preflight.batch_size)
    trials = count_trials(space)
    sampler, reason = choose_sampler(space, trials)
    check_until(fixed.search, sampler)

    def typical(config: TrialConfig, size: Size) -> Typical:
        resolved = config.model_copy(update={"data": config.data.model_copy(update={"root": root})})
        return Typical(resolved, size.memory_mb, prepared[config.data.image_size].folder)

    packings = share_machines(
        wanted,
        kinds,
        device,
        trials=trials,
        seed=fixed.seed,
        typical=typical(preflight.middle, count(preflight.middle)),
        largest=typical(*sized.largest),
        measure=measure,
        cache=cache_root(cache),
        progress=progress,
    )
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
        packings=packings,
        heaviest=sized.largest[1].memory_mb,
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


def image_shape(facts: DataFacts) -> str:
    """The images in a few words: `32x32 colour`."""
    return f"{facts.image_size}x{facts.image_size} {'colour' if facts.channels == 3 else 'grey'}"
