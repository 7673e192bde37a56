"""Ray takes the shares as they are written: so many fit on a card, and one more waits. Cards are pretended."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tuner.packing.curve import Curve, Point
from tuner.packing.pack import Need, pack, share_of
from tuner.packing.packing import Machine, Packing, Share
from tuner.spec.trial_config import Resources

pytestmark = pytest.mark.ray

CARDS, GB = 2, 10**9


def packed(on_card: int) -> Packing:
    """What is decided where more than so many on each of two cards bring nothing."""
    machine = Machine(64, 256 * GB, CARDS, "pretend", 80 * GB)
    points = [Point(n * CARDS, 1, min(n, on_card), GB, n * GB, GB) for n in {on_card, 2 * on_card}]
    curve = Curve(tuple(sorted(points, key=lambda point: point.at_once)), 2 * GB)
    return pack(machine, Resources(cpu=1, gpu="auto"), 1000, Need(1000, 2000), curve)


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Ray on this machine, with two cards that are not there."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # all servers listen on loopback alone
        warnings.simplefilter("ignore")  # Ray's own
        import ray

        ray.init(num_cpus=64, num_gpus=CARDS, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


def place(ray: Any, share: Share, patience: float = 30) -> tuple[Any, bool]:
    """Room for a trial with this share, and whether it was found within so many seconds."""
    group = ray.util.placement_group([{"CPU": share.cpu, "GPU": share.gpu}])
    return group, group.wait(patience)


@pytest.mark.parametrize("on_card", [1, 3, 12])
def test_so_many_fit_and_one_more_waits(ray: Any, on_card: int) -> None:
    packing = packed(on_card)
    groups = [place(ray, packing.typical) for _ in range(packing.at_once)]
    assert packing.at_once == CARDS * on_card and all(placed for _, placed in groups)
    extra, placed = place(ray, packing.typical, 0.3)
    assert not placed
    ray.util.remove_placement_group(groups[0][0])
    assert extra.wait(30)  # it was room that it waited for
    for group, _ in [*groups[1:], (extra, True)]:
        ray.util.remove_placement_group(group)


def test_a_larger_share_takes_the_room_of_several(ray: Any) -> None:
    packing = packed(4)
    assert packing.memory_mb
    large = share_of(packing, 2 * packing.memory_mb)
    groups = [place(ray, share) for share in [large, large, *[packing.typical] * 4]]
    assert large.gpu == 0.5 and all(placed for _, placed in groups)
    extra, placed = place(ray, packing.typical, 0.3)
    assert not placed
    for group, _ in [*groups, (extra, False)]:
        ray.util.remove_placement_group(group)
