"""Placing: on which machine a job runs, what it gets there, and what happens when machines come, go or run full."""

from __future__ import annotations

from tuner.packing.packing import Machine, Packing, Share
from tuner.runner.placing import Node, Placer
from tuner.runner.trial import Trial
from tuner.search.preflight import Size
from tuner.spec.trial_config import TrialConfig

CONFIG = TrialConfig.model_validate({"data": {"dataset": "digits"}})


def trial(name: str, memory_mb: float = 10.0) -> Trial:
    return Trial(name, {}, CONFIG, Size(1, 1, memory_mb, 1.0))


def cpu_node(name: str, at_once: int = 2) -> Node:
    packing = Packing(Machine(at_once, 2**34), at_once, Share(1, 0, 1))
    return Node(name, f"10.0.0.{name}", name, packing)


def gpu_node(name: str = "g", at_once: int = 4) -> Node:
    share = Share(1, 1 / at_once, 1, 2**33)
    packing = Packing(Machine(8, 2**36, 1, "A", 2**35), at_once, share, memory_mb=100.0, measured=((1, 1.0), (4, 3.0)))
    return Node(name, "10.0.0.9", name, packing)


def test_jobs_go_where_most_is_free_until_all_is_taken() -> None:
    placer = Placer([cpu_node("1", 1), cpu_node("2", 2)])
    places = [placer.place(f"{n}-1", trial(str(n))).node.id for n in range(3)]
    assert sorted(places) == ["1", "2", "2"]
    assert places[0] == "2"
    assert not placer.room


def test_a_place_that_is_given_back_is_free() -> None:
    placer = Placer([cpu_node("1", 1)])
    placer.place("a-1", trial("a"))
    assert not placer.room
    placer.give_back("a-1")
    assert placer.room


def test_no_more_run_at_once_than_asked_for() -> None:
    placer = Placer([cpu_node("1"), cpu_node("2")], most=1)
    placer.place("a-1", trial("a"))
    assert (placer.at_once, placer.room) == (1, False)


def test_a_machine_without_room_for_a_trial_is_never_chosen() -> None:
    placer = Placer([cpu_node("1", 0), cpu_node("2", 1)])
    assert placer.place("a-1", trial("a")).node.id == "2"
    assert not placer.room


def test_a_large_configuration_takes_a_larger_share_and_leaves_less_room() -> None:
    placer = Placer([gpu_node()])
    assert placer.place("a-1", trial("a", 300.0)).share.gpu == 0.75
    assert placer.room
    placer.place("b-1", trial("b"))
    assert not placer.room  # 0.75 + 0.25, although four typical ones would fit


def test_a_configuration_goes_where_it_fits_and_not_where_more_small_ones_would() -> None:
    placer = Placer([gpu_node("g", 4), gpu_node("h", 2)])
    placer.place("a-1", trial("a", 300.0))
    assert placer.place("b-1", trial("b", 150.0)).node.id == "h"


def test_running_out_of_memory_lowers_the_sharing_of_all_machines_of_that_kind() -> None:
    placer, told = Placer([gpu_node("g"), gpu_node("h")]), []
    placer.lowered = lambda before, after, name: told.append((before.at_once, after.at_once, name))
    first, second = trial("a"), trial("b")
    placer.place("a-1", first)
    placer.place("b-1", second)
    assert placer.lower(first)
    assert {node.packing.at_once for node in placer.nodes} == {2}
    assert placer.lower(second)  # it was placed before: what was lowered for the other may be enough for it
    assert told == [(4, 2, "a")]
    placer.give_back("a-1")
    placer.place("a-2", first)
    assert placer.lower(first)
    placer.give_back("a-2")
    placer.place("a-3", first)
    assert not placer.lower(first)  # one at a time: fewer there are not


def test_jobs_whose_machine_is_gone_are_named_and_others_stay() -> None:
    placer = Placer([cpu_node("1", 1), cpu_node("2", 1)])
    places = {placer.place(f"{name}-1", trial(name)).node.id: f"{name}-1" for name in "ab"}
    assert placer.update([cpu_node("2", 1)]) == [places["1"]]
    assert placer.at_once == 1


def test_a_machine_that_joins_is_used() -> None:
    placer = Placer([cpu_node("1", 1)])
    placer.place("a-1", trial("a"))
    assert placer.update([cpu_node("1", 1), cpu_node("2", 1)]) == []
    assert placer.place("b-1", trial("b")).node.id == "2"


def test_what_was_lowered_stays_so_when_machines_come() -> None:
    placer = Placer([gpu_node()])
    first = trial("a")
    placer.place("a-1", first)
    placer.lower(first)
    placer.update([gpu_node(), cpu_node("1")])
    assert {node.id: node.packing.at_once for node in placer.nodes} == {"g": 2, "1": 2}


def test_a_machine_that_does_not_answer_takes_no_job_until_it_is_seen_again() -> None:
    placer = Placer([cpu_node("1"), cpu_node("2")])
    placer.leave_out("10.0.0.1")
    assert {placer.place(f"{n}-1", trial(str(n))).node.id for n in range(2)} == {"2"}
    placer.update([cpu_node("1"), cpu_node("2")])
    assert placer.place("9-1", trial("9")).node.id == "1"
