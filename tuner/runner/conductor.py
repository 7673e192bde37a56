"""Conductor: the search without Ray. Hands out jobs, hears every epoch, decides, and writes it all down.

Everything that a trial reports goes through `hear`, in this order: scheduler, the line on disk, the outcome. The line
carries the decision, so that what was decided can never be on one side of a crash and what was seen on the other.
What is in memory here is a fold over those lines: `replay.py` folds them again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from tuner.errors import SearchFailed
from tuner.records.status import TIME_SPENT
from tuner.records.writer import RunFolder
from tuner.runner.patience import Patience
from tuner.runner.race import Race
from tuner.runner.roster import Roster
from tuner.runner.rounds import Rounds
from tuner.runner.trial import Goal, Job, Row, Trial
from tuner.runner.until import Until, due
from tuner.runner.weights import Weights
from tuner.search.sampler import Sampler, State
from tuner.spec.objective import number
from tuner.spec.search import parse_duration
from tuner.spec.space import Space

STATES: tuple[State, ...] = ("finished", "stopped", "diverged", "failed", "out_of_memory", "interrupted")
LOST: tuple[State, ...] = ("failed", "out_of_memory")

HOPELESS = 5
"""So many trials failed and none gave an epoch: the next one would fail too."""

MOVES = 20
"""Times that a trial goes on because its node went, as nodes that are lent do; then that counts as a death."""


class Conductor:
    """Runs one search over `folder`; `trials` configurations at most, until `seconds` have passed."""

    def __init__(
        self,
        space: Space,
        sampler: Sampler,
        folder: RunFolder,
        *,
        trials: int,
        full: int,
        seconds: float | None,
        until: Until | None = None,
    ) -> None:
        search = self.search = space.fixed.search
        self.goal = Goal(search.objectives, search.rules)
        self.roster = Roster(self.goal)
        self.wanted = trials
        self.ending = ""
        """Why the search ends before all is done; empty where it does not."""
        self.enough = ""
        """Why no further trial is worth it; empty where one is, and where nobody asked."""
        self.stopping = False
        """Whether jobs end with their next epoch and no other begins."""
        self.notes: dict[str, str] = {}
        """What trials said of their training beside its numbers, each sentence once, and the first that said it."""
        self.make_room: Callable[[Trial], bool] = lambda trial: False
        """Asked when a trial ran out of memory: whether fewer share its machine from now on, so that it may go on."""
        self.sampler = sampler
        self.folder = folder
        self.weights = Weights(folder.path / "trials", search.keep_checkpoints, self.goal, folder.copy)
        self.race = Race(space, self.goal, trials=trials, full=full)
        population = self.race.population
        self.rounds = Rounds(population, space, sampler, folder, self.weights) if population else None
        self._digits = max(3, len(str(trials)))
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._until = until
        self._exhausted = False
        taken = [path.parent.name for path in (folder.path / "trials").glob("*/result.json")]
        self._numbered = max((int(name) for name in taken if name.isdigit()), default=0)
        self._patience = Patience(parse_duration(search.hang_after))

    # ------------------------------------------------------------ how it stands

    @property
    def metric(self) -> str:
        """The metric that drives the search."""
        return self.goal.first.metric

    @property
    def trials(self) -> Mapping[str, Trial]:
        """All of them by id, in the order in which they were asked for."""
        return self.roster.trials

    @property
    def searched(self) -> list[Trial]:
        """The trials of the search itself, without repeats."""
        return [trial for trial in self.trials.values() if trial.repeat_of is None]

    @property
    def running(self) -> list[Trial]:
        """Trials that a worker has, in the order of all trials."""
        return sorted(self.roster.running.values(), key=lambda trial: trial.place)

    @property
    def late(self) -> bool:
        """Whether the time budget is spent."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def over(self) -> bool:
        """Whether there will be no further job."""
        return not self.roster.running and (self.stopping or self.late or self.complete)

    @property
    def complete(self) -> bool:
        """Whether all that was asked for has been done."""
        return not (self._asking or self.roster.open or self._repeatable())

    def best(self) -> Trial | None:
        """The trial with the best epoch of all that keep to the rules; the earlier one where two are equal."""
        return self.roster.best

    def front(self) -> list[Trial]:
        """The Pareto front of several objectives."""
        return self.roster.front()

    def repeats(self) -> list[Trial]:
        """The trial that was repeated with other seeds, first, and its repeats; empty where there are none."""
        return self.roster.again

    def counts(self) -> dict[str, int]:
        """How many trials ended how."""
        return {state: self.roster.states[state] for state in STATES}

    # ------------------------------------------------------------ what to do next

    def next(self) -> Job | None:
        """The next job, written down; None when there is none now (`over`: none ever)."""
        running = self.roster.running
        if self.stopping or self.late or (len(running) == 1 and any(trial.alone for trial in running.values())):
            return None
        trial = self.roster.first() or self._ask() or self._repeat()
        if trial is None and self._start_round():
            trial = self.roster.first()
        if trial is None and not running:
            trial = self.roster.first(alone=True)  # what must run alone comes last
        if trial is None:
            return None
        self.roster.begin(trial)
        trial.jobs, trial.started = trial.jobs + 1, False
        return Job(trial, trial.jobs, self.weights.starts(trial), self.race.stop_at(trial))

    def placed(self, trial_id: str) -> None:
        """The process of a trial runs now: from here on it must give epochs. Before it did, the job had no room."""
        trial = self.trials[trial_id]
        if trial.running:
            self._patience.begins(trial)

    def go_on(self, trial: Trial) -> None:
        """Give a trial another job when its turn comes."""
        self._rest(trial)
        self.roster.line_up(trial)

    def _rest(self, trial: Trial) -> None:
        self.roster.rest(trial)
        self._patience.leaves(trial)

    def stop(self, reason: str) -> None:
        """Let every job end with its next epoch, and begin no other."""
        self.stopping, self.ending = True, self.ending or reason

    def _start_round(self) -> bool:
        """Let everybody go on when a round is decided; whether anybody does."""
        if self.rounds is None or self.roster.running:
            return False
        members = self.rounds.decide(self.trials)
        for trial in members:
            self.go_on(trial)
        return bool(members)

    @property
    def _asking(self) -> bool:
        return not self._exhausted and not self.enough and self.roster.searched < self.wanted

    def _ask(self) -> Trial | None:
        if not self._asking:
            return None
        try:
            proposal = self.sampler.ask()
        except SearchFailed as error:
            if not self.roster.epochs:
                raise
            self.ending, proposal = str(error), None  # what was found stays found
        if proposal is None:
            self._exhausted = True
            if self.race.population:
                self.race.population.size = self.roster.searched
            return None
        start = {"label": proposal.label, "to_the_end": proposal.to_the_end} if proposal.label else {}
        trial = Trial(
            self._id(), proposal.parameters, proposal.config, proposal.size, number=proposal.number,
            label=proposal.label, to_the_end=proposal.to_the_end,
        )  # fmt: skip
        refused = [dict(parameters) for parameters in proposal.refused]
        return self._begin(trial, number=proposal.number, refused=refused, **start)

    def _repeatable(self) -> Trial | None:
        """What to train with another seed: the best configuration, once a quarter of the trials have ended."""
        if len(self.roster.again or [0]) >= self.search.repeats:
            return None
        best = self.roster.finished if self.roster.done >= math.ceil(self.wanted / 4) else None
        return self.roster.again[0] if self.roster.again else best

    def _repeat(self) -> Trial | None:
        if (best := self._repeatable()) is None:
            return None
        seed = (best.config.seed + max(1, len(self.roster.again))) % 2**32
        config = best.config.model_copy(update={"seed": seed})
        trial = Trial(self._id(), best.parameters, config, best.size, to_the_end=True, repeat_of=best.id)
        return self._begin(trial, number=None, repeat_of=best.id, seed=seed)

    def _begin(self, trial: Trial, **fields: Any) -> Trial:
        self.folder.start_trial(trial.id, trial.config.model_dump(mode="json"))
        self.folder.write_event(
            "asked", trial=trial.id, parameters=dict(trial.parameters), size=trial.size.as_dict(), **fields
        )
        self.enter(trial)
        return trial

    def enter(self, trial: Trial) -> None:
        """Know a trial."""
        self.roster.enter(trial)
        self._numbered = max(self._numbered, int(trial.id) if trial.id.isdigit() else 0)
        self.race.enter(trial)

    def _id(self) -> str:
        """The next free one; the folder may hold epochs of a trial whose other lines are lost."""
        return f"{self._numbered + 1:0{self._digits}d}"

    # ------------------------------------------------------------ what trials report

    def hear(self, trial_id: str, row: Row, *, host: str, pid: int) -> bool:
        """Take in an epoch of a trial; whether its job ends with it. An epoch that was heard before changes nothing."""
        trial, epoch = self.trials[trial_id], int(row["epoch"])
        if trial.state is not None:
            return True
        if trial.running:
            self._patience.begins(trial)
        if epoch <= trial.epochs:  # trained again after a checkpoint that was older than the log
            return False
        if epoch > trial.epochs + 1:
            self.fail(trial_id, f"epoch {epoch} came after epoch {trial.epochs}: its checkpoint is from elsewhere")
            return True
        if not trial.started:
            self.folder.write_event("started", trial=trial_id, host=host, pid=pid)
            trial.started = True
        row = {**row, **trial.size.as_dict(), "params": row.get("params", trial.size.params)}
        self.roster.take(trial, row)
        self._patience.took(trial, float(row["epoch_seconds"]))
        state, reason, waits = self.race.judge(trial, row)
        if state is None and self.late:
            state, reason = "interrupted", TIME_SPENT
        self.folder.write_row(
            trial_id,
            {
                **row,
                "training_iteration": epoch,
                "time_total_s": round(trial.seconds, 6),
                "decision": "stop" if state else "continue",
                "reason": reason,
            },
        )
        if state:
            self.end(trial, state, reason)
        elif waits:
            self._rest(trial)
        elif self.stopping:
            self.go_on(trial)
        return state is not None or waits or self.stopping

    def note(self, trial_id: str, text: str) -> None:
        """Write down what a trial says of its training, if no other has said the same before it."""
        if text not in self.notes:
            self.notes[text] = trial_id
            self.folder.write_event("noted", trial=trial_id, reason=text)

    def relive(self, trial: Trial, row: Row) -> None:
        """Let all hear an epoch again that the folder has; what was decided then stands."""
        self.roster.take(trial, row)
        self._patience.took(trial, number(row.get("epoch_seconds")))
        trial.decided = self.race.judge_again(trial, row)

    def take_up(self) -> None:
        """After a replay: every unfinished trial that does not wait for its population gets a job."""
        self._weigh()
        for trial in [*self.roster.open.values()]:
            if trial.decided:  # killed between its last row and the line that ends it
                self.end(trial, *trial.decided)
            elif not self.race.waits(trial):
                self.go_on(trial)

    def fail(self, trial_id: str, text: str, state: State = "failed") -> None:
        """A trial broke: its trace goes to error.txt, its last line is the reason."""
        trial = self.trials[trial_id]
        if trial.state is not None:
            return
        self.folder.write_error(trial_id, text)
        lines = [line for line in text.strip().splitlines() if line.strip()]
        self.end(trial, state, lines[-1].strip() if lines else "no message")
        lost = sum(self.roster.states[state] for state in LOST)
        if lost >= min(HOPELESS, self.wanted) and not self.roster.epochs:
            self.stop(f"the first {lost} trials failed and none gave an epoch; the last one: {trial.reason}")

    def die(self, trial_id: str, text: str) -> None:
        """The process of a trial died: it goes on from its checkpoint, up to the limit."""
        trial = self.trials[trial_id]
        if trial.state is not None:
            return
        if trial.hung:
            self.fail(trial_id, trial.hung)
        elif trial.deaths >= self.search.retries:
            self.fail(trial_id, f"{text}\nits process died {trial.deaths + 1} times")
        else:
            trial.deaths += 1
            self._retry(trial, text)

    def move(self, trial_id: str, text: str) -> None:
        """The node of a trial is gone: it goes on from its checkpoint, and that is no death of its own."""
        trial = self.trials[trial_id]
        if trial.state is not None:
            return
        if trial.moves >= MOVES:
            self.die(trial_id, text)
            return
        trial.moves, trial.hung = trial.moves + 1, ""
        self._retry(trial, text)

    def lack_memory(self, trial_id: str, text: str) -> None:
        """A trial ran out of memory: again, with fewer beside it or none; or the end of it."""
        trial = self.trials[trial_id]
        if trial.state is None and self.make_room(trial):
            self._retry(trial, "out of memory: again, with fewer at once")
        elif trial.state is None and self.search.out_of_memory == "retry_alone" and not trial.alone:
            trial.alone = True
            self._retry(trial, "out of memory: again, alone")
        else:
            self.fail(trial_id, text, "out_of_memory")

    def _retry(self, trial: Trial, reason: str) -> None:
        line = next((line.strip() for line in reason.splitlines()[::-1] if line.strip()), "no message")
        self.folder.write_event(
            "retried", trial=trial.id, epoch=trial.epochs, deaths=trial.deaths, moves=trial.moves, alone=trial.alone,
            reason=line,
        )  # fmt: skip
        self.go_on(trial)

    def hanging(self) -> list[Trial]:
        """Trials whose process gave no epoch for so long that they must hang; their `hung` says why."""
        return self._patience.ended()

    def interrupt(self, reason: str) -> None:
        """The run ends before its running trials do."""
        for trial in [*self.roster.open.values()]:
            self.end(trial, "interrupted", reason)

    def end(self, trial: Trial, state: State, reason: str) -> None:
        """Write down how a trial ended, and let sampler, population and checkpoints know."""
        self.folder.write_event("ended", trial=trial.id, state=state, epoch=trial.epochs, reason=reason)
        self.close(trial, state, reason)
        self.weights.retain(trial, self.roster.settled_front())
        if state != "interrupted" and due(len(self.roster.ended)):
            self._weigh()

    def _weigh(self) -> None:
        """See whether further trials are worth it; once they are not, none is asked for."""
        if self._until and self._asking:
            ended = [t for t in self.roster.ended if t.repeat_of is None and t.state != "interrupted"]
            self.enough = self._until.says(ended, self.roster.again)
            self.ending = self.ending or self.enough

    def close(self, trial: Trial, state: State, reason: str) -> None:
        """Know how a trial ended, and tell sampler and population."""
        self._rest(trial)
        self.roster.settle(trial, state, reason)
        if trial.repeat_of is None:
            told = trial.told(state, self.goal)
            if trial.number is not None:
                self.sampler.tell(trial.number, told)
            elif trial.fits:
                self.sampler.learn(trial.parameters, told)
            self.race.leave(trial)
        if state != "interrupted":
            trial.shrink(self.goal)
