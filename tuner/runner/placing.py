"""Placing: on which machine a job runs and what it gets there; known without Ray, so that it can be tested alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tuner.packing.pack import fewer, share_of
from tuner.packing.packing import Machine, Packing, Share
from tuner.runner.trial import Trial

ROUNDING = 1e-6
"""Shares of a third add up to a card."""


@dataclass(frozen=True)
class Node:
    """A machine that takes jobs. id: of Ray; address: of its network, empty for the only machine there is; name: for
    people."""

    id: str
    address: str
    name: str
    packing: Packing


@dataclass(frozen=True)
class Placed:
    """A job's place: what it gets, on which node."""

    trial: str
    node: Node
    share: Share


@dataclass
class Taken:
    """What of a node is taken: a sum, as Ray's loop asks for it after every result."""

    jobs: int = 0
    cpu: float = 0.0
    gpu: float = 0.0

    def add(self, share: Share, sign: int) -> None:
        """Take a share, or give it back with -1."""
        self.jobs, self.cpu, self.gpu = self.jobs + sign, self.cpu + sign * share.cpu, self.gpu + sign * share.gpu


class Placer:
    """Keeps count of what is free on each node; `most`: jobs at once on all of them together.

    Jobs are bound to a node: what is free can then be told exactly, machines may differ in what they give a trial, and
    a node that cannot be used takes none.
    """

    def __init__(self, nodes: Iterable[Node], most: int | None = None) -> None:
        self._nodes = {node.id: node for node in nodes}
        self._most = most
        self._jobs: dict[str, Placed] = {}
        self._taken: dict[str, Taken] = {}
        self._lower: dict[Machine, Packing] = {}
        self.lowered: Callable[[Packing, Packing, str], None] = lambda before, after, trial: None
        """Called when out-of-memory has lowered a sharing: before, after, the trial."""

    @property
    def nodes(self) -> Sequence[Node]:
        """Those that take jobs."""
        return list(self._nodes.values())

    @property
    def at_once(self) -> int:
        """Jobs that may run at once now."""
        fit = sum(node.packing.at_once for node in self._nodes.values())
        return fit if self._most is None else min(fit, self._most)

    @property
    def room(self) -> bool:
        """Whether a typical job would find a place."""
        return len(self._jobs) < self.at_once and any(self._fits(n, n.packing.typical) for n in self._nodes.values())

    def place(self, job: str, trial: Trial) -> Placed:
        """Find a place for a job, where most is free; it must be given back. One that is too large for what is free is
        placed all the same, and waits there."""
        offers = [(node, share_of(node.packing, trial.size.memory_mb)) for node in self._nodes.values()]
        node, share = max(offers, key=lambda offer: (self._fits(*offer), self._left(offer[0])))
        placed = self._jobs[job] = Placed(trial.id, node, share)
        self._taken.setdefault(node.id, Taken()).add(share, 1)
        return placed

    def give_back(self, job: str) -> None:
        """A job has ended."""
        if placed := self._jobs.pop(job, None):
            self._taken[placed.node.id].add(placed.share, -1)

    def lower(self, trial: Trial) -> bool:
        """A trial ran out of memory: let fewer share the machines of that kind; whether that is possible."""
        placed = next((placed for placed in self._jobs.values() if placed.trial == trial.id), None)
        if placed is None:
            return False
        now = self._nodes.get(placed.node.id, placed.node).packing
        if now.at_once < placed.node.packing.at_once:  # lowered since it was placed: that may be enough
            return True
        after = fewer(now)
        if after is None:
            return False
        self._lower[now.machine] = after
        self._nodes = {id: self._as_known(node) for id, node in self._nodes.items()}
        self.lowered(now, after, trial.id)
        return True

    def leave_out(self, address: str) -> None:
        """The machine at this address does not answer: place nothing there, until it is among the nodes again."""
        self._nodes = {id: node for id, node in self._nodes.items() if node.address != address}

    def update(self, nodes: Iterable[Node]) -> list[str]:
        """Know which nodes there are now; what was lowered stays so. Returns the jobs whose node is gone."""
        self._nodes = {node.id: self._as_known(node) for node in nodes}
        return [job for job, placed in self._jobs.items() if placed.node.id not in self._nodes]

    def _as_known(self, node: Node) -> Node:
        return replace(node, packing=self._lower.get(node.packing.machine, node.packing))

    def _fits(self, node: Node, share: Share) -> bool:
        taken, machine = self._taken.get(node.id, Taken()), node.packing.machine
        cpu = taken.cpu + share.cpu <= machine.cores + ROUNDING
        gpu = taken.gpu + share.gpu <= machine.gpus + ROUNDING
        return cpu and gpu and taken.jobs < node.packing.at_once

    def _left(self, node: Node) -> int:
        return node.packing.at_once - self._taken.get(node.id, Taken()).jobs
