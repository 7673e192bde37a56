"""What is checked before Ray starts: the machine, the images, the models."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tuner.errors import BadInput
from tuner.runner import plan
from tuner.runner.plan import Plan, make_plan
from tuner.runner.planned import plan_table
from tuner.spec.space import Space, parse_space


def space(model: str = "{name: cnn, depth: 1, width: 4}", data: str = "", rest: str = "") -> Space:
    return parse_space(f"name: p\ndata: {{dataset: digits{data}}}\nmodel: {model}\n{rest}", "p")


def planned(wanted: Space, cache: Path) -> Plan:
    return make_plan(wanted, cache)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores and two GPUs."""
    monkeypatch.setattr(plan, "count_cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ("{}", (8, "cpu")),
        ("{cpu: 3}", (2, "cpu")),
        ("{cpu: 0.5}", (16, "cpu")),
        ("{gpu: 0.25}", (8, "cuda")),
        ("{gpu: 0.3}", (6, "cuda")),
        ("{gpu: 1}", (2, "cuda")),
        ("{gpu: 2}", (1, "cuda")),
        ("{gpu: 0.25, cpu: 2}", (4, "cuda")),
        ("{gpu: 0.25, trials_at_once: 3}", (3, "cuda")),
    ],
)
def test_as_many_trials_at_once_as_fit(resources: str, expected: tuple[int, str]) -> None:
    assert plan.check_devices(space(rest=f"resources: {resources}\n")) == expected


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("{cpu: 9}", "resources.cpu: 9 cores a trial, but this machine has 8; write at most 8"),
        ("{gpu: 3}", "resources.gpu: 3 a trial, but this machine has 2 GPUs; write at most 2"),
        ("{gpu: 1.5}", "resources.gpu: 1.5 is neither a share of one GPU nor a whole number"),
    ],
)
def test_more_than_there_is_is_refused_at_once(resources: str, message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        plan.check_devices(space(rest=f"resources: {resources}\n"))


def test_a_gpu_on_a_machine_without_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(BadInput, match="this machine has no GPU; write 0"):
        plan.check_devices(space(rest="resources: {gpu: 0.25}\n"))


def test_a_batch_larger_than_the_training_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"train.batch_size: 512.*at most 80"):
        planned(space(data=", subset: 100", rest="train: {batch_size: {choice: [32, 512]}}\n"), tmp_path)


def test_half_precision_of_gpus_is_refused_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="fp16"):
        planned(space(rest="train: {precision: {choice: [fp32, fp16]}}\n"), tmp_path)


def test_a_space_that_pools_every_image_away_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"can be trained; of 2,202 drawn the nearest: model\.depth . leaves no pixel"):
        planned(space("{name: cnn, depth: {int: [4, 6]}}"), tmp_path)


def test_each_image_size_that_is_searched_is_prepared_once(tmp_path: Path) -> None:
    made = planned(space(data=", image_size: {choice: [8, 16]}"), tmp_path)
    assert sorted(p.facts.image_size for p in made.prepared.values()) == [8, 16]
    assert made.folder(made.preflight.middle).name.startswith("digits-")


@pytest.mark.parametrize(
    "sizes", ["{choice: {small: 8, big: 16}}", "{choice: [null, 16]}", "{same_as: train.batch_size}"]
)
def test_image_sizes_may_be_searched_in_any_form(sizes: str, tmp_path: Path) -> None:
    made = planned(space(data=f", image_size: {sizes}", rest="train: {batch_size: {choice: [8, 16]}}\n"), tmp_path)
    assert {p.facts.image_size for p in made.prepared.values()} == {8, 16}


def test_too_many_image_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="more than 10 sizes"):
        planned(space(data=", image_size: {int: [4, 64]}"), tmp_path)


def test_a_starting_point_that_cannot_be_built_is_refused_before_the_start(tmp_path: Path) -> None:
    start = "search: {start_from: [{label: deep, model.depth: 6}]}\n"
    with pytest.raises(BadInput, match=r"start_from: deep cannot be trained: model\.depth 6 leaves no pixel"):
        planned(space("{name: cnn, depth: {int: [1, 6]}}", rest=start), tmp_path)


