"""Verdict: what a comparison of two models says in sentences, and what it does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuner.delivery.judging.paired import LEVEL, Paired
from tuner.delivery.judging.shared import Two, form_of
from tuner.delivery.pictures import Pictures, Split

if TYPE_CHECKING:
    from tuner.delivery.judging.versus import Versus

MOST_NAMED = 3
"""Classes that the terminal names."""


def answer(names: tuple[str, str], overall: Paired, what: str) -> str:
    """Which is better, in one sentence; better is said only where the exact test gives less than 0.05."""
    better, worse = names if overall.difference >= 0 else names[::-1]
    bounds = (overall.low, overall.high) if overall.difference >= 0 else (-overall.high, -overall.low)
    sure = f"95%: {_points(bounds[0])} to {_points(bounds[1])}"
    if overall.difference == 0:
        return f"{better} and {worse} are right equally often on {what} (difference 0 points, {sure})."
    size = f"{_points(abs(overall.difference))} points"
    if overall.p < LEVEL:
        return f"{better} is better than {worse} by {size} ({sure}, {say_p(overall.p)}) on {what}."
    return f"{better} is ahead of {worse} by {size} on {what}, but that could be chance ({sure}, {say_p(overall.p)})."


def say_p(p: float) -> str:
    """A p value in words: p = 0.013, p < 0.0001."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}" if p < 0.001 else f"p = {p:.2g}"


def lines(versus: Versus) -> list[str]:
    """What the terminal says: the answer, who is right where, classes that differ, robustness, notes."""
    first, second = (side.name for side in versus.models)
    counts = versus.overall
    said = [
        versus.answer,
        f"images  {versus.images:,}: both right {counts.both:,} · only {first} {counts.first:,} · only {second} "
        f"{counts.second:,} · both wrong {counts.neither:,}; the same class in {versus.agreement:.1%}",
    ]
    sure = sorted((one for one in versus.per_class if one.p_holm < LEVEL), key=lambda one: -abs(one.difference))
    for one in sure[:MOST_NAMED]:
        said.append(f"class   {one.name}: {_ahead((first, second), one.difference, one.low, one.high)}")
    if len(sure) > MOST_NAMED:
        said.append(f"        and {len(sure) - MOST_NAMED} more")
    if not sure:
        said.append("class   none in which they differ by more than chance (Holm's correction)")
    if versus.robustness:
        said.append(f"harmed  {_harmed(versus.robustness, (first, second))}")
    return [*said, *(f"note    {text}" for text in (*versus.problems, *versus.notes))]


def notes(models: Two, pictures: Pictures, split: Split | None, corrupt: bool) -> list[str]:
    """What a reader of the numbers must know. split: None for images that were named; corrupt: whether there are curves
    under corruptions.
    """
    found = [
        "The intervals are those of the images: each model is one training, and with another seed the same settings "
        "would come out a little better or worse."
    ]
    if split == "validation":
        found.append(
            "The validation images took part in choosing models, so that the numbers are a little too good; those on "
            "test images are not."
        )
    if corrupt and form_of(models[0]) != form_of(models[1]):
        found.append("The models take images of different form; each was corrupted in its own, with equal strengths.")
    if missing := [name for n, name in enumerate(models[0].about.classes) if not (pictures.labels == n).any()]:
        found.append(f"Classes without images, which nothing is said about: {', '.join(missing[:20])}.")
    return [*found, *(f"Of {model.about.name}: {note}." for model in models for note in model.about.notes)]


def called(pictures: Pictures, split: Split | None) -> str:
    """The images in words: 10,000 test images; 300 images of photos/new."""
    return f"{len(pictures):,} {split} images" if split else f"{len(pictures):,} images of {pictures.what}"


def _harmed(robustness: Mapping[str, Any], names: tuple[str, str]) -> str:
    means = [model["mean"] for model in robustness["models"]]
    difference = robustness["difference"]
    reached = f"{names[0]} {means[0]:.1%}, {names[1]} {means[1]:.1%} under noise, blur, brightness and JPEG"
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    if low <= 0 <= high:
        return f"{reached}; the difference could be chance (95%: {_points(low)} to {_points(high)})"
    return f"{reached}: {_ahead(names, value, low, high)}"


def _ahead(names: tuple[str, str], difference: float, low: float, high: float) -> str:
    if difference < 0:
        names, difference, low, high = names[::-1], -difference, -high, -low
    return f"{names[0]} ahead by {_points(difference)} points (95%: {_points(low)} to {_points(high)})"


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-0.0", "0.0").replace("-", "−")
