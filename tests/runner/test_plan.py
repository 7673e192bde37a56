"""What is checked before Ray starts: the machine, the images, the models."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tuner.errors import BadInput
from tuner.packing.curve import Curve, Point, Request
from tuner.packing.machine import count_cores
from tuner.packing.packing import Machine
from tuner.runner import plan
from tuner.runner.about import describe
from tuner.runner.plan import Plan, make_plan
from tuner.runner.planned import plan_json, plan_table
from tuner.runner.sharing import check_machines
from tuner.spec.space import Space, parse_space
from tuner.spec.trial_config import TrialConfig


def space(model: str = "{name: cnn, depth: 1, width: 4}", data: str = "", rest: str = "") -> Space:
    return parse_space(f"name: p\ndata: {{dataset: digits{data}}}\nmodel: {model}\n{rest}", "p")


def planned(wanted: Space, cache: Path) -> Plan:
    return make_plan(wanted, cache)


GB = 10**9
BOX = Machine(cores=8, memory=64 * GB, gpus=2, gpu="pretend", gpu_memory=40 * GB)
PLAIN = Machine(cores=8, memory=64 * GB)


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
def test_as_many_trials_at_once_as_fit(resources: str, expected: tuple[int, str], tmp_path: Path) -> None:
    wanted = space("{name: cnn, depth: 1, width: {int: [1, 40]}}", rest=f"resources: {resources}\n")
    made = make_plan(wanted, tmp_path, machines=[BOX], measure=never)
    assert (made.at_once, made.device) == expected


def never(machine: Machine, request: Request) -> Curve:
    raise AssertionError("numbers need no measuring")


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("{cpu: 9}", "resources.cpu: 9 cores a trial, but this machine has 8; write at most 8"),
        ("{gpu: 3}", "resources.gpu: 3 a trial, but this machine has 2 GPUs; write at most 2"),
        ("{gpu: 1.5}", "resources.gpu: 1.5 is neither a share of one GPU nor a whole number"),
    ],
)
def test_more_than_there_is_is_refused_at_once(resources: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_machines(space(rest=f"resources: {resources}\n").fixed.resources, [BOX], here=True)


@pytest.mark.parametrize(
    ("here", "message"),
    [(True, "this machine has no GPU; write 0"), (False, "no machine of the cluster has a GPU; write 0, or auto")],
)
def test_a_gpu_where_there_is_none_is_refused(here: bool, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_machines(space(rest="resources: {gpu: 0.25}\n").fixed.resources, [PLAIN], here=here)


# ---------------------------------------------------------------- auto

AUTO = "resources: {cpu: auto, gpu: auto}\ntrain: {epochs: 5}\n"
WIDTHS = "{name: cnn, depth: {int: [1, 2]}, width: {int: [4, 64]}}"


class Simulated:
    """A measurement: all together reach 1,000 images a second for each of so many at once, on any machine."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, list[Request]()

    def __call__(self, machine: Machine, request: Request) -> Curve:
        self.asked.append(request)
        points = [
            Point(n, 1, 1000.0 * min(n, self.most) - n, GB, n // max(1, machine.gpus) * GB, GB) for n in request.counts
        ]
        return Curve(tuple(points), 2 * GB)


def show(made: Plan) -> str:
    console = Console(width=300, file=io.StringIO())
    console.print(plan_table(made))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_shares_a_gpu_is_measured_once_and_shown(tmp_path: Path) -> None:
    wanted, measured = space(WIDTHS, rest=AUTO), Simulated(4)
    made, again = (make_plan(wanted, tmp_path, machines=[BOX], measure=measured) for _ in range(2))
    assert made.packings == again.packings and len(measured.asked) == 1
    (packing,) = made.packings
    assert (made.at_once, made.device, made.threads, packing.typical.gpu) == (4, "cuda", 2, 0.5)
    assert "4 trials at once, 0.5 GPU each, 19.0 GB; 8 would be no faster (measured) · " in show(made)
    assert plan_json(made)["packing"][0]["largest"]["gpu"] == made.share(packing, made.preflight.largest).gpu
    epoch = (1150 + 288 / 3) / 3996  # of four at once
    assert made.seconds == pytest.approx(plan.RAY_START + made.expected_epochs * epoch)


def test_the_typical_and_the_hungriest_configuration_are_asked_for(tmp_path: Path) -> None:
    measured = Simulated(4)
    made = make_plan(space(WIDTHS, rest=AUTO), tmp_path, machines=[BOX], measure=measured)
    (request,) = measured.asked
    typical, largest = (TrialConfig.model_validate_json(text) for text in (request.trial, request.largest))
    assert typical.model == made.preflight.middle.model and largest.model.model_dump()["width"] == 64
    assert made.heaviest == made.count(largest).memory_mb > made.count(typical).memory_mb


def test_auto_without_a_gpu_is_0_and_says_so(tmp_path: Path) -> None:
    made = make_plan(space(WIDTHS, rest=AUTO), tmp_path, machines=[PLAIN], measure=Simulated(8))
    assert made.device == "cpu" and made.at_once == 8 and made.packings[0].typical.gpu == 0
    assert "no GPU here, so gpu: auto is 0" in show(made)
    fixed = make_plan(space(WIDTHS, rest="resources: {gpu: auto}\n"), tmp_path, machines=[PLAIN], measure=never)
    assert fixed.at_once == 8 and "8 trials at once, 1 core each; no GPU here" in show(fixed)


def test_each_kind_of_machine_has_its_own_packing(tmp_path: Path) -> None:
    kinds = [replace(BOX, gpus=1, nodes=3), replace(BOX, cores=4, nodes=2), PLAIN]
    wanted = space(WIDTHS, rest=f"{AUTO}search: {{trials: 100}}\n")
    made = make_plan(wanted, tmp_path, machines=kinds, measure=Simulated(4))
    assert [packing.at_once for packing in made.packings] == [4, 4, 0] and made.packings[2].reason.startswith("no GPU")
    assert made.at_once == 3 * 4 + 2 * 4 and made.device == "cuda"
    assert "3 x 8 cores, 1 pretend: 4 trials at once on each, 0.25 GPU each" in show(made)
    limited = make_plan(space(WIDTHS, rest=AUTO[:-1].replace("gpu: auto", "gpu: auto, trials_at_once: 7") + "\n"),
                        tmp_path, machines=kinds, measure=Simulated(4))  # fmt: skip
    assert limited.at_once == 7


def test_cores_and_gpus_on_different_machines_are_no_place_for_a_trial(tmp_path: Path) -> None:
    kinds = [replace(PLAIN, cores=16), replace(BOX, cores=2)]
    with pytest.raises(BadInput, match="no machine has both 8"):
        make_plan(space(rest="resources: {cpu: 8, gpu: 1}\n"), tmp_path, machines=kinds)


def test_mps_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"resources\.mps: shares a GPU, but trials get none"):
        make_plan(space(rest="resources: {mps: true}\n"), tmp_path)