def test_a_grid_has_all_its_points_unless_the_file_says_how_many() -> None:
    model = "{name: cnn, depth: {int: [1, 3]}, width: {choice: [4, 8]}}"
    assert plan.count_trials(space(model, rest="search: {sampler: grid}\n")) == 6
    assert plan.count_trials(space(model, rest="search: {sampler: grid, trials: 4}\n")) == 4


def test_no_more_trials_than_there_are_configurations() -> None:
    model = "{name: cnn, depth: {int: [1, 3]}}"
    assert plan.count_trials(space(model, rest="search: {trials: 20}\n")) == 3
    assert plan.count_trials(space(model, rest="search: {trials: 2}\n")) == 2


def test_a_space_without_distributions_runs_one_trial() -> None:
    assert plan.count_trials(space()) == 1


def test_the_plan_knows_sizes_epochs_and_a_rough_time(tmp_path: Path) -> None:
    model = "{name: cnn, depth: {int: [1, 2]}, width: 4, dropout: {uniform: [0, 0.5]}}"
    made = planned(space(model, rest="train: {epochs: 5}\n"), tmp_path)
    assert made.preflight.smallest.params < made.preflight.largest.params
    assert made.full == 5 and 20 < made.expected_epochs < 100 and made.seconds > plan.RAY_START


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 64), ("150000 100000", 1), ("300000 100000", 3)])
def test_a_containers_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    assert plan.count_cores(tmp_path) == cores


STARTS = """model: {choice: {a: {name: cnn, depth: 1}, b: {name: resnet, width: {choice: [8, 16]}}}}
search:
  trials: 2
  start_from:
    - {label: whole, to_the_end: true, model: a}
    - {label: half, to_the_end: true, model: b}
"""


def test_a_starting_point_is_whole_where_it_gives_all_that_its_branch_asks(tmp_path: Path) -> None:
    made = planned(parse_space(f"name: p\ndata: {{dataset: digits}}\ntrain: {{epochs: 9}}\n{STARTS}", "p"), tmp_path)
    console = Console(width=200, file=io.StringIO())
    console.print(plan_table(made))
    assert isinstance(console.file, io.StringIO)
    lines = [line.strip() for line in console.file.getvalue().splitlines() if "first" in line]
    assert lines == ["first whole: 1 setting given", "first half: 1 setting given, the rest sampled"]
    assert made.expected_epochs == 18


def test_a_roc_curve_needs_two_classes_in_the_validation_images(tmp_path: Path) -> None:
    for split, kinds in (("train", "ab"), ("val", "a")):
        for kind in kinds:
            (tmp_path / "images" / split / kind).mkdir(parents=True)
            for number in range(6):
                picture = Image.new("L", (8, 8), 20 * number + ord(kind) + (split == "val"))
                picture.save(tmp_path / "images" / split / kind / f"{number}.png")
    text = "name: p\ndata: {dataset: image_folder, root: %s}\ntrain: {batch_size: 4}\nsearch: {trials: 1, metric: %s}\n"
    with pytest.raises(BadInput, match="needs two classes among the validation images"):
        planned(parse_space(text % (tmp_path / "images", "val_roc_auc"), "p"), tmp_path)
    planned(parse_space(text % (tmp_path / "images", "val_ece"), "p"), tmp_path)  # any other metric has a value


def test_the_range_of_the_arithmetic_is_its_own(tmp_path: Path) -> None:
    made = planned(
        space("{choice: {few: {name: cnn, depth: 3, width: 2}, many: {name: cnn, depth: 1, width: 8}}}"), tmp_path
    )
    low, high = made.preflight.work
    assert low < high and made.preflight.smallest.multiply_adds in (low, high)


def test_the_default_batch_gives_way_to_few_images(tmp_path: Path) -> None:
    assert planned(space(data=", subset: 40"), tmp_path).facts.train == 30
