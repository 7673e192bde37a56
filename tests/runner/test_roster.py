"""What is kept about all trials while they change is what a walk over all of them would find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.runner.roster import Roster
from tuner.runner.trial import Goal, Trial, beats
from tuner.search.preflight import Size
from tuner.search.sampler import State
from tuner.spec.data import Data
from tuner.spec.objective import Constraint, Objective
from tuner.spec.trial_config import TrialConfig

ACCURACY, LATENCY = Objective("val_accuracy", "max"), Objective("latency_ms", "min")
RULE = Constraint("val_ece", "<=", 0.5)
CONFIG = TrialConfig(data=Data(dataset="digits"))
STATES: tuple[State, ...] = ("finished", "stopped", "diverged", "failed", "interrupted")

rows = st.fixed_dictionaries(
    {
        "val_accuracy": st.sampled_from([0.1, 0.5, 0.5, 0.9, float("nan")]),
        "latency_ms": st.sampled_from([1.0, 2.0, 3.0]),
        "val_ece": st.sampled_from([0.1, 0.9]),
        "train_loss": st.just(1.0),
        "val_loss": st.just(1.0),
        "epoch_seconds": st.just(0.5),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.booleans()),
        st.tuples(st.just("take"), rows),
        st.tuples(st.sampled_from(["line_up", "begin", "rest"]), st.none()),
        st.tuples(st.just("settle"), st.sampled_from(STATES)),
    ),
    max_size=40,
)


def better(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    return max((t for t in trials if t.best), key=lambda t: goal.first.score(t.best), default=None)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans(), st.randoms(use_true_random=False))
def test_every_number_is_that_of_a_walk_over_all_trials(
    steps: list[tuple[str, Any]], several: bool, chance: Any
) -> None:
    goal = Goal((ACCURACY, LATENCY) if several else (ACCURACY,), (RULE,))
    roster = Roster(goal)
    order: list[Trial] = []
    for what, more in steps:
        trials = list(roster.trials.values())
        if what == "enter":
            origin = chance.choice(order).id if more and order and not roster.again else None
            origin = roster.again[0].id if more and roster.again else origin
            roster.enter(Trial(f"{len(trials):03d}", {}, CONFIG, Size(1, 1), repeat_of=origin))
        elif living := [trial for trial in trials if trial.state is None]:
            trial = chance.choice(living)
            if what == "take":
                roster.take(trial, {**more, "epoch": trial.epochs + 1})
            elif what == "settle":
                roster.settle(trial, more, "why")
                order.append(trial)
            else:
                getattr(roster, what)(trial)
        trials = list(roster.trials.values())
        searched = [trial for trial in trials if trial.repeat_of is None]
        assert (roster.searched, roster.epochs) == (len(searched), sum(trial.epochs for trial in trials))
        assert roster.done == sum(trial.state is not None for trial in searched)
        assert roster.ended == order
        assert [*roster.open.values()] == [trial for trial in trials if trial.state is None]
        assert {*roster.running} == {trial.id for trial in trials if trial.running}
        assert all(roster.states[s] == sum(trial.state == s for trial in trials) for s in (None, *STATES))
        assert roster.best is better(searched, goal)
        assert roster.finished is better([trial for trial in searched if trial.state == "finished"], goal)
        scored = [(trial, goal.scores(trial.best)) for trial in searched if trial.best]
        front = [trial for trial, mine in scored if not any(beats(other, mine) for _, other in scored)]
        assert roster.front() == front
        if several:
            ended = [(trial, scores) for trial, scores in scored if trial.state]
            kept = {trial.id for trial, mine in ended if not any(beats(other, mine) for _, other in ended)}
            assert {trial.id for trial in roster.settled_front()} == kept


def test_who_waits_has_its_turn_in_order_and_who_must_run_alone_waits_apart() -> None:
    roster = Roster(Goal((ACCURACY,)))
    first, alone, last = (Trial(name, {}, CONFIG, Size(1, 1)) for name in "abc")
    alone.alone = True
    for trial in (first, alone, last):
        roster.enter(trial)
        roster.line_up(trial)
    assert [roster.first(), roster.first(alone=True)] == [first, alone]
    roster.begin(first)
    assert roster.first() is last
    roster.settle(last, "failed", "no")
    assert roster.first() is None


def test_an_ended_trial_shrinks_to_what_is_still_asked_of_it_and_keeps_its_configuration() -> None:
    goal = Goal((ACCURACY, LATENCY))
    trial = Trial("1", {"model.depth": 2}, CONFIG, Size(1, 1))
    wide = {"val_accuracy": 0.5, "latency_ms": 2.0, "train_loss": 1.0, "val_loss": 1.0, "params": 7, "more": [0.0] * 9}
    trial.take({"epoch": 1, **wide}, goal)
    trial.shrink(goal)
    assert trial.best == trial.top == {"epoch": 1, "params": 7, "val_accuracy": 0.5, "latency_ms": 2.0}
    assert (trial.config, trial.best_config, trial.full) == (CONFIG, CONFIG, CONFIG.train.epochs)
    assert isinstance(trial._config, bytes)
