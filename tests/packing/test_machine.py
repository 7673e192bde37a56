"""What of a machine may be used, by its container too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.packing.machine import GRAIN, count_cores, this_machine
from tuner.training.limits import read_cores, read_memory


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A process in group /jobs/7 of both versions."""
    file = tmp_path / "own"
    file.write_text("4:memory:/jobs/7\n2:cpu,cpuacct:/jobs/7\n0::/jobs/7\n")
    return file


def write(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 64), ("150000 100000", 1), ("300000 100000", 3)])
def test_a_containers_quota_counts(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    write(tmp_path / "c", cpu__max=quota)
    assert count_cores(tmp_path / "c", own) == cores


def test_groups_of_version_2_the_tightest_around_the_process(tmp_path: Path, own: Path) -> None:
    write(tmp_path / "c" / "jobs" / "7", cpu__max="800000 100000", memory__max="max")
    write(tmp_path / "c" / "jobs", cpu__max="400000 100000", memory__max="3000")
    write(tmp_path / "c" / "other", cpu__max="100000 100000", memory__max="1000")
    assert read_cores(tmp_path / "c", own) == 4 and read_memory(tmp_path / "c", own) == 3000


def test_groups_of_version_1(tmp_path: Path, own: Path) -> None:
    write(tmp_path / "c" / "cpu,cpuacct" / "jobs" / "7", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    write(tmp_path / "c" / "memory" / "jobs" / "7", memory__limit_in_bytes="5000")
    assert read_cores(tmp_path / "c", own) == 2.5 and read_memory(tmp_path / "c", own) == 5000


def test_a_container_of_version_1_sees_its_own_group_as_the_root(tmp_path: Path, own: Path) -> None:
    write(tmp_path / "c" / "memory", memory__limit_in_bytes="6000")  # no jobs/7 in there
    write(tmp_path / "c" / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert read_memory(tmp_path / "c", own) == 6000 and read_cores(tmp_path / "c", own) is None


def test_no_groups_no_limits(tmp_path: Path) -> None:
    assert read_cores(tmp_path, tmp_path / "gone") is None and read_memory(tmp_path, tmp_path / "gone") is None


class Card:
    def __init__(self, name: str, total_memory: int) -> None:
        self.name, self.total_memory = name, total_memory


def test_of_unlike_cards_the_smaller_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [Card("large", 80), Card("small", 40)]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", cards.__getitem__)
    found = this_machine()
    assert (found.gpus, found.gpu, found.gpu_memory) == (2, "small", 40)
    assert found.memory % GRAIN == 0 and found.cores >= 1
