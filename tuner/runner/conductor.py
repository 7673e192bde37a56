"""Conductor: the search without Ray. Hands out jobs, hears every epoch, decides, and writes it all down.

Everything that a trial reports goes through `hear`, in this order: scheduler, the line on disk, the outcome. The line
carries the decision, so that what was decided can never be on one side of a crash and what was seen on the other.
What is in memory here is a fold over those lines: `replay.py` folds them again.
"""

from __future__ import annotations

import math
import time
from typing import Any

from tuner.errors import SearchFailed
from tuner.records.status import TIME_SPENT
from tuner.records.writer import RunFolder
from tuner.runner.patience import Patience
from tuner.runner.rounds import Rounds
from tuner.runner.trial import Goal, Job, Row, Trial, front
from tuner.runner.until import Until
from tuner.runner.weights import Weights
from tuner.search.population import Population
from tuner.search.sampler import Sampler, State
from tuner.search.schedulers import make_scheduler
from tuner.spec.objective import number
from tuner.spec.search import Pbt, parse_duration
from tuner.spec.space import Space

STATES: tuple[State, ...] = ("finished", "stopped", "diverged", "failed", "out_of_memory", "interrupted")
LOST: tuple[State, ...] = ("failed", "out_of_memory")

HOPELESS = 5
"""So many trials failed and none gave an epoch: the next one would fail too."""


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
        self.trials: dict[str, Trial] = {}
        self.wanted = trials
        self.full = full
        self.ending = ""
        """Why the search ends before all is done; empty where it does not."""
        self.enough = ""
        """Why no further trial is worth it; empty where one is, and where nobody asked."""
        self.stopping = False
        """Whether jobs end with their next epoch and no other begins."""
        self.notes: dict[str, str] = {}
        """What trials said of their training beside its numbers, each sentence once, and the first that said it."""
        self.sampler = sampler
        self.folder = folder
        self.weights = Weights(folder.path / "trials", search.keep_checkpoints, self.goal)
        self.scheduler = make_scheduler(search.scheduler, full=full, seed=space.fixed.seed)
        self.population = (
            Population(space, search.scheduler, size=trials, full=full, seed=space.fixed.seed)
            if isinstance(search.scheduler, Pbt)
            else None
        )
        self.rounds = (
            Rounds(self.population, space, sampler, folder, self.weights) if self.population is not None else None
        )
        self._digits = max(3, len(str(trials)))
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._until = until
        self._ended: list[Trial] = []
        self._exhausted = False
        self._queue: list[Trial] = []
        self._taken = {path.parent.name for path in (folder.path / "trials").glob("*/result.json")}
        self._patience = Patience(parse_duration(search.hang_after))

    # ------------------------------------------------------------ how it stands

    @property
    def metric(self) -> str:
        """The metric that drives the search."""
        return self.goal.first.metric

    @property
    def searched(self) -> list[Trial]:
        """The trials of the search itself, without repeats."""
        return [trial for trial in self.trials.values() if trial.repeat_of is None]

    @property
    def running(self) -> list[Trial]:
        """Trials that a worker has."""
        return [trial for trial in self.trials.values() if trial.running]

    @property
    def late(self) -> bool:
        """Whether the time budget is spent."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def over(self) -> bool:
        """Whether there will be no further job."""
        if self.running:
            return False
        return self.stopping or self.late or self.complete

    @property
    def complete(self) -> bool:
        """Whether all that was asked for has been done."""
        unfinished = any(trial.state is None for trial in self.trials.values())
        return not (self._asking or unfinished or self._repeatable())

    def best(self) -> Trial | None:
        """The trial with the best epoch of all that keep to the rules; the earlier one where two are equal."""
        seen = [trial for trial in self.searched if trial.best]
        return max(seen, key=lambda trial: self.goal.first.score(trial.best), default=None)

    def front(self) -> list[Trial]:
        """The Pareto front of several objectives."""
        return front(self.searched, self.goal)

    def repeats(self) -> list[Trial]:
        """The trial that was repeated with other seeds, first, and its repeats; empty where there are none."""
        again = [trial for trial in self.trials.values() if trial.repeat_of is not None]
        return [self.trials[again[0].repeat_of], *again] if again and again[0].repeat_of else []

    def counts(self) -> dict[str, int]:
        """How many trials ended how."""
        return {state: sum(trial.state == state for trial in self.trials.values()) for state in STATES}

    # ------------------------------------------------------------ what to do next

    def next(self) -> Job | None:
        """The next job, written down; None when there is none now (`over`: none ever)."""
        if self.stopping or self.late or any(trial.alone for trial in self.running):
            return None
        trial = self._queued(alone=False) or self._ask() or self._repeat()
        if trial is None and self._start_round():
            trial = self._queued(alone=False)
        if trial is None and not self.running:
            trial = self._queued(alone=True)  # what must run alone comes last
        if trial is None:
            return None
        if trial in self._queue:
            self._queue.remove(trial)
        trial.jobs, trial.running, trial.started, trial.heard = trial.jobs + 1, True, False, time.monotonic()
        return Job(trial, trial.jobs, self.weights.starts(trial), self._stop_at(trial))

    def go_on(self, trial: Trial) -> None:
        """Give a trial another job when its turn comes."""
        trial.running = False
        if trial not in self._queue:
            self._queue.append(trial)

    def stop(self, reason: str) -> None:
        """Let every job end with its next epoch, and begin no other."""
        self.stopping, self.ending = True, self.ending or reason

    def _queued(self, *, alone: bool) -> Trial | None:
        return next((trial for trial in self._queue if trial.alone == alone), None)

    @property
    def _asking(self) -> bool:
        return not self._exhausted and not self.enough and len(self.searched) < self.wanted

    def _ask(self) -> Trial | None:
        if not self._asking:
            return None
        try:
            proposal = self.sampler.ask()
        except SearchFailed as error:
            if not any(trial.epochs for trial in self.trials.values()):
                raise
            self.ending, proposal = str(error), None  # what was found stays found
        if proposal is None:
            self._exhausted = True
            if self.population:
                self.population.size = len(self.searched)
            return None
        start = {"label": proposal.label, "to_the_end": proposal.to_the_end} if proposal.label else {}
        return self._begin(
            Trial(
                self._id(),
                proposal.parameters,
                proposal.config,
                proposal.size,
                number=proposal.number,
                label=proposal.label,
                to_the_end=proposal.to_the_end,
            ),
            number=proposal.number,
            refused=[dict(parameters) for parameters in proposal.refused],
            **start,
        )

    def _repeatable(self) -> Trial | None:
        """What to train with another seed: the best configuration, once a quarter of the trials have ended."""
        again = self.repeats()
        if len(again or [0]) >= self.search.repeats:
            return None
        done = sum(trial.state is not None for trial in self.searched)
        return again[0] if again else self._best_finished() if done >= math.ceil(self.wanted / 4) else None

    def _repeat(self) -> Trial | None:
        if (best := self._repeatable()) is None:
            return None
        seed = (best.config.seed + max(1, len(self.repeats()))) % 2**32
        config = best.config.model_copy(update={"seed": seed})
        trial = Trial(self._id(), best.parameters, config, best.size, to_the_end=True, repeat_of=best.id)
        return self._begin(trial, number=None, repeat_of=best.id, seed=seed)

    def _best_finished(self) -> Trial | None:
        done = [trial for trial in self.searched if trial.state == "finished" and trial.best]
        return max(done, key=lambda trial: self.goal.first.score(trial.best), default=None)

    def _begin(self, trial: Trial, **fields: Any) -> Trial:
        self.folder.start_trial(trial.id, trial.config.model_dump(mode="json"))
        self.folder.write_event(
            "asked", trial=trial.id, parameters=dict(trial.parameters), size=trial.size.as_dict(), **fields
        )
        self.enter(trial)
        return trial

    def enter(self, trial: Trial) -> None:
        """Know a trial."""
        self.trials[trial.id] = trial
        if self.population and self._races(trial):
            self.population.join(trial.id, trial.parameters)

    def _races(self, trial: Trial) -> bool:
        """Whether it is compared with others at the same epochs: no repeat, and no other length of training."""
        return trial.repeat_of is None and trial.full == self.full

    def _id(self) -> str:
        """The next free one; the folder may hold epochs of a trial whose other lines are lost."""
        numbers = [int(name) for name in {*self.trials, *self._taken} if name.isdigit()]
        return f"{max(numbers, default=0) + 1:0{self._digits}d}"

    # ------------------------------------------------------------ what trials report

    def hear(self, trial_id: str, row: Row, *, host: str, pid: int) -> bool:
        """Take in an epoch of a trial; whether its job ends with it. An epoch that was heard before changes nothing."""
        trial, epoch = self.trials[trial_id], int(row["epoch"])
        trial.heard = time.monotonic()
        if trial.state is not None:
            return True
        if epoch <= trial.epochs:  # trained again after a checkpoint that was older than the log
            return False
        if epoch > trial.epochs + 1:
            self.fail(trial_id, f"epoch {epoch} came after epoch {trial.epochs}: its checkpoint is from elsewhere")
            return True
        if not trial.started:
            self.folder.write_event("started", trial=trial_id, host=host, pid=pid)
            trial.started = True
        row = {**row, **trial.size.as_dict(), "params": row.get("params", trial.size.params)}
        trial.take(row, self.goal)
        self._patience.took(float(row["epoch_seconds"]))
        state, reason, waits = self.judge(trial, row)
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
            trial.running = False
        elif self.stopping:
            self.go_on(trial)
        return state is not None or waits or self.stopping

    def note(self, trial_id: str, text: str) -> None:
        """Write down what a trial says of its training, if no other has said the same before it."""
        if text not in self.notes:
            self.notes[text] = trial_id
            self.folder.write_event("noted", trial=trial_id, reason=text)

    def judge(self, trial: Trial, row: Row) -> tuple[State | None, str, bool]:
        """The outcome of a trial with this row, the reason, and whether it waits for its population."""
        score, broken = self.goal.first.score(row), self.goal.broken(row)
        stop, why = False, ""
        if self._races(trial):
            verdict = self.scheduler.judge(trial.id, trial.epochs, -math.inf if broken else score)
            stop, why = verdict.stop and not trial.to_the_end, verdict.reason
        if broken:
            return "diverged", f"{broken} is not a number", False
        if trial.epochs >= trial.full:
            return "finished", "all epochs done", False
        if row.get("ends"):
            return "finished", str(row["ends"]), False
        if stop:
            return "stopped", why, False
        if self.population is None or not self._races(trial):
            return None, "", False
        return None, "", self.population.enter(trial.id, trial.epochs, score)

    def relive(self, trial: Trial, row: Row) -> None:
        """Let scheduler and population hear an epoch again that the folder has; what was decided then stands."""
        if self.population and trial.id in self.population.waiting:
            self.population.release()  # it went on, so the round was over
        self._patience.took(number(row.get("epoch_seconds")))
        state, reason, _ = self.judge(trial, row)
        trial.decided = (state, reason) if state and row.get("decision") == "stop" else None

    def take_up(self) -> None:
        """After a replay: every unfinished trial that does not wait for its population gets a job."""
        self._weigh()
        for trial in self.trials.values():
            if trial.state is None and trial.decided:  # killed between its last row and the line that ends it
                self.end(trial, *trial.decided)
            waiting = self.population is not None and trial.id in self.population.waiting
            if trial.state is None and not waiting:
                self.go_on(trial)

    def fail(self, trial_id: str, text: str, state: State = "failed") -> None:
        """A trial broke: its trace goes to error.txt, its last line is the reason."""
        trial = self.trials[trial_id]
        if trial.state is not None:
            return
        self.folder.write_error(trial_id, text)
        lines = [line for line in text.strip().splitlines() if line.strip()]
        self.end(trial, state, lines[-1].strip() if lines else "no message")
        lost = [t for t in self.trials.values() if t.state in LOST]
        if len(lost) >= min(HOPELESS, self.wanted) and not any(t.epochs for t in self.trials.values()):
            self.stop(f"the first {len(lost)} trials failed and none gave an epoch; the last one: {trial.reason}")

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

    def lack_memory(self, trial_id: str, text: str) -> None:
        """A trial ran out of memory: the end of it, or once more with nothing beside it."""
        trial = self.trials[trial_id]
        if trial.state is None and self.search.out_of_memory == "retry_alone" and not trial.alone:
            trial.alone = True
            self._retry(trial, "out of memory: again, alone")
        else:
            self.fail(trial_id, text, "out_of_memory")

    def _retry(self, trial: Trial, reason: str) -> None:
        line = next((line.strip() for line in reason.splitlines()[::-1] if line.strip()), "no message")
        self.folder.write_event(
            "retried", trial=trial.id, epoch=trial.epochs, deaths=trial.deaths, alone=trial.alone, reason=line
        )
        self.go_on(trial)

    def hanging(self) -> list[Trial]:
        """Trials that gave no epoch for so long that they must hang; their `hung` says why."""
        return self._patience.ended(self.running, [trial for trial in self.trials.values() if trial.epochs])

    def interrupt(self, reason: str) -> None:
        """The run ends before its running trials do."""
        for trial in self.trials.values():
            if trial.state is None:
                self.end(trial, "interrupted", reason)

    def end(self, trial: Trial, state: State, reason: str) -> None:
        """Write down how a trial ended, and let sampler, population and checkpoints know."""
        trial.state, trial.reason, trial.running = state, reason, False
        self.folder.write_event("ended", trial=trial.id, state=state, epoch=trial.epochs, reason=reason)
        self.close(trial)
        self.weights.retain(trial, self.front() if len(self.goal.objectives) > 1 else [])
        if state != "interrupted":
            self._weigh()

    def _weigh(self) -> None:
        """See whether further trials are worth it; once they are not, none is asked for."""
        if self._until and self._asking:
            self.enough = self._until.says(self._ended, self.repeats())
            self.ending = self.ending or self.enough

    def close(self, trial: Trial) -> None:
        """Tell sampler and population how a trial ended."""
        if trial.repeat_of is not None or trial.state is None:
            return
        if trial.state != "interrupted":
            self._ended.append(trial)
        if trial.number is not None:
            self.sampler.tell(trial.number, trial.told(trial.state, self.goal))
        elif trial.fits:
            self.sampler.learn(trial.parameters, trial.told(trial.state, self.goal))
        if self.population:
            self.population.leave(trial.id)

    # ------------------------------------------------------------ a population's rounds

    def _stop_at(self, trial: Trial) -> int | None:
        if not isinstance(self.search.scheduler, Pbt) or not self._races(trial):
            return None
        every = self.search.scheduler.every
        return min(trial.full, (trial.epochs // every + 1) * every)

    def _start_round(self) -> bool:
        """Let everybody go on when a round is decided; whether anybody does."""
        if self.rounds is None or self.running:
            return False
        for trial in self.rounds.decide(self.trials):
            self.go_on(trial)
        return bool(self._queue)
