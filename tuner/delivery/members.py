"""Members: the trained networks of a run that may judge together, which of them should, and what that really gains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.about import About
from tuner.delivery.model import open_torch
from tuner.delivery.pictures import Pictures, open_split
from tuner.delivery.place import BEST, Place, find_model
from tuner.delivery.predictions import judge
from tuner.errors import BadInput
from tuner.records.reader import read_record

ROUNDS = 20
"""Members drawn at most, with replacement: weights in steps of a twentieth."""
HELPS = 1e-4
"""Nats of log loss that a member must take away; a thousand images cannot tell less from chance."""
REPEATS = 20
"""Pairs of halves of the estimate: with 40 instead its interval moves by less than a tenth of its width."""
RESAMPLES = 1_000
TINY = 1e-12
"""Probabilities below it count as it: one image a network is wrongly certain of must not decide alone."""

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    """A trained network. name: its trial, with the folder of finalists before it; probabilities: float32 (N, C)."""

    name: str
    place: Place
    about: About
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """Networks that judged the same validation images, and in sentences what was left out.

    labels: int64 (N,), places in the classes.
    """

    run: Path
    found: tuple[Candidate, ...]
    labels: NDArray[np.int64]
    left_out: tuple[str, ...]

    @property
    def right(self) -> Masks:
        """Whether each is right on each image (M, N)."""
        return np.array([each.probabilities.argmax(axis=1) == self.labels for each in self.found])

    @property
    def truth(self) -> Floats:
        """The probability that each gives the true class of each image (M, N)."""
        rows = np.arange(len(self.labels))
        return np.array([each.probabilities[rows, self.labels] for each in self.found], dtype=np.float64)

    def average(self, weights: Sequence[int]) -> Floats:
        """Probabilities (N, C) of members with these weights, one for each candidate."""
        made = np.zeros(self.found[0].probabilities.shape)
        for weight, each in zip(weights, self.found, strict=True):
            if weight:
                made += weight * each.probabilities
        made /= sum(weights)
        return made


@dataclass(frozen=True)
class Gain:
    """A difference with its 95% interval."""

    value: float
    low: float
    high: float


# ---------------------------------------------------------------- candidates


def gather(run: Path, *, device: str = "cpu", progress: Callable[[str, int, int], None] | None = None) -> Candidates:
    """All networks of a run whose weights were kept, those of its finalists too, with what they say of validation images.

    Left out: what was trained on other images (such as on the validation images themselves), what judges other classes
    or images of another kind than the best trial, and what cannot be read.

    Raises:
        BadInput: fewer than two are left.
    """
    places = _list(run)
    opened: list[tuple[str, Place, About]] = []
    left_out = []
    for name, place in places:
        try:
            opened.append((name, place, open_torch(place).about))
        except BadInput as error:
            left_out.append(f"{name} is left out: {error}")
    if opened:
        opened.sort(key=lambda each: each[0] != _best(run))  # stable: the best trial first, by which the others go
        first = opened[0]
        reasons = [_unlike(about, place, first[2], first[1]) for _, place, about in opened]
        left_out += [f"{each[0]} is left out: {why}" for each, why in zip(opened, reasons, strict=True) if why]
        opened = [each for each, why in zip(opened, reasons, strict=True) if not why]
    if len(opened) < 2:
        rule = f"{run}: an ensemble needs two trials or more with their weights, found {len(opened)}"
        hint = "a run keeps those of its best search.keep_checkpoints trials; `hypertune finalize` trains more"
        raise BadInput("\n".join([rule, *left_out]), hint)
    pictures = open_split(Place(first[1].path, "trial", run), first[2], "validation", "ensemble", progress)
    found = []
    for name, place, about in opened:
        model = open_torch(place, device=device)
        told = (lambda done, of, name=name: progress(f"judging with {name}", done, of)) if progress else None
        said = judge(model, pictures, progress=told)
        found.append(Candidate(name, place, about, said.probabilities.astype(np.float32)))
    return Candidates(run, tuple(found), pictures.labels, tuple(left_out))


def validation(candidates: Candidates) -> Pictures:
    """The images that the candidates judged."""
    first = candidates.found[0]
    return open_split(Place(first.place.path, "trial", candidates.run), first.about, "validation", "ensemble")


def _list(run: Path) -> list[tuple[str, Place]]:
    own = [(path.parent.name, path.parent) for path in sorted(run.glob(f"trials/*/{BEST}"))]
    finalists = sorted(run.glob(f"final/*/trials/*/{BEST}"))
    again = [(f"{path.parents[2].name}-{path.parent.name}", path.parent) for path in finalists]
    return [(name, find_model(folder)) for name, folder in (*own, *again)]


def _best(run: Path) -> str | None:
    from tuner.records.status import read_status

    best = read_status(run).best
    return best and best.trial


def _unlike(about: About, place: Place, first: About, its: Place) -> str:
    """Why a network cannot judge beside the first one; empty: it can."""
    if about.classes != first.classes:
        return f"it knows {len(about.classes)} other classes"
    for name in ("image_size", "channels", "resize"):
        if getattr(about, name) != getattr(first, name):
            return f"its {name} is {getattr(about, name)}, that of {first.name} is {getattr(first, name)}"
    if (about.settings.get("data") or {}).get("train_on", "train") != "train":
        return "it was trained on the validation images too, so that they do not tell what it is worth"
    if about.origin.fingerprint != first.origin.fingerprint or _split(place) != _split(its):
        return "it was trained on other images, perhaps on some by which it would be chosen here"
    return ""


def _split(place: Place) -> tuple[Any, ...]:
    """What decides which images are validation images."""
    run = read_record(place.run).run if place.run else {}
    data = run.get("data") or {}
    return (run.get("seeds") or {}).get("split"), data.get("train"), data.get("validation")


# ---------------------------------------------------------------- choosing


def choose(truth: Floats, most: int) -> tuple[int, ...]:
    """Weights of members, chosen greedily with replacement: (M,) whole numbers without a common divisor.

    truth: the probability that each candidate gives the true class of each image (M, N). From the best one on, each
    round adds the member with which the log loss of the averaged probabilities is lowest, until none helps; members
    already in are preferred among equals, and there are at most `most` different ones (Caruana et al., 2004, "Ensemble
    selection from libraries of models"). By log loss, not accuracy: of a thousand images accuracy knows steps of 0.1
    points and is mostly ties, while each image tells the loss something, so that less of it is luck.
    """
    losses = [log_loss(row) for row in truth]
    weights = [0] * len(truth)
    weights[int(np.argmin(losses))] = 1
    total, loss = truth[np.argmin(losses)].copy(), min(losses)
    for count in range(2, ROUNDS + 1):
        full = sum(weight > 0 for weight in weights) >= most
        offers = [
            (round(log_loss((total + row) / count), 9), not weights[n], n)
            for n, row in enumerate(truth)
            if weights[n] or not full
        ]
        lowest, _, taken = min(offers)
        if loss - lowest < HELPS:
            break
        weights[taken] += 1
        total, loss = total + truth[taken], lowest
    divisor = math.gcd(*weights)
    return tuple(weight // divisor for weight in weights)


def log_loss(truth: Floats) -> float:
    """Mean of -log of the probabilities of the true classes (N,), in nats."""
    return float(-np.log(np.maximum(truth, TINY)).mean())


def best_single(right: Masks, truth: Floats) -> int:
    """The candidate with the highest accuracy, of equals that with the lowest log loss: what a search delivers."""
    return min(range(len(right)), key=lambda n: (-right[n].mean(), log_loss(truth[n]), n))


# ---------------------------------------------------------------- what it gains


def estimate(candidates: Candidates, most: int, *, seed: int = 0) -> tuple[Gain, Gain]:
    """What choosing an ensemble gains over choosing the best one, in accuracy and in log loss (positive: lower).

    Both are chosen on one half of the images and measured on the other, each way round, over 20 pairs of stratified
    halves: choosing and measuring on the same images would flatter the ensemble, which has more to choose from. The
    interval is a paired bootstrap over images of what each image gained on average (percentile, 1,000 resamples).
    """
    right, truth, labels = candidates.right, candidates.truth, candidates.labels
    chance = np.random.default_rng(seed)
    known: dict[tuple[int, ...], tuple[Masks, Floats]] = {}
    gained, lost = np.zeros(len(labels)), np.zeros(len(labels))
    for _ in range(REPEATS):
        half = halve(labels, chance)
        for chosen in (half, ~half):
            weights, single = choose(truth[:, chosen], most), best_single(right[:, chosen], truth[:, chosen])
            if weights not in known:
                average = candidates.average(weights)
                found = average[np.arange(len(labels)), labels]
                known[weights] = average.argmax(axis=1) == labels, -np.log(np.maximum(found, TINY))
            its_right, its_loss = known[weights]
            rest = ~chosen
            gained[rest] += its_right[rest].astype(float) - right[single, rest]
            lost[rest] += -np.log(np.maximum(truth[single, rest], TINY)) - its_loss[rest]
    return bootstrap(gained / REPEATS, chance), bootstrap(lost / REPEATS, chance)


def halve(labels: NDArray[np.int64], chance: np.random.Generator) -> Masks:
    """A random half of the images (N,), of each class a half, to within one image."""
    order = chance.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    mask = np.zeros(len(labels), dtype=np.bool_)
    mask[order[chance.integers(2) :: 2]] = True
    return mask


def bootstrap(differences: Floats, chance: np.random.Generator) -> Gain:
    """The mean of what each image gains (N,), with its 95% interval over images."""
    count = len(differences)
    means = [differences[chance.integers(count, size=count)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return Gain(float(differences.mean()), float(low), float(high))
