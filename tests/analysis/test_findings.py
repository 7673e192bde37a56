"""Effects, pairs and findings: right on searches whose truth is known, silent on those that have none."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from scipy import stats

from analysis import effects as tested
from analysis import facts, fidelity
from analysis.effects import ALARM, effects, groups, holm, independence
from analysis.findings import findings
from analysis.folders.parameters import Parameter
from analysis.interactions import interactions
from analysis.page.findings_json import findings_json
from analysis.results import Results
from analysis.settings import settings

pytestmark = pytest.mark.slow


def _load(name: str) -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


truths = _load("truths")
search: Callable[..., Results] = truths.search
TRUTHS: dict[str, Any] = truths.TRUTHS


def found(name: str, count: int, seed: int = 0) -> Any:
    return findings(search(TRUTHS[name][0], count, seed))


# ---------------------------------------------------------------- tests of one setting


def test_without_ties_the_p_of_groups_is_that_of_kruskal_and_wallis() -> None:
    run = search(TRUTHS["optimizer"][0], 60, 3, noise=0.2)
    setting = next(s for s in settings(run) if s.name == "optimizer")
    score, inside = fidelity.standing(run).to_numpy(dtype=float), setting.used()
    cut = groups(setting, inside)
    p, name = independence(score, setting, cut, inside)
    assert p == pytest.approx(stats.kruskal(*(score[mask] for mask in cut)).pvalue, abs=0.015)
    assert "19,999 permutations" in name


def test_few_trials_are_counted_exactly_and_many_by_formula() -> None:
    few = search(TRUTHS["nothing"][0], 30, 0)
    assert all("permutations" in e.test and e.p >= 1 / 20_000 for e in effects(few))
    many = search(TRUTHS["nothing"][0], 1_200, 0)
    assert all("by formula" in e.test for e in effects(many))


def test_p_is_even_where_nothing_matters() -> None:
    ps = np.array([e.p for seed in range(12) for e in effects(search(TRUTHS["nothing"][0], 30, seed))])
    assert stats.kstest(ps, "uniform").pvalue > 0.001


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@tries(deadline=None)
def test_holm_never_lowers_a_p_keeps_their_order_and_the_smallest_counts_for_all(ps: list[float]) -> None:
    made = holm(ps)
    assert all(a >= b for a, b in zip(made, ps, strict=True)) and max(made) <= 1
    assert [made[n] for n in np.argsort(ps, kind="stable")] == sorted(made)
    assert made[int(np.argmin(ps))] == min(1.0, len(ps) * min(ps))


def test_the_share_of_a_setting_that_decides_all_is_large_and_of_one_that_decides_nothing_is_small() -> None:
    by_name = {e.name: e for e in effects(search(TRUTHS["lr"][0], 200, 1))}
    assert by_name["lr"].share > 0.5 and by_name["lr"].low > 0.4
    assert all(e.high < 0.12 for name, e in by_name.items() if name != "lr")


def test_groups_count_every_trial_once_and_carry_their_values() -> None:
    run = search(TRUTHS["three"][0], 90, 2)
    for effect in effects(run):
        assert sum(group.trials for group in effect.groups) == effect.trials == 90
    depth = next(e for e in effects(run) if e.name == "depth")
    assert [g.value for g in depth.groups] == [1, 2, 3]
    for group in depth.groups:
        trials = run.trials[run.trials["depth"] == group.value]
        assert group.best == pytest.approx(trials["val_accuracy"].max())
        assert (group.trials, group.finished) == (len(trials), (trials["state"] == "finished").sum())


def test_superiority_is_counted_pair_by_pair_at_the_last_common_epoch() -> None:
    run = search(TRUTHS["optimizer"][0], 24, 5)
    curves = np.maximum.accumulate(fidelity.curves(run).to_numpy(dtype=float), axis=1)
    adam = (run.trials["optimizer"] == "adam").to_numpy()
    whole = (run.trials["state"] == "finished").to_numpy()
    last = np.where(whole, curves.shape[1], run.trials["epochs"]).astype(int) - 1
    wins = [
        curves[i, min(last[i], last[j])] > curves[j, min(last[i], last[j])]
        for i in np.flatnonzero(adam)
        for j in np.flatnonzero(~adam)
    ]
    assert fidelity.superiority(run, adam, ~adam) == pytest.approx(np.mean(wins))


# ---------------------------------------------------------------- findings


@pytest.mark.parametrize("seed", range(6))
def test_noise_holds_no_finding(seed: int) -> None:
    assert found("nothing", 50, seed).findings == ()


def test_one_setting_that_matters_is_found_and_no_other() -> None:
    report = found("optimizer", 60)
    assert [f.settings for f in report.findings] == [("optimizer",)]
    assert report.findings[0].text.startswith("Optimizer: adam beat sgd: of two trials the one with adam was ahead in ")
    assert report.findings[0].strength == "clear" and report.findings[0].evidence.n == 60


def test_what_was_stopped_early_is_not_said_to_have_never_got_anywhere() -> None:
    run = search(lambda c: 0.3 if c["depth"] == 1 else 0.6, 60, 0)
    stopped = findings(run)
    assert stopped.findings and not any("No trial" in f.text for f in stopped.findings)
    whole = run.trials.assign(state="finished")
    (finding,) = findings(replace(run, trials=whole)).findings
    assert finding.text.startswith("No trial with depth 1 passed ")


def test_a_learning_rate_with_an_optimum_inside_is_described_by_where_it_was_best() -> None:
    (finding,) = found("lr", 150).findings
    effect = found("lr", 150).effects[0]
    assert finding.settings == ("lr",) and effect.good is not None
    assert 5e-4 < effect.good[0] < 3.2e-3 < effect.good[1] < 2e-2
    assert effect.bound is None or effect.bound_p > ALARM


def test_two_settings_that_matter_only_together_are_found_as_a_pair() -> None:
    report = found("lr by depth", 150)
    (finding,) = [f for f in report.findings if f.kind == "interaction"]
    assert set(finding.settings) == {"lr", "depth"} and finding.evidence.p < ALARM
    assert finding.text.startswith("Which learning rate is best depends on depth: about ")
    assert not {"lr", "depth"} & {name for f in report.made_no_difference for name in f.settings}


def test_values_that_pile_up_at_the_end_of_the_range_are_said_to_be_at_the_bound() -> None:
    report = findings(search(lambda c: 0.5 + 0.1 * truths.rate(c), 100, 0))
    (finding,) = [f for f in report.findings if f.kind == "bound"]
    assert finding.settings == ("lr",) and "upper end of what was searched" in finding.text


def test_settings_are_said_to_hardly_matter_only_where_the_trials_can_tell() -> None:
    many, few = found("optimizer", 300), found("optimizer", 20)
    assert {"width", "batch_size", "depth"} <= {name for f in many.made_no_difference for name in f.settings}
    assert not {"lr", "dropout"} <= {name for f in few.made_no_difference for name in f.settings}
    assert any("20 trials do not tell" in text for text in few.not_told)


def test_where_trials_diverge_is_found() -> None:
    run = search(TRUTHS["nothing"][0], 60, 0)
    high = run.trials["lr"] > 0.03
    state = run.trials["state"].where(~high, "diverged")
    report = findings(replace(run, trials=run.trials.assign(state=state)))
    (finding,) = [f for f in report.findings if f.kind == "failure"]
    assert finding.settings == ("lr",) and "diverged or ran out of memory" in finding.text


def test_below_ten_trials_nothing_is_claimed() -> None:
    report = found("optimizer", 9)
    assert report.findings == () == report.made_no_difference
    assert report.not_told == ("9 trials can be compared: too few to tell what mattered, 10 are needed.",)


def test_every_finding_says_its_test_number_effect_and_p() -> None:
    run = search(TRUTHS["three"][0], 150, 0)
    plain = findings_json(run, findings(run))
    assert plain["findings"] and json.dumps(plain, allow_nan=False)
    for finding in plain["findings"]:
        evidence = finding["evidence"]
        assert evidence["test"] and evidence["n"] == 150 and evidence["adjusted"] <= ALARM
        assert 0 < evidence["effect"] <= 1 and finding["text"].endswith(".")


def test_the_same_run_gives_the_same_report() -> None:
    run = search(TRUTHS["three"][0], 40, 0)
    assert findings_json(run, findings(run)) == findings_json(run, findings(run))


# ---------------------------------------------------------------- conditions, odd runs


def test_a_setting_of_a_branch_is_judged_in_its_branch() -> None:
    run = search(TRUTHS["nothing"][0], 80, 0)
    sgd = run.trials["optimizer"] == "sgd"
    momentum = np.random.default_rng(0).random(80)
    boost = np.where(sgd, momentum, 0.0)
    branch = Parameter(
        "optimizer[sgd].momentum", "momentum", "float", True, low=0, high=1,
        active_when=({"name": "optimizer", "values": ["sgd"]},),
    )  # fmt: skip
    epochs = run.epochs.assign(val_accuracy=run.epochs["val_accuracy"] * (1 + run.epochs["trial"].map(
        dict(zip(run.trials.index, boost, strict=True)))))  # fmt: skip
    trials = run.trials.assign(momentum=np.where(sgd, momentum, np.nan))
    changed = replace(run, trials=trials, epochs=epochs, parameters=(*run.parameters, branch))
    effect = next(e for e in effects(changed) if e.name == "optimizer[sgd].momentum")
    assert effect.trials == int(sgd.sum()) and effect.adjusted < ALARM
    assert all(
        pair.trials == int(sgd.sum()) for pair in interactions(changed) if "momentum" in pair.first + pair.second
    )


def test_thousands_of_categories_are_no_finding() -> None:
    run = search(TRUTHS["nothing"][0], 60, 0)
    named = [f"kind {n}" for n in range(60)]
    kind = Parameter("kind", "kind", "choice", False, choices=tuple(named))
    effect = next(e for e in effects(replace(run, trials=run.trials.assign(kind=named), parameters=(kind,))))
    assert effect.p == 1.0 and effect.share == 0.0


@pytest.mark.parametrize("count", [0, 1, 2, 10])
def test_short_runs_and_equal_scores_give_a_report(count: int) -> None:
    run = search(TRUTHS["nothing"][0], 12, 0)
    trials = run.trials.head(count)
    epochs = run.epochs[run.epochs["trial"].isin(trials.index)].assign(val_accuracy=0.5)
    report = findings(replace(run, trials=trials.assign(val_accuracy=0.5, state="finished"), epochs=epochs))
    assert report.findings == ()


# ---------------------------------------------------------------- facts


def test_the_lead_is_measured_by_what_luck_gives() -> None:
    run = search(TRUTHS["nothing"][0], 12, 0)
    assert any(
        "By the noise of 1,000 validation images, two results of one configuration differ by up to" in t
        for t in facts.facts(run)
    )
    short = run.epochs[run.epochs["epoch"] == 1]  # no images counted, no jitter
    assert any("not known what luck gives" in t for t in facts.facts(replace(run, run={}, epochs=short)))


def test_alarms_are_rare_by_the_tests_own_level() -> None:
    assert tested.SHUFFLES >= 1 / ALARM * 100  # else no p could pass Holm's correction over a hundred tests
