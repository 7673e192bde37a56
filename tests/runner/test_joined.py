"""A cluster's nodes as they come, answer, lie silent and go: without Ray, as its head and nodes would be seen."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import BadInput, ClusterLost
from tuner.packing.packing import Machine, Packing, Share
from tuner.runner import joined
from tuner.runner.heartbeat import _is_raylet
from tuner.runner.joined import Joined
from tuner.runner.placing import Node, Placer
from tuner.runner.sharing import packing_of
from tuner.spec.trial_config import Resources

CARDS = Packing(Machine(8, 2**36, 1, "A", 2**35), 4, Share(1, 0.25, 1))
CORES = Packing(Machine(4, 2**34), 0, Share(1, 0, 1))
FULL = Packing(Machine(2, 2**33), 0, Share(1, 0, 1))
TWO = Packing(Machine(2, 2**34), 2, Share(1, 0, 1))


class RayError(Exception):
    """Of Ray; cause: of ours."""

    cause: Exception | None = None


class Ray:
    """What a driver sees of a cluster: its nodes, and whether a task on one of them has ended."""

    exceptions = types.SimpleNamespace(RayError=RayError)

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.silent: set[str] = set()
        self.answers: dict[tuple[str, str], Any] = {}
        self.wanted: list[dict[str, float]] = []
        self.ended = False
        self.address = "10.0.0.{}"

    def nodes(self) -> list[dict[str, Any]]:
        known = {"Alive": True, "Resources": {"CPU": 2.0}, "NodeManagerPort": 1}
        found = [{**known, "NodeID": id, "NodeManagerAddress": self.address.format(id)} for id in sorted(self.there)]
        head = {**known, "NodeID": "h", "NodeManagerAddress": "", "Resources": {"memory": 1.0}}
        return [*found, head, {**known, "NodeID": "d", "NodeManagerAddress": "", "Alive": False}]

    def wait(self, tasks: list[tuple[str, str]], timeout: float) -> tuple[list[Any], list[Any]]:
        return [task for task in tasks if task in self.answers], []

    def get(self, task: tuple[str, str], timeout: float = 0.0) -> Any:
        if isinstance(answer := self.answers[task], Exception):
            raise answer
        return answer

    def shutdown(self) -> None:
        self.ended = True

    def answer(self, id: str) -> None:
        """A node does what it is asked for."""
        machine = {"cores": 2, "memory": 2**34}
        self.answers[id, "describe"] = {"host": id, "machine": machine, "versions": joined_versions()}
        self.answers[id, "check"] = {"problem": "", "about": ""}


def joined_versions() -> dict[str, str]:
    from tuner.runner.about import versions

    return versions()


class Cluster(Joined):
    """A cluster of such nodes."""

    def _on(self, id: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return id, function.__name__

    def _answers(self, id: str) -> bool:
        return id not in self._ray.silent

    def _request(self, bundles: list[dict[str, float]]) -> None:
        self._ray.wanted = bundles


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    monkeypatch.setattr(joined, "LOOK", -1.0)
    monkeypatch.setattr(joined, "name_images", lambda *_: {})
    ray = Ray()
    for id in "12":
        ray.there.add(id)
        ray.answer(id)
    yield ray


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    """A search whose results are in a store, so that nodes need no mark."""
    fixed = types.SimpleNamespace(seed=0, resources=Resources())
    plan = types.SimpleNamespace(
        packings=(TWO,), used=TWO, trials=8, prepared=(), space=types.SimpleNamespace(fixed=fixed)
    )
    signals = types.SimpleNamespace(caught=[])
    return types.SimpleNamespace(plan=plan, path=tmp_path, store="file:///s", signals=signals, say=lambda text: None)


@pytest.fixture
def cluster(ray: Ray, stage: Any, tmp_path: Path) -> Cluster:
    """Two nodes that are ready."""
    cluster = Cluster(ray, "auto", tmp_path, tmp_path, lambda text: None)
    cluster.get_to_know()
    cluster._stage = stage
    cluster._check(stage, sorted(cluster._known))
    return cluster


def look(cluster: Cluster, placer: Placer | None = None, times: int = 3) -> Placer:
    placer = placer or Placer([])
    for _ in range(times):
        cluster.look(placer)
    return placer


def names(placer: Placer) -> set[str]:
    return {node.id for node in placer.nodes}


def test_a_job_that_dies_after_its_silent_node_was_noticed_is_moved(cluster: Cluster, ray: Ray) -> None:
    assert not cluster.gone("10.0.0.1")
    ray.silent.add("1")
    assert cluster.gone("10.0.0.1")
    look(cluster)
    assert cluster.gone("10.0.0.1")
    assert not cluster.gone("10.0.0.2")


def test_of_two_nodes_at_one_address_each_must_answer(ray: Ray, stage: Any, tmp_path: Path) -> None:
    ray.address = "10.0.0.9"
    cluster = Cluster(ray, "auto", tmp_path, tmp_path, lambda text: None)
    cluster.get_to_know()
    cluster._check(stage, ["1", "2"])
    assert not cluster.gone("10.0.0.9")
    ray.silent.add("1")
    assert cluster.gone("10.0.0.9")


def test_a_node_that_joins_is_described_checked_and_used(cluster: Cluster, ray: Ray) -> None:
    ray.there.add("3")
    assert names(look(cluster)) == {"1", "2"}
    ray.answer("3")
    assert names(look(cluster)) == {"1", "2", "3"}


def test_a_node_that_goes_after_its_answer_and_before_it_is_heard_harms_nobody(cluster: Cluster, ray: Ray) -> None:
    ray.there.add("3")
    look(cluster)
    ray.answer("3")
    ray.there.remove("3")
    assert names(look(cluster)) == {"1", "2"}


def test_a_node_that_is_silent_while_it_is_checked_is_asked_again(cluster: Cluster, ray: Ray) -> None:
    ray.there.add("3")
    ray.answer("3")
    check = ray.answers.pop(("3", "check"))
    look(cluster)
    ray.silent.add("3")
    look(cluster)
    ray.answers["3", "check"] = check
    ray.silent.clear()
    assert names(look(cluster)) == {"1", "2", "3"}


def test_a_node_that_was_silent_for_a_moment_is_used_again(cluster: Cluster, ray: Ray) -> None:
    ray.silent.add("1")
    placer = look(cluster)
    assert names(placer) == {"2"}
    ray.silent.clear()
    assert names(look(cluster, placer)) == {"1", "2"}


def test_a_node_that_cannot_do_what_it_is_asked_takes_no_trials_and_is_not_asked_again(
    cluster: Cluster, ray: Ray
) -> None:
    ray.there.add("3")
    ray.answer("3")
    ray.answers["3", "check"] = RayError("no such package")
    assert names(look(cluster)) == {"1", "2"}
    assert not cluster._asked


def test_a_node_that_goes_while_it_is_checked_is_left_out(cluster: Cluster, ray: Ray, stage: Any) -> None:
    cluster._ready.clear()
    ray.answers["1", "check"] = RayError("its node died")
    ray.silent.add("1")
    cluster._check(stage, ["1", "2"])
    assert set(cluster._ready) == {"2"}
    ray.silent.clear()
    ray.answer("1")
    assert names(look(cluster)) == {"1", "2"}


def test_what_a_node_lacks_ends_a_search_that_begins_and_leaves_out_a_node_that_joins(
    cluster: Cluster, ray: Ray, stage: Any
) -> None:
    lacks = {"problem": "there are no images", "about": "images"}
    ray.there.add("3")
    ray.answer("3")
    ray.answers["3", "check"] = ray.answers["1", "check"] = lacks
    assert names(look(cluster)) == {"1", "2"}
    with pytest.raises(BadInput, match="no images"):
        cluster._check(stage, ["1", "2"])


def test_a_node_that_has_no_room_for_a_trial_is_not_used(cluster: Cluster, ray: Ray, stage: Any) -> None:
    stage.plan.packings = (TWO, FULL)
    ray.there.add("3")
    ray.answer("3")
    ray.answers["3", "describe"]["machine"]["memory"] = FULL.machine.memory
    assert names(look(cluster)) == {"1", "2"}


def test_a_node_that_lives_and_cannot_be_checked_ends_the_search(cluster: Cluster, ray: Ray, stage: Any) -> None:
    ray.answers["1", "check"] = RayError("no such package")
    with pytest.raises(ClusterLost, match="no such package"):
        cluster._check(stage, ["1", "2"])


def test_without_a_node_that_takes_trials_a_search_does_not_begin(cluster: Cluster, ray: Ray, stage: Any) -> None:
    cluster._ready.clear()
    ray.silent.update("12")
    for id in "12":
        ray.answers[id, "check"] = RayError("its node died")
    with pytest.raises(ClusterLost, match="no node"):
        cluster._check(stage, ["1", "2"])


def test_what_a_node_refuses_is_said_in_its_own_words(cluster: Cluster, ray: Ray) -> None:
    error = RayError("long trace")
    error.cause = BadInput("cannot be trained")
    ray.answers["1", "measure"] = error
    (machine,) = cluster.machines
    with pytest.raises(BadInput, match="cannot be trained"):
        cluster.measure(machine, None)
    error.cause = None
    with pytest.raises(ClusterLost, match="long trace"):
        cluster.measure(machine, None)


def test_an_autoscaler_is_asked_for_what_trials_get_and_let_go_at_the_end(
    cluster: Cluster, ray: Ray, stage: Any
) -> None:
    stage.plan.packings, stage.plan.used = (CORES, CARDS), CARDS
    cluster.want(stage)
    assert ray.wanted == [{"CPU": 1, "GPU": 0.25}] * 8
    stage.plan.space.fixed.resources = Resources(trials_at_once=3)
    cluster.want(stage)
    assert len(ray.wanted) == 3
    cluster.want(None)
    assert ray.wanted == []


def test_a_machine_that_joins_is_shared_as_those_with_its_cards_are() -> None:
    packings = (CORES, CARDS)
    assert packing_of(packings, CARDS.machine, 9) == CARDS
    assert packing_of(packings, Machine(16, 2**34, 2, "A", 2**35), 9).at_once == 8
    assert packing_of(packings, Machine(2, 2**34, 1, "B", 2**35), 9).typical.gpu == 0.25


def test_where_trials_run_on_gpus_a_machine_without_one_takes_none() -> None:
    packings = (CORES, CARDS)
    assert packing_of(packings, CORES.machine, 9).at_once == 0
    assert packing_of(packings, Machine(2, 2**34), 9).at_once == 0


def test_of_several_raylets_on_a_host_only_its_own_counts() -> None:
    command = ["/ray/raylet", "--raylet_socket_name=/t/sockets/raylet.1"]
    assert _is_raylet(command, "/t/sockets/raylet.1")
    assert not _is_raylet(command, "/t/sockets/raylet")
    assert not _is_raylet(["tail", "/t/sockets/raylet"], "/t/sockets/raylet")


def test_a_limit_of_trials_at_once_is_that_of_the_file_as_nodes_may_join(
    cluster: Cluster, ray: Ray, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    heartbeat = types.SimpleNamespace(missing=lambda: "")
    monkeypatch.setattr(joined, "Heartbeat", lambda ray: heartbeat)
    monkeypatch.setattr(joined, "drive", lambda stage, placer, *_: given.append(placer))
    stage.plan.space.fixed.resources = Resources(trials_at_once=5)
    stage.plan.at_once = 4
    stage.signals.install = lambda: None
    stage.last = lambda error: None
    cluster.search(stage)
    assert given[0].at_once == 4
    given[0].update([Node(id, "", id, TWO) for id in "1234"])
    assert given[0].at_once == 5
    assert ray.ended and ray.wanted == []
    stage.signals.caught.append(15)
    cluster.search(stage)
    assert len(given) == 1  # ended before it began
