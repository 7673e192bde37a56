"""Pack: how many trials share a machine, decided from what was measured: the fewest that reach what any number does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tuner.packing.curve import Curve, Point
from tuner.packing.measure import HOST_SHARE
from tuner.packing.packing import Machine, Packing, Share
from tuner.spec.trial_config import Resources

STEP = 1e-4
"""Of a GPU: Ray counts shares in such steps."""

NEAR = 0.97
"""Of the best throughput: fewer trials that reach so much are preferred, as each then tells of itself sooner."""

MOST_ON_CARD = 32
"""Trials on one card; MPS serves 48 processes at most, and a card that is not full by then has trials too small."""

PROCESS = 2**30
"""Bytes of main memory that a trial's process takes at least, until it is measured: Python and torch, 0.7 GiB."""

CARD_SHARE = 0.95
"""Of a card's memory that is given out."""

ROOM = 1.15
"""Memory that a trial gets for one byte measured: validation at the end of an epoch, other batches, fragments."""


@dataclass(frozen=True)
class Need:
    """MiB of a device that the typical and the largest configuration of a search need, by `training.cost`."""

    typical: float
    largest: float


def counts_to_try(machine: Machine, wanted: Resources, most: int) -> tuple[int, ...]:
    """Trials at once on such a machine that are worth measuring, ascending; a single one: nothing is to be measured.

    `wanted` has an `auto`; most: trials that there are for one machine. 0: the machine cannot be used.
    """
    cpu, gpu = wanted.cpu, _gpu(machine, wanted)
    if gpu == 0:
        limit = max(1, min(most, int(HOST_SHARE * machine.memory / PROCESS), machine.cores))
        if cpu != "auto":
            return (min(most, int(machine.cores / cpu)),)
        halved = {machine.cores // 2**power for power in range(machine.cores.bit_length())}
        return tuple(sorted({limit} | {count for count in halved if 0 < count <= limit}))
    cores = max(machine.cores, machine.gpus) if cpu == "auto" else int(machine.cores / cpu)
    limit = min(most, cores)
    if gpu != "auto":
        return (min(limit, _on_cards(machine, gpu)),)
    if limit <= machine.gpus:
        return (limit,)
    host = int(HOST_SHARE * machine.memory / PROCESS)
    on_card = max(1, min(limit // machine.gpus, MOST_ON_CARD, host // machine.gpus))
    doubled = {2**power for power in range(on_card.bit_length())}
    return tuple(count * machine.gpus for count in sorted({on_card} | doubled))


def fix(machine: Machine, wanted: Resources, most: int) -> Packing:
    """A packing that needs no measuring: by the numbers of the file, or because there is one way only."""
    count = max(0, counts_to_try(machine, wanted, most)[-1])
    gpu = _gpu(machine, wanted)
    shared = max(1, count)
    cpu = _cores(machine, shared) if wanted.cpu == "auto" else wanted.cpu
    share = Share(cpu, float(1 if gpu == "auto" else gpu), max(1, int(cpu)))
    return Packing(machine, count, share, reason=_absent(machine, wanted))


def pack(machine: Machine, wanted: Resources, most: int, need: Need, curve: Curve) -> Packing:
    """The fewest trials at once that reach the best measured throughput within 3%, and a share for each.

    What a card's memory does not hold, or main memory, is left out; where nothing is left, one trial a card remains.
    """
    on_gpu = _gpu(machine, wanted) != 0
    fitting = [point for point in curve.points if _fits(machine, point, curve, on_gpu=on_gpu)]
    if not fitting:
        alone = fix(machine, wanted, max(1, machine.gpus if on_gpu else 1))
        return replace(alone, reason="even alone a typical trial ran short of memory (measured)")
    best = max(point.images_per_second for point in fitting)
    chosen = next(point for point in fitting if point.images_per_second >= NEAR * best)
    measured = tuple((p.at_once, round(p.images_per_second, 1)) for p in curve.points if not p.failed)
    reason = _why(machine, chosen, curve, fitting, on_gpu=on_gpu)
    cpu = _cores(machine, chosen.at_once) if wanted.cpu == "auto" else wanted.cpu
    packing = Packing(
        machine=machine,
        at_once=chosen.at_once,
        typical=Share(cpu, 0.0, max(1, int(cpu))),
        reason="; ".join(filter(None, [reason, _absent(machine, wanted)])),
        measured=measured,
    )
    if not on_gpu:
        return packing
    on_card = chosen.at_once // machine.gpus
    gpu = math.floor(1 / on_card / STEP + 1e-9) * STEP
    memory = None if on_card == 1 else _memory(machine, curve, on_card)
    holds = None if memory is None else _holds(memory, need, chosen.reserved, curve.largest)
    return replace(packing, typical=replace(packing.typical, gpu=round(gpu, 4), memory=memory), memory_mb=holds)


def share_of(packing: Packing, memory_mb: float) -> Share:
    """What a configuration gets that needs so many MiB by the estimate: a larger share where the typical is too small.

    In proportion, at most a whole card: then all of its memory, whatever the estimate says.
    """
    typical = packing.typical
    if packing.memory_mb is None or memory_mb <= packing.memory_mb or not 0 < typical.gpu < 1:
        return typical
    gpu = round(math.ceil(typical.gpu * memory_mb / packing.memory_mb / STEP - 1e-9) * STEP, 4)
    if gpu >= 1:
        return replace(typical, gpu=1.0, memory=None)
    return replace(typical, gpu=gpu, memory=int((typical.memory or 0) * gpu / typical.gpu))


def fewer(packing: Packing) -> Packing | None:
    """The next lower sharing, after a trial ran out of memory; None where there is none, or the file says the numbers.

    On a GPU the next power of two on each card, so 12, 8, 4, 2, 1.
    """
    machine, typical = packing.machine, packing.typical
    cards = max(1, machine.gpus if typical.gpu else 1)
    now = packing.at_once // cards
    if now <= 1 or not packing.measured:
        return None
    after = 2 ** ((now - 1).bit_length() - 1)
    divided = typical.cpu == _cores(machine, packing.at_once)  # else the file says how many
    cpu = _cores(machine, after * cards) if divided else typical.cpu
    lower = replace(
        packing,
        at_once=after * cards,
        typical=replace(typical, cpu=cpu, threads=max(1, int(cpu))),
        reason=f"{packing.at_once} ran out of memory",
    )
    if not typical.gpu:
        return lower
    gpu = round(math.floor(1 / after / STEP + 1e-9) * STEP, 4)
    grown = gpu / typical.gpu
    memory = None if after == 1 or typical.memory is None else int(typical.memory * grown)
    holds = None if memory is None or packing.memory_mb is None else packing.memory_mb * grown
    return replace(lower, typical=replace(lower.typical, gpu=gpu, memory=memory), memory_mb=holds)


# ---------------------------------------------------------------- memory


def _fits(machine: Machine, point: Point, curve: Curve, *, on_gpu: bool) -> bool:
    """Whether so many trials ran, and leave each the memory that it took with some room."""
    if point.failed or point.host * point.at_once > HOST_SHARE * machine.memory:
        return False
    on_card = point.at_once // machine.gpus if on_gpu else 1
    return not on_gpu or on_card == 1 or _memory(machine, curve, on_card) >= ROOM * point.reserved


def _memory(machine: Machine, curve: Curve, on_card: int) -> int:
    """Bytes that torch may hold in each of so many processes on a card: their contexts and what others take go off."""
    ran = [point for point in curve.points if not point.failed]
    first, last = ran[0], ran[-1]
    few, many = first.at_once / machine.gpus, last.at_once / machine.gpus
    # What one process more takes; from a single point: all that is taken, as if nobody else were on the card.
    each = (last.used - first.used) / (many - few) if many > few else first.used / few
    context = max(0.0, each - last.reserved)
    others = max(0.0, first.used - few * each)
    return int((CARD_SHARE * machine.gpu_memory - others) / on_card - context)


def _holds(memory: int, need: Need, typical: int, largest: int) -> float:
    """MiB by the estimate of a configuration that just fits into so many bytes.

    Through the two that were measured goes a line; without the second, or where it is no larger, one through zero.
    """
    slope, start = typical / need.typical, 0.0
    if largest > typical and need.largest > 1.05 * need.typical:
        slope = (largest - typical) / (need.largest - need.typical)
        start = typical - slope * need.typical
        if start < 0:
            slope, start = largest / need.largest, 0.0
    return (memory / ROOM - start) / slope


# ---------------------------------------------------------------- words and numbers


def _gpu(machine: Machine, wanted: Resources) -> float | Literal["auto"]:
    """GPUs of a trial as asked for; 0 for `auto` where there is none."""
    return 0 if wanted.gpu == "auto" and not machine.gpus else wanted.gpu


def _on_cards(machine: Machine, gpu: float) -> int:
    """Trials that the cards hold; Ray gives a share of one card, or whole cards."""
    return int(1 / gpu + 1e-9) * machine.gpus if gpu < 1 else machine.gpus // int(gpu)


def _cores(machine: Machine, count: int) -> float:
    """Cores of each of so many trials: whole ones where there is one for each."""
    each = machine.cores / count
    return float(int(each)) if each >= 1 else math.floor(each / STEP) * STEP


def _absent(machine: Machine, wanted: Resources) -> str:
    return "no GPU here, so gpu: auto is 0" if wanted.gpu == "auto" and not machine.gpus else ""


def _why(machine: Machine, chosen: Point, curve: Curve, fitting: Sequence[Point], *, on_gpu: bool) -> str:
    """Why neither more nor fewer: `16 would be slower (measured)`."""
    above = next((point for point in curve.points if point.at_once > chosen.at_once), None)
    below = [point for point in fitting if point.at_once < chosen.at_once]
    if above is None and not below:
        return ""
    if above is None:
        other = below[-1]
        threads = "" if on_gpu else f" with {other.threads} thread{'s' * (other.threads > 1)}"
        return f"{other.at_once}{threads} would be slower (measured)"
    if above.failed:
        return f"{above.at_once} {above.failed} (measured)"
    if above not in fitting:
        return f"{above.at_once} would leave too little memory for each (measured)"
    word = "slower" if above.images_per_second < NEAR * chosen.images_per_second else "no faster"
    return f"{above.at_once} would be {word} (measured)"
