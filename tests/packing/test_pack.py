"""The decision, on devices that are simulated: how many trials share a machine, and what each gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tuner.packing.curve import OUT_OF_MEMORY, Curve, Point
from tuner.packing.pack import CARD_SHARE, Need, counts_to_try, fewer, fix, pack, share_of
from tuner.packing.packing import Machine, Packing
from tuner.spec.trial_config import Resources

GB = 10**9
CARD = Machine(cores=32, memory=256 * GB, gpus=1, gpu="pretend", gpu_memory=40 * GB)
AUTO = Resources(cpu="auto", gpu="auto")
NEED = Need(typical=1000, largest=4000)
MANY = 1000
Speed = Callable[[int], float]


def saturating(most: int) -> Speed:
    """Each trial alone reaches 100 images a second, all together no more than `most` do."""
    return lambda count: 100.0 * min(count, most)


def falling_after(most: int) -> Speed:
    return lambda count: 100.0 * count if count <= most else 100.0 * most * most / count


def simulate(
    machine: Machine, speed: Speed, each: int = GB, context: int = GB // 2, others: int = 0, most: int = MANY
) -> Curve:
    """What measuring would find: each trial holds so many bytes and a context; the largest configuration 4 times."""
    points: list[Point] = []
    for count in counts_to_try(machine, AUTO, most):
        on_card = count // max(1, machine.gpus)
        used = others + on_card * (each + context)
        threads = max(1, machine.cores // count)
        if machine.gpus and used > machine.gpu_memory:
            points.append(Point(count, threads, failed=OUT_OF_MEMORY))
            break
        points.append(Point(count, threads, speed(count), each, used, GB))
    return Curve(tuple(points), 4 * each)


def packed(machine: Machine, speed: Speed, wanted: Resources = AUTO, **simulated: int) -> Packing:
    return pack(machine, wanted, MANY, NEED, simulate(machine, speed, **simulated))


def test_a_curve_that_falls_after_8_gives_8() -> None:
    found = packed(CARD, falling_after(8))
    assert found.at_once == 8 and found.typical.gpu == 0.125 and found.reason == "16 would be slower (measured)"
    assert dict(found.measured)[8] == 800 and dict(found.measured)[16] == 400


def test_of_numbers_that_do_the_same_the_smallest() -> None:
    found = packed(CARD, saturating(4))
    assert found.at_once == 4 and found.reason == "8 would be no faster (measured)"
    assert packed(CARD, lambda count: 1000 + 3 * count).at_once == 8  # 16 reach 1,048: 1,024 is within 3%, 1,012 is not


def test_half_the_memory_changes_the_plan() -> None:
    whole, half = (packed(replace(CARD, gpu_memory=memory), saturating(16)) for memory in (40 * GB, 20 * GB))
    assert whole.at_once == 16 and half.at_once == 8
    assert half.reason == "16 ran out of memory (measured)"


def test_memory_that_just_held_all_is_too_little_to_live_in() -> None:
    found = packed(replace(CARD, gpu_memory=25 * GB), saturating(16))  # 16 took 24 GB of it
    assert found.at_once == 8 and found.reason == "16 would leave too little memory for each (measured)"


def test_shares_leave_room_for_contexts_and_for_what_others_take() -> None:
    alone, shared = packed(CARD, saturating(8)), packed(CARD, saturating(8), others=8 * GB)
    assert alone.typical.memory is not None and shared.typical.memory is not None
    assert 8 * (alone.typical.memory + GB // 2) == pytest.approx(CARD_SHARE * 40 * GB, rel=1e-6)
    assert alone.typical.memory - shared.typical.memory == pytest.approx(GB, rel=1e-6)


@pytest.mark.parametrize("most", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("gpus", [1, 2, 3])
def test_shares_never_pass_a_card(most: int, gpus: int) -> None:
    machine = replace(CARD, gpus=gpus, gpu_memory=80 * GB, cores=96)
    found = packed(machine, saturating(most * gpus))
    on_card, share = found.at_once // gpus, found.typical
    assert on_card == most and on_card * share.gpu <= 1 and found.at_once * share.cpu <= machine.cores
    assert share.gpu == round(share.gpu, 4)  # steps of Ray's
    assert share.memory is None if on_card == 1 else on_card * share.memory < machine.gpu_memory  # type: ignore[operator]


def test_cores_limit_the_trials_on_a_card_and_are_divided() -> None:
    found = packed(replace(CARD, cores=12), saturating(32))
    assert found.at_once == 12 and found.typical.gpu == 0.0833 and found.typical.cpu == 1
    assert packed(replace(CARD, cores=16), saturating(2)).typical.cpu == 8
    assert counts_to_try(replace(CARD, cores=12), Resources(cpu=3, gpu="auto"), MANY) == (1, 2, 4)


def test_main_memory_limits_the_trials() -> None:
    assert packed(replace(CARD, memory=10 * GB), saturating(32)).at_once == 7
    few = Machine(cores=8, memory=4 * GB)
    assert pack(few, AUTO, MANY, NEED, simulate(few, saturating(8))).at_once == 2


def test_larger_configurations_get_larger_shares() -> None:
    found = packed(CARD, saturating(8))
    assert found.memory_mb is not None and found.memory_mb >= NEED.typical and found.typical.memory is not None
    assert share_of(found, NEED.typical) == share_of(found, found.memory_mb) == found.typical
    sizes = [share_of(found, found.memory_mb * factor) for factor in (1.01, 2, 4)]
    assert [share.gpu for share in sizes] == [0.1263, 0.25, 0.5]
    assert sizes[1].memory == 2 * found.typical.memory
    assert share_of(found, 100 * found.memory_mb).gpu == 1.0 and share_of(found, 100 * found.memory_mb).memory is None


def test_the_estimate_is_corrected_by_what_was_measured() -> None:
    as_estimated, twice = packed(CARD, saturating(8), each=GB), packed(CARD, saturating(8), each=2 * GB)
    assert as_estimated.memory_mb and twice.memory_mb
    assert as_estimated.memory_mb == pytest.approx(2 * twice.memory_mb, rel=0.01)
    lean = replace(simulate(CARD, saturating(8)), largest=2 * GB)  # the largest takes half of what is estimated
    assert (pack(CARD, AUTO, MANY, NEED, lean).memory_mb or 0) > as_estimated.memory_mb


def test_fewer_until_there_is_one() -> None:
    now: Packing | None = packed(replace(CARD, cores=12), saturating(32))
    counts, cores = [], []
    while now:
        assert now.at_once * now.typical.gpu <= 1 and now.typical.cpu * now.at_once <= 12
        counts.append(now.at_once)
        cores.append(now.typical.cpu)
        last, now = now, fewer(now)
    assert counts == [12, 8, 4, 2, 1] and cores == [1, 1, 3, 6, 12]
    assert last.typical.gpu == 1 and last.typical.memory is None and last.reason == "2 ran out of memory"


def test_fewer_gives_each_more_memory_and_keeps_the_files_cores() -> None:
    first = packed(CARD, saturating(8), Resources(cpu=2, gpu="auto"))
    second = fewer(first)
    assert second and second.typical.memory and first.typical.memory and first.memory_mb
    assert second.typical.memory == 2 * first.typical.memory and second.memory_mb == 2 * first.memory_mb
    assert second.typical.cpu == first.typical.cpu == 2


def test_a_cpu_is_divided_as_it_was_fastest() -> None:
    eight = Machine(cores=8, memory=64 * GB)
    assert counts_to_try(eight, AUTO, MANY) == (1, 2, 4, 8)
    best: dict[int, float] = {1: 100, 2: 180, 4: 200, 8: 150}
    found = pack(eight, AUTO, MANY, NEED, simulate(eight, best.__getitem__))
    assert (found.at_once, found.typical.cpu, found.typical.threads, found.typical.gpu) == (4, 2, 2, 0)
    assert found.reason == "8 would be slower (measured); no GPU here, so gpu: auto is 0"
    lower = fewer(found)
    assert lower and (lower.at_once, lower.typical.cpu, lower.typical.threads) == (2, 4, 4)


def test_no_more_than_there_are_trials() -> None:
    assert counts_to_try(Machine(8, 64 * GB), AUTO, 3) == (1, 2, 3)
    assert counts_to_try(CARD, AUTO, 1) == (1,)
    assert fix(CARD, AUTO, 1).typical.gpu == 1
    assert counts_to_try(replace(CARD, gpus=4), AUTO, 3) == (3,)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, (32, 1, 0)),
        ({"cpu": 3}, (10, 3, 0)),
        ({"gpu": 0.25}, (4, 1, 0.25)),
        ({"gpu": 0.25, "cpu": "auto"}, (4, 8, 0.25)),
        ({"gpu": 2}, (0, 1, 2)),
    ],
)
def test_numbers_are_taken_as_they_are(wanted: dict[str, float], expected: tuple[int, float, float]) -> None:
    found = fix(CARD, Resources.model_validate(wanted), MANY)
    assert (found.at_once, found.typical.cpu, found.typical.gpu) == expected
    assert found.typical.memory is None and share_of(found, 1e9) == found.typical and fewer(found) is None


def test_where_nothing_fits_beside_another_one_is_left() -> None:
    curve = Curve((Point(1, 32, failed=OUT_OF_MEMORY),))
    found = pack(CARD, AUTO, MANY, NEED, curve)
    assert found.at_once == 1 and found.typical.gpu == 1 and "even alone" in found.reason
    assert pack(replace(CARD, gpus=4), AUTO, MANY, NEED, curve).at_once == 4