def test_run_json_says_how_machines_are_shared(tmp_path: Path) -> None:
    made = make_plan(space(WIDTHS, rest=AUTO), tmp_path, machines=[BOX], measure=Simulated(2))
    said = json.loads(json.dumps(describe(made, "p")))["packing"]
    assert said[0]["at_once"] == 2 and said[0]["machine"]["gpu"] == "pretend" and said[0]["measured"][0] == [2, 1998.0]


@pytest.mark.slow
def test_this_machine_is_measured_for_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.packing.measure.SECONDS", 0.2)
    text = "name: p\ndata: {dataset: shapes, subset: 300}\nmodel: {name: cnn, depth: 1, width: {int: [2, 4]}}\n"
    made = make_plan(parse_space(text + "resources: {cpu: auto}\n", "p"), tmp_path)
    (packing,) = made.packings
    assert 1 <= packing.at_once <= packing.machine.cores == count_cores()
    assert packing.machine.cores == 1 or (packing.measured and "(measured)" in packing.reason)


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
    assert made.full == 5 and 20 < made.expected_epochs < 100 and (made.seconds or 0) > plan.RAY_START


STARTS = """model: {choice: {a: {name: cnn, depth: 1}, b: {name: resnet, width: {choice: [8, 16]}}}}
search:
  trials: 2
  start_from:
    - {label: whole, to_the_end: true, model: a}
    - {label: half, to_the_end: true, model: b}
"""


def test_a_starting_point_is_whole_where_it_gives_all_that_its_branch_asks(tmp_path: Path) -> None:
    made = planned(parse_space(f"name: p\ndata: {{dataset: digits}}\ntrain: {{epochs: 9}}\n{STARTS}", "p"), tmp_path)
    lines = [line.strip() for line in show(made).splitlines() if "first" in line]
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
