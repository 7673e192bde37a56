"""Limits that a container or a batch system sets to this process, by control groups of both versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CONTROL = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


def read_cores(control: Path = CONTROL, own: Path = SELF) -> float | None:
    """Cores by the quota of processor time, the least of all groups around this process; None without one."""
    found = [_share((folder / "cpu.max").read_text().split()) for folder in _groups(control, own, "", "cpu.max")]
    for folder in _groups(control, own, "cpu", "cpu.cfs_quota_us"):
        found.append(_share([(folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]))
    return min((cores for cores in found if cores is not None), default=None)


def read_memory(control: Path = CONTROL, own: Path = SELF) -> int | None:
    """Bytes of memory, the least of all groups around this process; None without a limit."""
    files = [folder / "memory.max" for folder in _groups(control, own, "", "memory.max")]
    files += [folder / "memory.limit_in_bytes" for folder in _groups(control, own, "memory", "memory.limit_in_bytes")]
    # Version 1 says "no limit" by a number beyond all memory; version 2 by the word max.
    return min((int(text) for file in files if (text := file.read_text().strip()).isdigit()), default=None)


def _groups(control: Path, own: Path, controller: str, file: str) -> Iterator[Path]:
    """Folders that hold `file`, from this process's group up to the root; controller: empty for version 2.

    Inside a container the paths may be those of the host, which are not there: then the root is the container's own.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        lines = [["0", "", "/"]]
    for _, names, path in (line for line in lines if len(line) == 3):
        if controller not in names.split(","):
            continue
        for root in [control / names, control / controller] if controller else [control, control / "unified"]:
            group = root / path.strip("/")
            folders = [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
            yield from (folder for folder in folders if (folder / file).is_file())


def _share(quota_and_period: list[str]) -> float | None:
    try:
        quota, period = map(int, quota_and_period)
    except ValueError:  # max: no quota
        return None
    return quota / period if quota > 0 and period > 0 else None
