"""Which networks judge together, that they do so by the average of their probabilities, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.delivery.ensembles import members
from tuner.delivery.ensembles.ensemble import Ensemble, make, open_ensemble
from tuner.delivery.ensembles.members import Candidates, best_single, bootstrap, choose, estimate, gather, halve
from tuner.delivery.looks import count_looks
from tuner.delivery.model import WEIGHTS, Model, open_model, open_torch
from tuner.delivery.pictures import open_split
from tuner.delivery.place import ENSEMBLE, MODEL, find_model
from tuner.delivery.predictions import judge
from tuner.errors import BadInput
from tuner.training import checkpoint

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def candidates(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Candidates:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return gather(trained)


@pytest.fixture
def saved(candidates: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ensemble of the first two trials, one with two votes."""
    monkeypatch.setattr("tuner.delivery.ensembles.ensemble.choose", lambda shares, labels, most: (2, 1, 0))
    assert make(candidates, tmp_path / "ensemble", 5).folder == tmp_path / "ensemble"
    return tmp_path / "ensemble"


@pytest.fixture
def pixels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)


def softmax(logits: Any) -> Any:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def probabilities(model: Any, pixels: Any) -> Any:
    return softmax(model.logits(pixels))


# ---------------------------------------------------------------- judging


def test_it_judges_by_the_average_of_its_members_probabilities(saved: Path, pixels: Any) -> None:
    first, second = (open_torch(saved / "members" / name) for name in sorted_members(saved))
    by_hand = (2 * probabilities(first, pixels) + probabilities(second, pixels)) / 3
    np.testing.assert_allclose(probabilities(open_model(saved), pixels), by_hand, atol=1e-6)


def sorted_members(saved: Path) -> list[str]:
    return [Path(part["folder"]).name for part in json.loads((saved / ENSEMBLE).read_text())["members"]]


def test_an_ensemble_of_one_is_its_member(model: Model, pixels: Any) -> None:
    alone = Ensemble(model.about, model.place, (model,), (3,))
    np.testing.assert_allclose(probabilities(alone, pixels), probabilities(model, pixels), atol=1e-6)


def test_members_that_are_wrongly_certain_leave_finite_logits(model: Model) -> None:
    class Certain:
        about, place, kind = model.about, model.place, "torch"

        def logits(self, pixels: Any) -> Any:
            return np.array([[500, -500, 0]], dtype=np.float32)

    made = Ensemble(model.about, model.place, (Certain(), Certain()), (1, 1)).logits(np.zeros((1, 16, 16, 3), np.uint8))
    assert np.isfinite(made).all() and made.argmax() == 0


def test_a_copy_elsewhere_judges_the_same_and_says_what_it_is(saved: Path, tmp_path: Path, pixels: Any) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "elsewhere"))
    found = open_model(copy)
    assert found.kind == "ensemble" and find_model(copy / ENSEMBLE).kind == "ensemble"
    assert np.array_equal(found.logits(pixels), open_model(saved).logits(pixels))
    parts = [open_torch(saved / "members" / name).about for name in sorted_members(saved)]
    assert found.about.params == sum(part.params for part in parts) and found.about.classes == parts[0].classes


# ---------------------------------------------------------------- choosing


def two_classes(*truth: list[float]) -> list[Any]:
    """Probabilities (N, 2) of candidates that give the true class, 0, so much."""
    return [np.array([[share, 1 - share] for share in row], dtype=np.float32) for row in truth]


ZEROS = np.zeros(4, dtype=np.int64)


def test_members_are_chosen_as_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Alone 2, 2 and 0 of 4 are right; the first has a log loss of 0.785, the second 1.085. The first with the second
    # gives the truth 0.475, 0.55, 0.6 and 0.51, which makes 3; with itself or the third no more than 2.
    found = two_classes([0.9, 0.8, 0.3, 0.2], [0.05, 0.3, 0.9, 0.82], [0.4, 0.2, 0.4, 0.4])
    monkeypatch.setattr(members, "ROUNDS", 2)
    assert choose(found, ZEROS, 5) == (1, 1, 0)
    monkeypatch.setattr(members, "ROUNDS", 1)
    assert choose(found, ZEROS, 5) == (1, 0, 0)


def test_a_second_vote_that_helps_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    # One vote each: 0.45 and 0.65, 1 of 2 right; two for the first: 0.53 and 0.53.
    found = two_classes([0.7, 0.3], [0.2, 1.0])
    assert choose(found, ZEROS[:2], 5) == (2, 1)


def test_greedy_choice_comes_close_to_the_best_votes_of_all() -> None:
    candidates, labels = drawn(4, 200, 0.6, np.random.default_rng(3))
    grid = [votes for votes in itertools.product(range(5), repeat=4) if sum(votes)]
    best = max(accuracy(candidates, votes) for votes in grid)
    chosen = choose([each.probabilities for each in candidates.found], labels, 4)
    assert accuracy(candidates, chosen) >= best - 0.01
    assert accuracy(candidates, chosen) > max(candidates.right.mean(axis=1)) + 0.02


