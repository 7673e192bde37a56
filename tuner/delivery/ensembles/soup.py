"""Soup: one network whose weights are the average of several; as fast as one, if their weights fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import update_bn

from tuner.delivery.about import About, Origin
from tuner.delivery.ensembles.members import Candidates, Gain, bootstrap, validation
from tuner.delivery.model import WEIGHTS, Model, Shipped, open_torch, read_about, save_model
from tuner.delivery.pictures import Pictures, open_split
from tuner.delivery.place import MODEL, Place
from tuner.delivery.predictions import judge
from tuner.errors import BadInput
from tuner.records.writer import now
from tuner.training.networks import without_rates

IMAGES, BATCH = 2_000, 128
"""Training images that the statistics of batch normalisation are taken from again, and how many at a time."""
SAID = "Its weights are the average of those of trials"
"""How a note in the model.json of a soup begins."""

Kind = Literal["uniform", "greedy"]


@dataclass(frozen=True)
class Soup:
    """A soup as measured. accuracy: on the validation images; gain: over the best single network, positive: better.

    folder: where it was saved; None where it is worse than the best single one.
    """

    kind: Kind
    names: tuple[str, ...]
    accuracy: float
    gain: Gain
    folder: Path | None = None


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts with the same names and shapes; whole numbers, such as counters, are the first one's."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value.clone()
        for name, value in states[0].items()
    }


def alike(candidates: Candidates, best: int) -> list[int]:
    """The candidates whose weights could be averaged with those of `best`, it among them."""
    first = candidates.found[best].about
    return [n for n, each in enumerate(candidates.found) if _agree(each.about, first)]


def _agree(about: About, first: About) -> bool:
    same = without_rates(about.model) == without_rates(first.model)
    return same and (about.mean, about.std, about.params) == (first.mean, first.std, first.params)


def make(
    candidates: Candidates,
    best: int,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Soup, ...]:
    """The uniform and the greedy soup of what is like the best network (Wortsman et al., 2022, arXiv 2203.05482).

    Uniform: the average of all. Greedy: from the best on, each of the others by its accuracy is stirred in if the soup
    is then no worse on the validation images. Batch normalisation's statistics belong to no average: they are taken
    again from training images. The better soup is saved in `folder` if it is at least as good as the best network;
    a greedy soup of one is none. Empty: nothing else has the architecture of the best.

    Raises:
        BadInput: the images are gone, or it cannot be written there.
    """
    _take_away(folder)
    right = candidates.right
    order = sorted(alike(candidates, best), key=lambda n: (n != best, -right[n].mean(), n))
    if len(order) < 2:
        return ()
    cook = _Cook(candidates, order, device, progress)
    uniform = cook.taste(order)
    chosen, found = [best], right[best]
    for n in order[1:]:
        tried = uniform if len(order) == 2 else cook.taste([*chosen, n])
        if tried.mean() >= found.mean():
            chosen, found = [*chosen, n], tried
    kinds: list[tuple[Kind, list[int], NDArray[np.bool_]]] = [("uniform", order, uniform)]
    if 1 < len(chosen) < len(order):
        kinds.append(("greedy", chosen, found))
    soups = [
        Soup(
            kind,
            tuple(candidates.found[n].name for n in names),
            float(its.mean()),
            bootstrap(its.astype(float) - right[best], np.random.default_rng(0)),
        )
        for kind, names, its in kinds
    ]
    winner = max(range(len(soups)), key=lambda n: soups[n].accuracy)
    if soups[winner].gain.value >= 0:
        cook.save(kinds[winner][1], soups[winner], folder)
        soups[winner] = replace(soups[winner], folder=folder)
    return tuple(soups)


def _take_away(folder: Path) -> None:
    """An earlier soup in this folder, which is no soup of these; nothing else."""
    try:
        notes = read_about(folder / MODEL).notes
    except BadInput:  # nothing there, or nothing of ours
        return
    if any(note.startswith(SAID) for note in notes):
        for name in (MODEL, WEIGHTS):
            (folder / name).unlink(missing_ok=True)


class _Cook:
    # Networks of one architecture, the images that soups are tasted on, and those that set their statistics.

    def __init__(
        self,
        candidates: Candidates,
        order: Sequence[int],
        device: str,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._candidates, self._progress = candidates, progress
        self._models = {n: open_torch(candidates.found[n].place, device=device) for n in order}
        self._validation = validation(candidates)
        first = candidates.found[order[0]]
        self._training = open_split(Place(first.place.path, "trial", candidates.run), first.about, "train", "ensemble")
        self._tasted, self._most = 0, len(order)

    def mix(self, names: Sequence[int]) -> Model:
        first = self._models[names[0]]
        states = [self._models[n].network.network.state_dict() for n in names]
        mixed = open_torch(first.place, device=str(first.device))
        mixed.network.network.load_state_dict(average(states))
        renew_statistics(mixed.network, self._training, mixed.device)
        return mixed

    def taste(self, names: Sequence[int]) -> NDArray[np.bool_]:
        """On which validation images a soup is right (N,)."""
        self._tasted += 1
        found = judge(self.mix(names), self._validation).right
        if self._progress:
            self._progress("tasting soups", self._tasted, self._most)
        return found

    def save(self, names: Sequence[int], soup: Soup, folder: Path) -> None:
        mixed = self.mix(names)
        origin = mixed.about.origin
        update = {
            "name": f"{origin.run} soup of {len(names)}",
            "origin": Origin(
                run=origin.run, metric="val_accuracy", value=soup.accuracy, dataset=origin.dataset, created=now(),
                fingerprint=origin.fingerprint, train=origin.train, versions=origin.versions,
            ),
        }  # fmt: skip
        images = min(IMAGES, len(self._training))
        notes = (
            f"{SAID} {', '.join(soup.names)} ({soup.kind} soup)",
            f"The statistics of batch normalisation were taken again from {images:,} training images",
        )
        save_model(folder, replace(mixed, about=mixed.about.model_copy(update=update)), notes=notes)


def renew_statistics(network: Shipped, training: Pictures, device: torch.device) -> None:
    """Mean and variance of each batch normalisation anew, from up to 2,000 training images drawn with a fixed seed.

    Averaged weights make other activations than any of their networks (Izmailov et al., 2018, arXiv 1803.05407).
    """
    index = np.sort(np.random.default_rng(0).permutation(len(training))[:IMAGES])
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):  # dropout draws
        torch.manual_seed(0)
        update_bn(_whole_batches(training, index), network, device)
    network.eval()


def _whole_batches(training: Pictures, index: NDArray[np.int64]) -> Iterator[Tensor]:
    # Batches count alike, so that a short last one would count too much.
    size = min(BATCH, len(index))
    for start in range(0, len(index) - size + 1, size):
        yield torch.tensor(np.asarray(training.pixels[index[start : start + size]]))
