"""The fields of `search`: what is improved, which sampler and scheduler, and what happens when a trial fails."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from tuner.spec.objective import (
    METRICS,
    MODES,
    AnyMetric,
    Constraint,
    Metric,
    Mode,
    Objective,
    check_metrics,
    parse_constraint,
)
from tuner.spec.section import Count, Items, Section


class Auto(Section):
    """Chooses a sampler by the space and the budget, and says why."""

    name: Literal["auto"] = "auto"


class RandomSampler(Section):
    """Independent draws from the space."""

    name: Literal["random"] = "random"


class Grid(Section):
    """Every combination once, in the order written; continuous ranges need a step."""

    name: Literal["grid"] = "grid"


class Qmc(Section):
    """Quasi-random points that fill the space more evenly than chance (Bergstra and Bengio, 2012)."""

    name: Literal["qmc"] = "qmc"
    sequence: Literal["sobol", "halton"] = Field("sobol", description="which sequence")


class Tpe(Section):
    """Tree-structured Parzen estimator, multivariate and grouped (Bergstra et al., 2011; Falkner et al., 2018)."""

    name: Literal["tpe"] = "tpe"
    startup_trials: Count = Field(10, description="random trials before the model takes over")
    candidates: Count = Field(24, description="points weighed against each other for each suggestion")


class Gp(Section):
    """Gaussian process with log expected improvement: for few, expensive trials."""

    name: Literal["gp"] = "gp"
    startup_trials: Count = Field(10, description="random trials before the model takes over")


class CmaEs(Section):
    """Covariance matrix adaptation (Hansen, 2016) over the numbers that always exist; learns from finished ones."""

    name: Literal["cmaes"] = "cmaes"
    startup_trials: Count = Field(1, description="random trials before the model takes over")
    population: Annotated[int, Field(ge=4)] | None = Field(
        None, description="trials a generation; default: 4 + 3 ln(number of settings)"
    )


class Nsga2(Section):
    """Genetic search for several objectives (Deb et al., 2002)."""

    name: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=2)] = Field(20, description="trials a generation")
    crossover: float = Field(0.9, ge=0, le=1, description="probability that a child has two parents")


AnySampler = RandomSampler | Grid | Qmc | Tpe | Gp | CmaEs | Nsga2
"""A sampler that can be asked: `auto` has been resolved."""


class NoScheduler(Section):
    """Every trial trains to the end."""

    name: Literal["none"] = "none"


class Asha(Section):
    """Asynchronous successive halving, stopping form (Li et al., 2020)."""

    name: Literal["asha"] = "asha"
    grace: Count = Field(1, description="epochs before a trial may be stopped; the first rung")
    factor: Annotated[int, Field(ge=2)] = Field(3, description="one of so many goes on at each rung")
    brackets: Count = Field(1, description="groups of trials, each with a grace `factor` times that of the one before")


class Hyperband(Section):
    """Asynchronous Hyperband (Li et al., 2018, 2020): as many brackets as fit, trials spread as Hyperband does."""

    name: Literal["hyperband"] = "hyperband"
    grace: Count = Field(1, description="epochs before a trial of the most eager bracket may be stopped")
    factor: Annotated[int, Field(ge=2)] = Field(3, description="one of so many goes on at each rung")


class Median(Section):
    """Median stopping rule (Golovin et al., 2017): stops a trial whose best so far is below the median of averages."""

    name: Literal["median"] = "median"
    grace: Count = Field(1, description="epochs before a trial may be stopped")
    least: Annotated[int, Field(ge=2)] = Field(3, description="other trials that must have reached the epoch")


class Pbt(Section):
    """Population-based training (Jaderberg et al., 2017): the worst go on from the best ones' weights, changed.

    The population is all trials of the search; every `every` epochs they wait for each other.
    """

    name: Literal["pbt"] = "pbt"
    every: Count = Field(4, description="epochs between two comparisons")
    mutate: Annotated[tuple[str, ...], Items] | None = Field(
        None, description="searched fields that change; default: all that may change in mid-run"
    )
    share: float = Field(0.25, gt=0, le=0.5, description="share of the worst that is replaced, and of the best copied")
    resample: float = Field(0.25, ge=0, le=1, description="probability that a field is drawn anew, else moved a little")


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of a duration like `90s`, `30m` or `2h`.

    Raises:
        ValueError: the text is no such duration, or it is zero.
    """
    match = _DURATION.fullmatch(text)
    if not match or not float(match[1]):
        raise ValueError(f"no duration: {text!r}; write 90s, 30m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def _readable(rule: str) -> str:
    parse_constraint(rule)
    return rule


Rule = Annotated[str, AfterValidator(_readable)]


class Search(Section):
    """How configurations are chosen and stopped, and what happens when one fails."""

    trials: Count = Field(20, description="number of trials")
    time: str | None = Field(None, description="time budget, like 90s, 30m or 2h; running epochs are ended")
    metric: Metric | dict[AnyMetric, Mode] = Field(
        "val_accuracy", description="what the search improves, or several with max or min; the first stops trials"
    )
    constraints: Annotated[tuple[Rule, ...], Items] = Field(
        (), description="rules like params <= 200000 or latency_ms <= 5 that a configuration must keep"
    )
    sampler: Auto | RandomSampler | Grid | Qmc | Tpe | Gp | CmaEs | Nsga2 = Field(
        default_factory=Auto, discriminator="name", description="which configuration next"
    )
    scheduler: NoScheduler | Asha | Hyperband | Median | Pbt = Field(
        default_factory=Asha, discriminator="name", description="which trial to stop early"
    )
    until: Literal["worth"] | None = Field(
        None, description="worth: begin no trial when the next ones should gain less than the noise; trials is the most"
    )
    start_from: Annotated[tuple[dict[str, Any], ...], Items] = Field(
        (), description="configurations to try first: names or paths with values, plus label and to_the_end"
    )
    repeats: Count = Field(1, description="seeds that the best early configuration is trained with, to know the noise")
    retries: Annotated[int, Field(ge=0)] = Field(2, description="times that a trial goes on after its process died")
    out_of_memory: Literal["fail", "retry_alone"] = Field(
        "fail", description="what becomes of a trial that ran out of memory; retry_alone: once, with nothing beside it"
    )
    hang_after: str = Field("5m", description="a trial without an epoch for so long, and for ten usual ones, is ended")
    max_failed: float = Field(0.2, ge=0, le=1, description="share of failed trials above which the run exits with 1")
    keep_checkpoints: Count | None = Field(
        3, description="best trials whose weights are kept; null: those of every trial"
    )

    @field_validator("time", "hang_after")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            parse_duration(value)
        return value

    @field_validator("metric", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        check_metrics(list(value) if isinstance(value, dict) else [value])
        return value

    @field_validator("metric")
    @classmethod
    def _in_their_direction(cls, value: str | dict[str, Mode]) -> str | dict[str, Mode]:
        for metric, mode in value.items() if isinstance(value, dict) else ():
            if mode != MODES[metric]:
                raise ValueError(f"{metric}: better is {MODES[metric]}, got {mode}")
        return value

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is improved, the one that drives the scheduler first."""
        modes = self.metric if isinstance(self.metric, dict) else {self.metric: METRICS[self.metric]}
        return tuple(Objective(metric, mode) for metric, mode in modes.items())

    @property
    def rules(self) -> tuple[Constraint, ...]:
        """The constraints."""
        return tuple(parse_constraint(text) for text in self.constraints)

    @property
    def seconds(self) -> float | None:
        """The time budget in seconds."""
        return None if self.time is None else parse_duration(self.time)