def test_there_are_no_more_members_than_asked_for_and_none_that_does_not_help() -> None:
    candidates, labels = drawn(8, 200, 0.6, np.random.default_rng(3))
    shares = [each.probabilities for each in candidates.found]
    assert (
        sum(vote > 0 for vote in choose(shares, labels, 2)) == 2 < sum(vote > 0 for vote in choose(shares, labels, 8))
    )
    assert choose(two_classes([0.9] * 4, [0.1] * 4), ZEROS, 5) == (1, 0)
    assert choose(two_classes([0.9, 0.4, 0.4, 0.6], [0.9, 0.4, 0.4, 0.6]), ZEROS, 5) == (1, 0)  # twins: fewer


def drawn(count: int, images: int, skill: float, chance: np.random.Generator) -> tuple[Candidates, Any]:
    """Candidates that are right on a share `skill` of the images and a third of the rest, each by luck of its own."""
    labels = chance.integers(0, 3, images)
    made = []
    for n in range(count):
        said = np.where(chance.random(images) < skill, labels, chance.integers(0, 3, images))
        shares = chance.uniform(0.05, 0.15, (images, 3)).astype(np.float32)
        shares[np.arange(images), said] += chance.uniform(0.2, 0.7, images).astype(np.float32)
        shares /= shares.sum(axis=1, keepdims=True)
        made.append(members.Candidate(str(n), None, None, shares))  # type: ignore[arg-type]
    return Candidates(Path(), tuple(made), labels, ()), labels


def accuracy(candidates: Candidates, votes: Any) -> float:
    return float((candidates.average(votes).argmax(axis=1) == candidates.labels).mean())


def test_the_best_single_one_is_the_most_accurate_then_the_surest() -> None:
    right = np.array([[True, False], [True, True], [True, True]])
    assert best_single(right, np.array([[0.99, 0.4], [0.6, 0.6], [0.7, 0.7]])) == 2


def test_a_half_has_half_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [10, 7, 2])
    counts = np.bincount(labels[halve(labels, np.random.default_rng(0))], minlength=3)
    assert counts[0] == 5 and counts[1] in (3, 4) and counts[2] == 1


def test_an_estimate_is_not_fooled_by_noise_to_choose_from() -> None:
    """Twenty candidates of pure chance: the ensemble looks better on the images that chose it, and is not."""
    candidates, labels = drawn(20, 120, 0.0, np.random.default_rng(0))
    flattered = accuracy(candidates, choose([each.probabilities for each in candidates.found], labels, 10))
    gain, _ = estimate(candidates, 10)
    assert flattered > max(candidates.right.mean(axis=1)) + 0.03  # a third is right by chance
    assert gain.low < 0 and gain.value < 0.02


def test_a_gain_that_is_there_is_found_with_its_interval() -> None:
    """Nine candidates that err each elsewhere; measured on as many images as one likes, together they gain this."""
    many, _ = drawn(9, 20_000, 0.6, np.random.default_rng(1))
    true = accuracy(many, (1,) * 9) - many.right.mean(axis=1).mean()
    gain, loss = estimate(drawn(9, 300, 0.6, np.random.default_rng(0))[0], 9)
    assert 0.1 < gain.low < true < gain.high + 0.05 and loss.low > 0


def test_an_interval_is_that_of_a_mean() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, 2_000)
    found = bootstrap(differences, np.random.default_rng(1))
    width = 1.96 * differences.std() / np.sqrt(2_000)
    assert found.value == differences.mean()
    assert found.low == pytest.approx(found.value - width, abs=0.2 * width)
    assert found.high == pytest.approx(found.value + width, abs=0.2 * width)


# ---------------------------------------------------------------- candidates


def test_all_trials_with_weights_judge_the_validation_images_and_no_test_image(
    candidates: Candidates, trained: Path
) -> None:
    assert sorted(each.name for each in candidates.found) == ["001", "002", "003"]
    assert candidates.found[0].place == find_model(trained)  # the best one first
    model = open_torch(candidates.found[0].place)
    found = judge(model, open_split(model.place, model.about, "validation", "test"))
    np.testing.assert_allclose(candidates.found[0].probabilities, found.probabilities, atol=1e-6)
    assert count_looks(trained) == 0


def add_finalists(run: Path, name: str, **data: object) -> Path:
    """A copy of the run's trials below its final/, as `hypertune finalize` has them."""
    folder = run / "final" / name
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("final"))
    for path in folder.glob("trials/*/checkpoint_best") if data else ():
        tensors, state = checkpoint.load(path)
        state["config"]["data"].update(data)
        checkpoint.save(path, tensors, state)
    return folder


