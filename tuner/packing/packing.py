"""Packing: how many trials share a machine, and what each gets: the values that are handed on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """One kind of machine, and how many such there are.

    cores: that may be used, by affinity and container. memory: bytes that may be used, of the container where it has a
    limit. gpus: cards of one machine; gpu: their model as the driver names it, empty without; gpu_memory: bytes of one.
    """

    cores: int
    memory: int
    gpus: int = 0
    gpu: str = ""
    gpu_memory: int = 0
    nodes: int = 1


@dataclass(frozen=True)
class Share:
    """What one trial gets. cpu, gpu: as Ray counts them; threads: of torch; memory: bytes of the GPU's memory that its
    process may take, None where it is not capped."""

    cpu: float
    gpu: float
    threads: int
    memory: int | None = None


@dataclass(frozen=True)
class Packing:
    """How trials share machines of one kind.

    at_once: typical trials on one machine. typical: what such a one gets. memory_mb: MiB of the GPU that a trial may
    need, by the estimate of `training.cost`, to fit into a typical share; None where memory decides nothing. reason:
    why it is so, for a person: `16 at once would be slower (measured)`. measured: trials on one machine -> images a
    second of all of them together, as far as it was measured.
    """

    machine: Machine
    at_once: int
    typical: Share
    memory_mb: float | None = None
    reason: str = ""
    measured: tuple[tuple[int, float], ...] = ()
