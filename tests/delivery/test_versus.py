"""Two models on the same images: which is better, by how much, whether chance would do that, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from tuner.delivery.judging import verdict
from tuner.delivery.judging.paired import Paired, holm, interval, pair, wilson
from tuner.delivery.judging.versus import NAME, Versus, _per_class, compare
from tuner.delivery.looks import count_looks
from tuner.delivery.model import Model, open_torch, save_model
from tuner.delivery.pictures import open_pictures, open_split
from tuner.delivery.predictions import Predictions, judge
from tuner.errors import BadInput

Call = Callable[..., tuple[int, str, str]]


def marks(*counts: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of so many images that both, the first, the second, neither is right on: who is right."""
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    found = np.array([one for one, count in zip(pairs, counts, strict=True) for _ in range(count)])
    return found[:, 0], found[:, 1]


# ---------------------------------------------------------------- numbers


def test_the_exact_test_counts_only_the_images_on_which_they_part() -> None:
    # 2 or fewer, or 12 or more, of 14 tosses: 2 * (1 + 14 + 91) / 2**14
    assert pair(*marks(36, 12, 2, 0)).p == pytest.approx(2 * 106 / 2**14)
    assert pair(*marks(9, 12, 2, 400)).p == pytest.approx(2 * 106 / 2**14)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((54, 0, 0, 0), -0.0664, 0.0664)],
)
def test_the_interval_is_that_of_newcombes_tenth_method(
    counts: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert interval(*counts) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "n"), [(0, 7), (3, 7), (7, 7), (9_100, 10_000)])