def test_finalists_are_candidates_unless_they_know_the_validation_images(run: Path) -> None:
    add_finalists(run, "finalists")
    shutil.rmtree(add_finalists(run, "whole", train_on="all") / "trials" / "003")
    found = gather(run)
    assert sorted(each.name for each in found.found) == [
        "001", "002", "003", "finalists-001", "finalists-002", "finalists-003",
    ]  # fmt: skip
    assert [text.split(" is left out: ")[0] for text in found.left_out] == ["whole-001", "whole-002"]
    assert all("validation images too" in text for text in found.left_out)


def test_a_training_that_two_sets_of_finalists_share_is_one_candidate(run: Path) -> None:
    add_finalists(run, "finalists")
    add_finalists(run, "finalists-2")
    assert len(gather(run).found) == 6


def test_what_was_split_otherwise_or_is_damaged_is_left_out_with_the_reason(run: Path) -> None:
    again = add_finalists(run, "finalists")
    said = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps({**said, "seeds": {**said["seeds"], "split": 7}}))
    worst = min(("001", "002"), key=lambda name: name == find_model(run).trial)
    (run / "trials" / worst / "checkpoint_best" / "weights.safetensors").write_bytes(b"nothing")
    found = gather(run)
    assert len(found.found) == 2 and len(found.left_out) == 4
    assert sum("trained on other images" in text for text in found.left_out) == 3


def test_one_trial_alone_is_no_ensemble(run: Path) -> None:
    for name in ("002", "003"):
        shutil.rmtree(run / "trials" / name / "checkpoint_best")
    with pytest.raises(BadInput, match=r"needs two trials or more with their weights, found 1.*\n?.*keep_checkpoints"):
        gather(run)


# ---------------------------------------------------------------- hostile folders


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        said = json.loads((folder / ENSEMBLE).read_text())
        said["members"][0].update(changes)
        (folder / ENSEMBLE).write_text(json.dumps(said))

    return change


def link_out(folder: Path) -> None:
    member = folder / "members" / sorted_members(folder)[0]
    member.rename(folder.parent / "outside")
    member.symlink_to(folder.parent / "outside")


def link_weights(folder: Path) -> None:
    file = folder / "members" / sorted_members(folder)[0] / WEIGHTS
    file.rename(folder.parent / "weights")
    file.symlink_to(folder.parent / "weights")


def other_classes(folder: Path) -> None:
    said = json.loads((folder / ENSEMBLE).read_text())
    said["about"]["classes"] = ["x", "y", "z"]
    (folder / ENSEMBLE).write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit(folder="../other"), "lies outside"),
        (edit(folder="members/../../other"), "lies outside"),
        (edit(folder="/etc"), "lies outside"),
        (edit(folder="a\0b"), "cannot be found"),
        (edit(weight=0), "damaged"),
        (link_out, "lies outside"),
        (link_weights, "lies outside"),
        (other_classes, "other classes"),
        (lambda folder: (folder / ENSEMBLE).write_text("["), "damaged"),
        (lambda folder: shutil.rmtree(folder / "members"), "cannot be read"),
    ],
)
def test_what_is_damaged_or_leads_elsewhere_is_refused(
    damage: Callable[[Path], None], said: str, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved / "members" / sorted_members(saved)[0], tmp_path / "other")
    damage(saved)
    with pytest.raises(BadInput, match=said):
        open_ensemble(find_model(saved))


# ---------------------------------------------------------------- the command


def test_the_command_says_what_it_gains_and_costs_and_what_it_saved_can_be_named(run: Path, call: Call) -> None:
    code, out, _ = call("ensemble", run, "--json")
    told = json.loads(out)
    assert code == 0 and told["images"] == 48 and count_looks(run) == 0
    weights = [each["weight"] for each in told["candidates"]]
    assert told["ensemble"]["members"] == sum(weight > 0 for weight in weights)
    if told["folder"]:  # as it is for these trials on this machine
        cost = told["cost"]
        assert cost["ensemble"]["bytes"] > cost["best"]["bytes"] and cost["best"]["forward_passes"] == 1
        model = open_model(run / "final" / "ensemble")
        found = judge(model, open_split(model.place, model.about, "validation", "test"))
        assert found.right.mean() == pytest.approx(told["ensemble"]["accuracy"])


def test_an_earlier_ensemble_is_replaced_and_one_that_helps_nobody_is_not_written(
    saved: Path, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.delivery.ensembles.ensemble.choose", lambda shares, labels, most: (0, 1, 1))
    make(candidates, saved, 5)
    kept = sorted(path.name for path in (saved / "members").iterdir())
    assert kept == sorted(each.name for each in candidates.found[1:])
    monkeypatch.setattr("tuner.delivery.ensembles.ensemble.choose", lambda shares, labels, most: (1, 0, 0))
    assert make(candidates, saved, 5).folder is None and not (saved / ENSEMBLE).exists()


def test_a_folder_of_something_else_is_not_written_to(run: Path, call: Call) -> None:
    code, _, err = call("ensemble", run, "--out", run / "trials" / "001")
    assert code == 2 and "choose another folder with --out" in err
    assert not (run / "trials" / "001" / MODEL).exists()
    assert call("ensemble", run, "--out", run)[0] == 2
