"""Variants: what a compressed form of a model is worth beside the original, in numbers and in words that they bear out.

A verdict is against the original in the same form: ONNX against ONNX, torch against torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

CLEARLY = 1.1
"""Times smaller, or faster; less than that is nobody's reason to take another file."""


@dataclass(frozen=True)
class Variant:
    """One form of a model, as it was measured.

    what: what was done, in a sentence. file: in the folder of compressed.json; None: it was measured and not kept.
    gzip_bytes: packed. multiply_adds: of one image. accuracy, low, high: on validation images with Wilson's 95%
    interval; difference: to the original's on the same images, with its 95% interval, and p of McNemar's exact test.
    ms: of a call on 1 and 64 images, p50, one thread. size, speed: against the original of its form; below 1: smaller,
    slower. clear: what a speed must reach to count, here and now. front: no other form is better in one of accuracy,
    bytes and time of one image and as good in the others.
    """

    name: str
    form: Literal["onnx", "torch"]
    what: str
    file: str | None
    bytes: int
    gzip_bytes: int
    params: int
    multiply_adds: int
    accuracy: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    ms: dict[int, float]
    size: float = 1.0
    gzip_size: float = 1.0
    speed: dict[int, float] = field(default_factory=dict)
    clear: dict[int, float] = field(default_factory=dict)
    front: bool = False
    verdict: str = ""

    @property
    def original(self) -> bool:
        """Whether it is the model itself."""
        return self.name.startswith("original")

    @property
    def worse(self) -> bool:
        """Whether it lost more accuracy than the validation images give by chance."""
        return self.difference_high < 0

    @property
    def faster(self) -> bool:
        """Whether it is clearly faster on one image and on many."""
        return all(times >= self.clear[batch] for batch, times in self.speed.items())

    @property
    def slower(self) -> bool:
        """Whether it is clearly slower on one image or on many."""
        return any(times <= 1 / self.clear[batch] for batch, times in self.speed.items())

    @property
    def gains(self) -> bool:
        """Whether it is a file to take: smaller or faster, not slower, and not less accurate beyond noise."""
        better = self.size <= 1 / CLEARLY or self.faster
        return self.file is not None and not self.original and better and not self.slower and not self.worse


def compare(variants: Sequence[Variant], again: Mapping[str, Mapping[int, float]]) -> tuple[Variant, ...]:
    """The same with what only shows beside the others: size, speed, front, verdict.

    again: ms of each original (form -> batch -> ms) measured a second time, as if it was another one: as far as these
    two are apart, the machine's noise reaches, and no variant is called faster or slower for less.
    """
    originals = {variant.form: variant for variant in variants if variant.original}
    found = []
    for variant in variants:
        other = originals[variant.form]
        beside = replace(
            variant,
            size=variant.bytes / other.bytes,
            gzip_size=variant.gzip_bytes / other.gzip_bytes,
            speed={batch: other.ms[batch] / ms for batch, ms in variant.ms.items()},
            clear={batch: max(CLEARLY, _apart(ms, again[variant.form][batch])) for batch, ms in other.ms.items()},
            front=not any(_beats(one, variant) for one in variants),
        )
        found.append(replace(beside, verdict=judge(beside)))
    return tuple(found)


def _apart(first: float, second: float) -> float:
    return max(first, second) / min(first, second)


def _beats(one: Variant, other: Variant) -> bool:
    first, second = ((v.accuracy, -v.bytes, -v.ms[1]) for v in (one, other))
    return first != second and all(a >= b for a, b in zip(first, second, strict=True))


def judge(variant: Variant) -> str:
    """What may be said of a variant: nothing is called smaller, faster or as good that was not measured so."""
    if variant.original:
        return "the original"
    words = [_size(variant), _speed(variant)]
    if variant.worse:
        words.append(f"loses {-points(variant.difference):.1f} points")
    return ", ".join(words)


