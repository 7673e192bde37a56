"""Members: the trained networks of a run that may judge together, which of them should, and what that really gains."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from tuner.records.status import read_status
from tuner.training import checkpoint

ROUNDS = 20
"""Members drawn, with replacement: votes in steps of a twentieth."""
REPEATS, WORK = 20, 2 * 10**10
"""Pairs of halves of the estimate, fewer where that would be more probabilities to look at: about a minute."""
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

    def average(self, votes: Sequence[int]) -> Floats:
        """Probabilities (N, C) of members with these votes, one for each candidate."""
        made = np.zeros(self.found[0].probabilities.shape)
        for vote, each in zip(votes, self.found, strict=True):
            if vote:
                made += vote * each.probabilities
        made /= sum(votes)
        return made


@dataclass(frozen=True)
class Gain:
    """A difference with its 95% interval."""

    value: float
    low: float
    high: float


# ---------------------------------------------------------------- candidates


def gather(run: Path, *, device: str = "cpu", progress: Callable[[str, int, int], None] | None = None) -> Candidates:
    """All networks of a run whose weights were kept, its finalists' too, with what they say of validation images.

    Left out: what was trained on other images (such as on the validation images themselves), what judges other classes
    or images of another kind than the best trial, and what cannot be read.

    Raises:
        BadInput: fewer than two are left.
    """
    found: list[Candidate] = []
    left_out, seen = [], set[str]()
    pictures = None
    for name, place in _list(run):
        if (mark := _mark(place)) in seen:
            continue  # the same training, which two sets of finalists share
        seen |= {mark} if place.path.is_relative_to(run / "final") else set()
        try:
            model = open_torch(place, device=device)
        except BadInput as error:
            left_out.append(f"{name} is left out: {error}")
            continue
        if found and (why := _unlike(model.about, place, found[0].about, found[0].place)):
            left_out.append(f"{name} is left out: {why}")
            continue
        if pictures is None:
            pictures = open_split(Place(place.path, "trial", run), model.about, "validation", "ensemble", progress)
        told = partial(progress, f"judging with {name}") if progress else None
        said = judge(model, pictures, progress=told)
        found.append(Candidate(name, place, model.about, said.probabilities.astype(np.float32)))
    if pictures is None or len(found) < 2:
        rule = f"{run}: an ensemble needs two trials or more with their weights, found {len(found)}"
        hint = "a run keeps those of its best search.keep_checkpoints trials; `hypertune finalize` trains more"
        raise BadInput("\n".join([rule, *left_out]), hint)
    return Candidates(run, tuple(found), pictures.labels, tuple(left_out))


def validation(candidates: Candidates) -> Pictures:
    """The images that the candidates judged."""
    first = candidates.found[0]
    return open_split(Place(first.place.path, "trial", candidates.run), first.about, "validation", "ensemble")


def _list(run: Path) -> list[tuple[str, Place]]:
    """Names and places, the best trial first: by what it judges the others go."""
    own = {path.parent.name: path.parent for path in sorted(run.glob(f"trials/*/{BEST}"))}
    again = {
        f"{path.parents[2].name}-{path.parent.name}": path.parent
        for path in sorted(run.glob(f"final/*/trials/*/{BEST}"))
    }
    best = read_status(run).best
    names = sorted({**own, **again}, key=lambda name: (best is None or name != best.trial, name in again, name))
    return [(name, find_model({**own, **again}[name])) for name in names]


def _mark(place: Place) -> str:
    """Tells a network's weights from others: their checksum; where it cannot be read, opening will say why."""
    try:
        return str(json.loads((place.path / checkpoint.STATE).read_bytes())["weights"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(place.path)


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


def choose(shares: Sequence[NDArray[np.float32]], labels: NDArray[np.int64], most: int) -> tuple[int, ...]:
    """Votes of members, chosen greedily with replacement: (M,) whole numbers without a common divisor.

    shares: what each candidate says (M times (N, C)); labels (N,): what is true. From the best one on, each round adds
    the member with which the average is most often right, of equals that with the lowest log loss, then one that is in
    already; there are at most `most` different ones. The most accurate of all rounds counts, the first of equals
    (Caruana et al., 2004, "Ensemble selection from libraries of models"). To end with the first round that does not
    help would miss much: where one vote is too small a step, two may help.

    By accuracy, because that is what a search chose the single best by and what is promised here; log loss alone goes
    for whoever is calibrated, and the average by it was 0 to 4 points less accurate on drawn networks. Its ties, many
    on a thousand images, go to the log loss, to which each image tells something.
    """
    votes = [0] * len(shares)
    total = np.zeros(shares[0].shape)
    best, reached = (0,) * len(shares), -1.0
    for count in range(1, ROUNDS + 1):
        full = sum(vote > 0 for vote in votes) >= most
        offers = [
            (*_worth((total + its) / count, labels), bool(votes[n]), -n)
            for n, its in enumerate(shares)
            if votes[n] or not full
        ]
        accuracy, _, _, place = max(offers)
        votes[-place] += 1
        total += shares[-place]
        if accuracy > reached:
            best, reached = tuple(votes), accuracy
    divisor = math.gcd(*best)
    return tuple(vote // divisor for vote in best)


def _worth(average: Floats, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy, and minus the log loss, rounded so that what is equal stays so whatever the order of the sum."""
    right = (average.argmax(axis=1) == labels).mean()
    return float(right), round(-log_loss(average[np.arange(len(labels)), labels]), 9)


def log_loss(truth: Floats) -> float:
    """Mean of -log of the probabilities of the true classes (N,), in nats."""
    return float(-np.log(np.maximum(truth, TINY)).mean())


def best_single(right: Masks, truth: Floats) -> int:
    """The candidate with the highest accuracy, of equals that with the lowest log loss: what a search delivers."""
    return min(range(len(right)), key=lambda n: (-right[n].mean(), log_loss(truth[n]), n))


# ---------------------------------------------------------------- what it gains


def estimate(
    candidates: Candidates, most: int, *, seed: int = 0, progress: Callable[[str, int, int], None] | None = None
) -> tuple[Gain, Gain]:
    """What choosing an ensemble gains over choosing the best one, in accuracy and in log loss (positive: lower).

    Both are chosen on one half of the images and measured on the other, each way round, over 20 pairs of stratified
    halves (never fewer than three): choosing and measuring on the same images would flatter the ensemble, which has
    more to choose from. The interval is a paired bootstrap over images of what each image gained on average
    (percentile, 1,000 resamples).
    """
    right, truth, labels = candidates.right, candidates.truth, candidates.labels
    shares = [each.probabilities for each in candidates.found]
    repeats = max(3, min(REPEATS, WORK // (ROUNDS * len(shares) * shares[0].size)))
    chance = np.random.default_rng(seed)
    known: dict[tuple[int, ...], tuple[Masks, Floats]] = {}
    gained, lost = np.zeros(len(labels)), np.zeros(len(labels))
    for number in range(repeats):
        if progress:
            progress("estimating the gain", number, repeats)
        half = halve(labels, chance)
        for chosen in (half, ~half):
            votes = choose([its[chosen] for its in shares], labels[chosen], most)
            single = best_single(right[:, chosen], truth[:, chosen])
            if votes not in known:
                average = candidates.average(votes)
                found = average[np.arange(len(labels)), labels]
                known[votes] = average.argmax(axis=1) == labels, -np.log(np.maximum(found, TINY))
            its_right, its_loss = known[votes]
            rest = ~chosen
            gained[rest] += its_right[rest].astype(float) - right[single, rest]
            lost[rest] += -np.log(np.maximum(truth[single, rest], TINY)) - its_loss[rest]
    return bootstrap(gained / repeats, chance), bootstrap(lost / repeats, chance)


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