def test_the_interval_of_a_share_is_scipys(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(200, (0.6, 0.12, 0.06, 0.22), size=500)
    covered = np.mean([low <= 0.06 <= high for low, high in (interval(*map(int, counts)) for counts in drawn)])
    assert 0.93 < covered < 0.98


def test_holm_multiplies_the_smallest_p_by_all_and_never_lowers_the_next() -> None:
    assert holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm([0.4, 0.7]) == pytest.approx([0.8, 0.8]) and holm([]) == []


def test_the_p_values_of_classes_are_corrected_as_by_hand() -> None:
    # The first alone is right on all 10, 5 and 3 images of the classes a, c and d, both on the 4 of b.
    labels = np.repeat([0, 1, 2, 3], [10, 4, 5, 3])
    sure = np.eye(4, dtype=np.float32)
    first, second = sure[labels], sure[np.where(labels == 1, 1, (labels + 1) % 4)]
    a, b, c, d = _per_class((judged(first, labels), judged(second, labels)))
    assert (a.p, b.p, c.p, d.p) == pytest.approx((2 / 2**10, 1, 2 / 2**5, 2 / 2**3))
    assert (a.p_holm, b.p_holm, c.p_holm, d.p_holm) == pytest.approx((4 * 2 / 2**10, 1, 3 * 2 / 2**5, 2 * 2 / 2**3))


def judged(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Predictions:
    return Predictions(logits, labels, [str(n) for n in range(len(labels))], ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "said"),
    [
        (0.018, 0.009, 0.027, 0.0003, "A is better than B by 1.8 points (95%: 0.9 to 2.7, p = 0.0003)"),
        (-0.018, -0.027, -0.009, 1e-9, "B is better than A by 1.8 points (95%: 0.9 to 2.7, p < 0.0001)"),
        (0.004, -0.005, 0.013, 0.41, "A is ahead of B by 0.4 points on 9 test images, but that could be chance"),
        (0.0, -0.002, 0.002, 1.0, "A and B are right equally often"),
    ],
)
def test_the_answer_names_the_better_one_only_where_chance_is_unlikely(
    difference: float, low: float, high: float, p: float, said: str
) -> None:
    assert verdict.answer(("A", "B"), Paired(0, 0, 0, 0, difference, low, high, p), "9 test images").startswith(said)


# ---------------------------------------------------------------- two models of a run


@pytest.fixture
def models(run: Path) -> tuple[Model, Model]:
    return open_torch(run / "trials" / "001"), open_torch(run / "trials" / "003")


@pytest.fixture
def versus(models: tuple[Model, Model]) -> Versus:
    return compare(models, split="validation", corrupt=False)


def test_counts_differences_and_agreement_are_those_of_both_alone(versus: Versus, models: tuple[Model, Model]) -> None:
    first, second = (judge(m, open_split(m.place, m.about, "validation", "test")) for m in models)
    assert versus.overall == pair(first.right, second.right)
    assert versus.agreement == (first.predicted == second.predicted).mean()
    assert [side.accuracy for side in versus.models] == [first.right.mean(), second.right.mean()]
    one = versus.per_class[1]
    mask = first.labels == 1
    assert one.images == mask.sum() and one.recalls == (first.right[mask].mean(), second.right[mask].mean())
    assert one.difference == pytest.approx(one.recalls[0] - one.recalls[1]) and one.p_holm >= one.p


def test_the_images_on_which_they_part_are_kept_the_surest_first(versus: Versus, models: tuple[Model, Model]) -> None:
    pictures = open_split(models[0].place, models[0].about, "validation", "test")
    assert len(versus.only_first) == min(versus.overall.first, 24) > 1
    for kind, right in ((versus.only_first, (True, False)), (versus.only_second, (False, True))):
        assert all(tuple(p == one.truth for p in one.predicted) == right for one in kind)
    sure = [min(one.confidence) for one in versus.only_first]
    assert sure == sorted(sure, reverse=True)
    shown = versus.only_first[0]
    place = list(pictures.names).index(shown.name)
    assert np.array_equal(np.asarray(Image.open(versus.folder / shown.image)), pictures.pixels[place])


def test_the_file_says_what_was_found(versus: Versus, run: Path) -> None:
    assert versus.folder == run / "final" / "versus-validation"
    said = json.loads((versus.folder / NAME).read_text())
    assert said == json.loads(json.dumps(versus.as_json())) and said["format"] == 1
    assert said["overall"]["difference"] == versus.overall.difference and "folder" not in said
    assert verdict.lines(versus)[0] == versus.answer and f"only {versus.models[0].name}" in verdict.lines(versus)[1]


def test_a_model_against_itself_has_no_difference_and_no_doubt(models: tuple[Model, Model]) -> None:
    found = compare((models[0], models[0]), split="validation")
    assert found.overall.difference == 0 and found.overall.p == 1 and found.agreement == 1
    assert found.models[0].name != found.models[1].name and not found.only_first
    assert all(one.difference == 0 and one.p_holm == 1 for one in found.per_class)
    assert found.robustness and found.robustness["difference"] == {"value": 0, "low": 0, "high": 0}
    assert found.robustness["models"][0] == found.robustness["models"][1]


def test_the_terminal_says_of_corruptions_who_is_ahead_only_where_chance_is_unlikely(versus: Versus) -> None:
    told = {"models": [{"mean": 0.6}, {"mean": 0.5}], "difference": {"value": 0.1, "low": 0.02, "high": 0.18}}
    (said,) = (line for line in verdict.lines(replace(versus, robustness=told)) if line.startswith("harmed"))
    assert "60.0%" in said and f"{versus.models[0].name} ahead by 10.0 points (95%: 2.0 to 18.0)" in said
    told = {**told, "difference": {"value": 0.1, "low": -0.02, "high": 0.22}}
    (said,) = (line for line in verdict.lines(replace(versus, robustness=told)) if line.startswith("harmed"))
    assert "could be chance (95%: −2.0 to 22.0)" in said and "ahead" not in said


def test_test_images_are_counted_once_in_each_run(models: tuple[Model, Model], run: Path, tmp_path: Path) -> None:
    assert compare(models, corrupt=False).looks == {run.name: 1} and count_looks(run) == 1
    other = Path(shutil.copytree(run, tmp_path / "other" / "again"))
    found = compare((models[0], open_torch(other / "trials" / "003")), corrupt=False)
    assert found.looks == {run.name: 2, "again": 2} and (count_looks(run), count_looks(other)) == (2, 2)


def test_a_model_without_a_run_is_judged_on_the_images_of_the_other(
    models: tuple[Model, Model], versus: Versus, tmp_path: Path
) -> None:
    save_model(tmp_path / "sent", models[0])
    found = compare((open_torch(tmp_path / "sent"), models[1]), split="validation", corrupt=False)
    assert found.overall == versus.overall and found.folder == tmp_path / "sent" / "versus-validation"
    with pytest.raises(BadInput, match="--data"):
        compare((open_torch(tmp_path / "sent"),) * 2)


# ---------------------------------------------------------------- other forms, and what is refused


def reordered(model: Model, folder: Path) -> Model:
    """The same model with its classes in another order, as if it had been trained elsewhere."""
    import torch

    order = [2, 0, 1]
    layers = [module for module in model.network.modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        layers[-1].weight.copy_(layers[-1].weight[order])
        layers[-1].bias.copy_(layers[-1].bias[order])
    classes = tuple(model.about.classes[n] for n in order)
    save_model(folder, replace(model, about=model.about.model_copy(update={"classes": classes})))
    return open_torch(folder)


def test_classes_in_another_order_are_mapped(run: Path, tmp_path: Path) -> None:
    model = open_torch(run / "trials" / "001")
    other = reordered(open_torch(run / "trials" / "001"), tmp_path / "sent")
    for one, two in ((model, other), (other, model)):
        found = compare((one, two), split="validation", corrupt=True)
        assert found.agreement == 1 and found.overall.p == 1 and found.overall.both > 0
        assert found.classes == one.about.classes and all(part.difference == 0 for part in found.per_class)
        assert found.robustness and found.robustness["difference"]["value"] == 0


def drawn(folder: Path, classes: tuple[str, ...]) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for n in range(5):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / name / f"{n}.png")
    return folder


def smaller(model: Model) -> Model:
    return replace(model, about=model.about.model_copy(update={"image_size": 12}))


def test_models_of_two_sizes_see_the_same_new_images_each_at_its_own(model: Model, tmp_path: Path) -> None:
    data = drawn(tmp_path / "new", model.about.classes[:2])
    found = compare((smaller(model), model), data=data, out=tmp_path / "out")
    first, second = (judge(m, open_pictures(data, m.about)) for m in (smaller(model), model))
    assert found.overall == pair(first.right, second.right)
    assert found.images == 10 and found.what == str(data) and found.looks is None
    assert [side.image_size for side in found.models] == [12, 16] and any("different form" in n for n in found.notes)
    assert any(f"without images, which nothing is said about: {model.about.classes[2]}" in note for note in found.notes)


def test_other_classes_are_refused_by_name(model: Model, tmp_path: Path) -> None:
    other = replace(model, about=model.about.model_copy(update={"classes": (*model.about.classes[:2], "zebra")}))
    with pytest.raises(BadInput, match="zebra") as caught:
        compare((model, other), out=tmp_path)
    assert len(caught.value.problems) == 2 and "triangle" in str(caught.value)


def test_models_of_different_data_are_refused_before_anything_is_opened(run: Path) -> None:
    model = open_torch(run)
    origin = model.about.origin.model_copy(update={"fingerprint": "another"})
    other = replace(model, about=model.about.model_copy(update={"origin": origin}))
    with pytest.raises(BadInput, match=r"different images.*--data"):
        compare((model, other))
    assert count_looks(run) == 0


@pytest.mark.parametrize("first", [0, 1])
def test_validation_images_that_one_of_them_learned_from_are_refused(first: int, run: Path) -> None:
    model, other = open_torch(run), open_torch(run / "trials" / "003")
    settings = {**other.about.settings, "data": {**other.about.settings["data"], "train_on": "all"}}
    whole = replace(other, about=other.about.model_copy(update={"settings": settings}))
    with pytest.raises(BadInput, match="learned from its validation images"):
        compare((model, whole) if first else (whole, model), split="validation")


def test_validation_images_that_the_other_run_trained_on_are_refused(
    run: Path, models: tuple[Model, Model], tmp_path: Path
) -> None:
    other = open_torch(Path(shutil.copytree(run, tmp_path / "again")) / "trials" / "003")
    data = {**other.about.settings["data"], "val_fraction": 0.4}
    settings = {**other.about.settings, "data": data}
    other = replace(other, about=other.about.model_copy(update={"settings": settings}))
    with pytest.raises(BadInput, match="validation images of their runs differ"):
        compare((models[0], other), split="validation")


def test_images_of_somebodys_own_are_not_written_over(models: tuple[Model, Model], tmp_path: Path) -> None:
    own = tmp_path / "images" / "00001.png"
    own.parent.mkdir()
    own.write_bytes(b"dear")
    with pytest.raises(BadInput, match="choose another folder"):
        compare(models, split="validation", out=tmp_path)
    assert own.read_bytes() == b"dear"


def test_a_second_comparison_replaces_the_images_of_the_first(versus: Versus, models: tuple[Model, Model]) -> None:
    found = compare((models[0], models[0]), split="validation", corrupt=False)
    assert versus.folder == found.folder and versus.only_first
    assert not list((found.folder / "images").iterdir()) and not found.only_first


# ---------------------------------------------------------------- the command


@pytest.mark.slow
def test_the_command_answers_and_writes_the_page(run: Path, call: Call) -> None:
    code, out, err = call("evaluate", run / "trials" / "001", run / "trials" / "003", "--no-corrupt")
    assert code == 0, err
    assert out.startswith("shapes-small 001 is ") and "page " in out and "harmed" not in out
    assert (run / "final" / "versus" / "index.html").is_file() and count_looks(run) == 1
    assert '"command": "hypertune evaluate ' in (run / "final" / "test_looks.jsonl").read_text()


@pytest.mark.slow
def test_the_command_says_the_same_for_programs_and_tries_corruptions_by_itself(
    run: Path, call: Call, tmp_path: Path
) -> None:
    trials = [run / "trials" / name for name in ("001", "003")]
    code, out, _ = call("evaluate", *trials, "--split", "validation", "--out", tmp_path / "here", "--json")
    said = json.loads(out)
    assert code == 0 and said.pop("page") == str(tmp_path / "here" / "index.html")
    assert said == json.loads((tmp_path / "here" / NAME).read_text())
    assert list(said["robustness"]["models"][0]["kinds"]) == ["noise", "blur", "brightness", "jpeg"]


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--data", "x", "--split", "validation"), "leave one out"), (("--out", "."), "is a run itself")],
)
def test_the_command_refuses_what_cannot_be(
    words: tuple[str, ...], said: str, run: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    code, _, err = call("evaluate", "trials/001", "trials/003", *words)
    assert code == 2 and said in err and count_looks(run) == 0