def _size(variant: Variant) -> str:
    if variant.size <= 1 / CLEARLY:
        return f"{variant.size:.2f} of the size"
    packed = f" ({variant.gzip_size:.2f} when packed)" if variant.gzip_size <= 1 / CLEARLY else ""
    return ("larger" if variant.size >= CLEARLY else "no smaller") + packed


def _speed(variant: Variant) -> str:
    ends = [f"{times:.1f}" for times in (min(variant.speed.values()), max(variant.speed.values()))]
    times = " to ".join(dict.fromkeys(ends)) + " times"
    if variant.faster:
        return f"{times} as fast"
    if not any(times >= variant.clear[batch] for batch, times in variant.speed.items()):
        return f"not faster here: {times}" if variant.slower else "not faster"
    return ", ".join(_on(batch, speed, variant.clear[batch]) for batch, speed in sorted(variant.speed.items()))


def _on(batch: int, speed: float, clear: float) -> str:
    images = f"on {batch} image{'s' * (batch > 1)}"
    if 1 / clear < speed < clear:
        return f"as fast {images}"
    return f"{speed:.1f} times as fast {images}" if speed >= clear else f"slower {images}: {speed:.1f} times"


def points(share: float) -> float:
    """A difference of shares in percentage points."""
    return 100 * share


def summarise(variants: Sequence[Variant], images: int) -> list[str]:
    """Which variants are worth taking, and what that rests on; only those that are really better in something."""
    gains = [variant for variant in variants if variant.gains]
    if not gains:
        slower = [v for v in variants if v.file and not v.original and v.size <= 1 / CLEARLY and not v.worse]
        if slower:
            one = min(slower, key=lambda v: v.bytes)
            return [f"Only for size: {one.name}, {_say(one)}. Nothing else gains without a loss: keep the original."]
        return ["Nothing here is smaller or faster without a loss beyond noise: keep the original."]
    roles: dict[str, list[str]] = {}
    for role, one in (
        ("safest", max(gains, key=lambda v: v.difference_low)),
        ("smallest", min(gains, key=lambda v: v.bytes)),
        ("fastest", min(gains, key=lambda v: v.ms[1])),
    ):
        roles.setdefault(one.name, []).append(role)
    named = {variant.name: variant for variant in gains}
    said = [f"{' and '.join(role)}: {name}, {_say(named[name])}" for name, role in roles.items()]
    return [*said, f"points are of accuracy on {images:,} validation images; the test images were not looked at"]


def pick(variants: Sequence[Variant]) -> Variant | None:
    """The safest file that is worth taking: the one that loses least at worst; None where nothing is."""
    return max((one for one in variants if one.gains), key=lambda one: one.difference_low, default=None)


def _say(variant: Variant) -> str:
    difference, low, high = map(points, (variant.difference, variant.difference_low, variant.difference_high))
    return f"{variant.verdict}; {difference:+.1f} points (95%: {low:+.1f} to {high:+.1f})"


HEADS = ("", "variant", "accuracy", "points", "size", "ms 1", "ms 64", "verdict")
LEGEND = """*        on the front: no other is better in accuracy, size or ms 1 and as good in the rest
ms       a call on 1 and 64 images, p50 on one thread; torch is judged beside original-torch, ONNX beside original"""


def table(variants: Sequence[Variant]) -> list[tuple[str, ...]]:
    """A row a variant, for a person; those on the front with a star."""
    return [
        (
            "*" * variant.front,
            variant.name,
            f"{variant.accuracy:.1%}",
            "" if variant.original else f"{points(variant.difference):+.1f}",
            _bytes(variant.bytes),
            f"{variant.ms[1]:.3g}",
            f"{variant.ms[64]:.3g}",
            variant.verdict,
        )
        for variant in variants
    ]


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def as_json(variant: Variant) -> dict[str, Any]:
    """A variant in compressed.json; batch sizes are keys of `ms` and `speed`."""
    return {**vars(variant), "gains": variant.gains}
