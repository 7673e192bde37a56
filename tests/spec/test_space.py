"""The grammar's features: names, conditions, short forms, per-block lists, same_as, starting points, --set."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.errors import BadInput
from tuner.spec.distributions import Plain
from tuner.spec.model import Cnn
from tuner.spec.objective import Objective
from tuner.spec.space import Condition, Parameter, Space, parse_space
from tuner.spec.transforms import RandomCrop
from tuner.spec.trial_config import TrialConfig

HEAD = "name: test\ndata: {dataset: digits}\n"

THREE = (
    HEAD
    + """
train:
  optimizer:
    choice:
      adam: {lr: {loguniform: [1e-4, 1e-2]}}
      sgd: {lr: {uniform: [1e-3, 1e-1]}, momentum: {uniform: [0.8, 0.99]}}
      sgd-nesterov: {name: sgd, lr: 0.1, nesterov: true, weight_decay: {choice: [0, 1e-4]}}
"""
)

BLOCKS = (
    HEAD
    + """
model:
  name: cnn
  width: [{choice: [16, 32]}, {choice: [32, 64]}, {int: [64, 128]}]
  kernel: [&k {choice: [3, 5]}, *k, *k]
  depth: {int: [1, 3]}
"""
)


def cnn(config: TrialConfig) -> Cnn:
    assert isinstance(config.model, Cnn)
    return config.model


def space(text: str, *sets: str) -> Space:
    return parse_space(HEAD + text, "f", sets)


def names(parsed: Space) -> list[str]:
    return [p.name for p in parsed.parameters]


def first(parameter: Parameter) -> Plain:
    return parameter.distribution.values()[0]


def draw(rng: random.Random, asked: dict[str, Plain]):  # type: ignore[no-untyped-def]
    def choose(p: Parameter) -> Plain:
        asked[p.name] = value = rng.choice(p.distribution.values())
        return value

    return choose


def test_options_with_one_lr_each_are_two_parameters_of_one_path() -> None:
    parsed = parse_space(THREE, "f")
    assert [(p.name, p.path) for p in parsed.parameters] == [
        ("train.optimizer", "train.optimizer"),
        ("train.optimizer[adam].lr", "train.optimizer.lr"),
        ("train.optimizer[sgd].lr", "train.optimizer.lr"),
        ("train.optimizer[sgd].momentum", "train.optimizer.momentum"),
        ("train.optimizer[sgd-nesterov].weight_decay", "train.optimizer.weight_decay"),
    ]
    assert parsed.parameters[2].active_when == (Condition("train.optimizer", ("sgd",)),)


def test_each_trial_holds_the_chosen_branch_and_no_other() -> None:
    parsed, rng = parse_space(THREE, "f"), random.Random(0)
    seen = set()
    for _ in range(1000):
        asked: dict[str, Plain] = {}
        trial = parsed.resolve(draw(rng, asked))
        label = asked["train.optimizer"]
        seen.add(label)
        assert all(f"[{label}]" in name for name in asked if name != "train.optimizer")
        assert set(asked) == {p.name for p in parsed.parameters if all(c.holds(label) for c in p.active_when)}
        assert trial.train.optimizer.name == str(label).removesuffix("-nesterov")
        assert trial.train.optimizer.lr == asked.get(f"train.optimizer[{label}].lr", 0.1)
    assert seen == {"adam", "sgd", "sgd-nesterov"}


def test_a_per_block_list_is_cut_to_the_depth_and_asks_for_no_more() -> None:
    parsed, rng = parse_space(BLOCKS, "f"), random.Random(0)
    assert parsed.parameters[0].name == "model.depth"
    assert parsed.parameters[3].active_when == (Condition("model.depth", above=2),)
    for _ in range(100):
        asked: dict[str, Plain] = {}
        model = cnn(parsed.resolve(draw(rng, asked)))
        assert model.width == tuple(asked[f"model.width.{i}"] for i in range(model.depth))
        assert model.kernel == tuple(asked[f"model.kernel.{i}"] for i in range(model.depth))
        assert len(asked) == 1 + 2 * model.depth


def test_a_choice_of_lists_is_labelled_by_its_text() -> None:
    parsed = space("model: {name: cnn, depth: 2, width: {choice: [[16, 32], 8]}}")
    assert parsed.parameters[0].distribution.values() == ("16-32", 8)
    assert cnn(parsed.fixed).width == (16, 32)
    assert not parsed.parameters[0].distribution.ordered


def test_a_plain_list_serves_every_depth() -> None:
    parsed = space("model: {name: cnn, depth: {choice: [2, 1]}, width: [16, 32]}")
    assert cnn(parsed.resolve(lambda p: 1)).width == (16,)
    assert cnn(parsed.resolve(lambda p: 2)).width == (16, 32)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("train: {optimizer: sgd}", "train: {optimizer: {name: sgd}}"),
        ("train: {optimizer: {choice: [sgd, adam]}}", "train: {optimizer: {choice: {sgd: {name: sgd}, adam: {}}}}"),
        ("train: {optimizer: {choice: {sgd: , adam: }}}", "train: {optimizer: {choice: [{name: sgd}, {name: adam}]}}"),
        ("model: cnn", "model: {name: cnn}"),
        ("search: {sampler: random}", "search: {sampler: {name: random}}"),
        ("", "model: cnn"),
    ],
)
def test_short_forms_mean_the_long_ones(short: str, long: str) -> None:
    one, other = space(short), space(long)
    assert one.fixed == other.fixed
    assert one.to_json() == other.to_json()


def test_a_chosen_name_shares_the_fields_beside_it() -> None:
    parsed = space("train: {optimizer: {name: {choice: [adam, sgd]}, lr: {loguniform: [1e-4, 1e-1]}}}")
    assert names(parsed) == ["train.optimizer.name", "train.optimizer.lr"]
    assert not parsed.parameters[1].active_when
    trial = parsed.resolve(lambda p: "sgd" if p.name.endswith("name") else 0.03)
    assert (trial.train.optimizer.name, trial.train.optimizer.lr) == ("sgd", 0.03)


def test_a_transform_is_switched_by_a_choice_of_null() -> None:
    crop = "RandomCrop: {choice: {without: null, with: {padding: {int: [1, 4]}}}}"
    parsed = parse_space(f"name: test\ndata: {{dataset: digits, augment: {{{crop}}}}}", "f")
    assert parsed.resolve(first).data.augment.RandomCrop is None
    made = parsed.resolve(lambda p: "with" if p.path.endswith("Crop") else 4).data.augment.RandomCrop
    assert made is not None
    assert made.padding == 4


def test_an_option_that_is_searched_itself_has_a_column_of_its_own() -> None:
    parsed = space(
        "train: {optimizer: {name: adam, weight_decay: {choice: {without: 0, with: {loguniform: [1e-5, 1e-2]}}}}}"
    )
    assert [p.path for p in parsed.parameters] == ["train.optimizer.weight_decay", "train.optimizer.weight_decay[with]"]
    trial = parsed.resolve(lambda p: "with" if p.path.endswith("decay") else 1e-3)
    assert trial.train.optimizer.weight_decay == 1e-3


def test_same_as_copies_the_value_of_the_same_trial() -> None:
    parsed = space(
        "train:\n  schedule: {name: onecycle, final_lr: {same_as: train.optimizer.lr}}\n"
        "  optimizer: {name: sgd, lr: {uniform: [0.1, 1]}}"
    )
    assert names(parsed) == ["train.optimizer.lr"]
    assert parsed.resolve(lambda p: 0.7).train.schedule.final_lr == 0.7  # type: ignore[union-attr]


def test_resolve_refuses_what_is_no_value_of_a_parameter() -> None:
    with pytest.raises(BadInput, match=r"model.depth: 4 is none of its values"):
        space("model: {name: cnn, depth: {int: [1, 3]}}").resolve(lambda p: 4)


def test_fixed_has_the_first_option_and_the_low_end_everywhere() -> None:
    fixed = space("model: {name: cnn, depth: {int: [2, 3]}, norm: {choice: [none, batch]}}\nsearch: {trials: 7}").fixed
    assert (cnn(fixed).depth, cnn(fixed).norm, fixed.search.trials, fixed.name) == (2, "none", 7, "test")


def test_steps_are_counted_in_decimals() -> None:
    (dropout,) = space("model: {name: cnn, dropout: {uniform: [0, 0.3, 0.1]}}").parameters
    assert dropout.distribution.grid() == pytest.approx((0, 0.1, 0.2, 0.3))


def test_a_space_without_distributions_is_one_configuration() -> None:
    parsed = space("model: {name: cnn, depth: 2}\nseed: 5")
    assert parsed.parameters == ()
    assert parsed.resolve(first) == parsed.fixed.trial()


def test_to_json_is_the_contract_of_the_run_folder() -> None:
    optuna = pytest.importorskip("optuna")
    for entry in [*parse_space(THREE, "f").to_json(), *parse_space(BLOCKS, "f").to_json()]:
        assert list(entry) == ["name", "path", "distribution", "active_when", "ordered"]
        again = optuna.distributions.json_to_distribution(json.dumps(entry["distribution"]))
        assert json.loads(optuna.distributions.distribution_to_json(again)) == entry["distribution"]
    momentum, width = parse_space(THREE, "f").to_json()[3], parse_space(BLOCKS, "f").to_json()[2]
    assert momentum["active_when"] == [{"name": "train.optimizer", "values": ["sgd"]}]
    assert width["active_when"] == [{"name": "model.depth", "above": 1}]
    assert width["ordered"]


# ---------------------------------------------------------------- starting points


def starts(text: str):  # type: ignore[no-untyped-def]
    return parse_space(
        THREE + "model: {name: cnn, depth: {int: [1, 3]}}\nsearch: {start_from: [" + text + "]}", "f"
    ).starts


def test_starting_points_speak_names_or_paths_of_the_chosen_branch() -> None:
    one, two, three = starts(
        "{label: mine, to_the_end: true, train.optimizer: sgd, train.optimizer.lr: 0.05},"
        "{train.optimizer: adam, 'train.optimizer[adam].lr': 0.001}, {model.depth: 2}"
    )
    assert (one.label, one.to_the_end) == ("mine", True)
    assert one.fixed == {"train.optimizer": "sgd", "train.optimizer[sgd].lr": 0.05}
    assert two.fixed == {"train.optimizer": "adam", "train.optimizer[adam].lr": 0.001}
    assert (three.label, three.to_the_end, three.fixed) == ("start-3", False, {"model.depth": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{model.depth: 4}", "search.start_from.0: model.depth: 4 is not in 1 .. 3"),
        ("{model.dept: 2}", "model.dept: is not searched in this space; did you mean model.depth?"),
        ("{train.optimizer: sdg}", "no such option: sdg; there are adam, sgd, sgd-nesterov; did you mean sgd?"),
        ("{train.optimizer.lr: 0.05}", "exists only where train.optimizer is adam"),
        ("{train.optimizer: sgd-nesterov, train.optimizer.lr: 0.05}", "exists only where train.optimizer is"),
        ("{train.optimizer: adam, 'train.optimizer[sgd].lr': 0.05}", "exists only where train.optimizer is sgd"),
        ("{to_the_end: 1}", "to_the_end: must be true or false, got 1"),
        ("{label: a}, {label: a}", "two starting points are labelled a"),
    ],
)
def test_a_starting_point_that_cannot_be_says_why(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        starts(text)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)


def test_the_only_option_of_a_choice_need_not_be_written_out() -> None:
    text = THREE + "search: {start_from: [{train.optimizer.lr: 0.05}]}"
    (start,) = parse_space(text, "f", ["train.optimizer=sgd"]).starts
    assert start.fixed == {"train.optimizer": "sgd", "train.optimizer[sgd].lr": 0.05}


# ---------------------------------------------------------------- --set

BOTH = (Objective("val_accuracy", "max"), Objective("params", "min"))


def test_a_label_narrows_a_choice_and_keeps_its_distributions_and_names() -> None:
    parsed = parse_space(THREE, "f", ["train.optimizer=sgd", "train.optimizer.momentum=0.9"])
    assert names(parsed) == ["train.optimizer", "train.optimizer[sgd].lr"]
    assert parsed.parameters[0].distribution.values() == ("sgd",)
    assert parsed.fixed.train.optimizer.momentum == 0.9  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("sets", "path", "value"),
    [
        (["search.metric={val_accuracy: max, params: min}"], "search.objectives", BOTH),
        (["search.metric={val_accuracy: max}", "search.metric.params=min"], "search.objectives", BOTH),
        (["model.depth=2"], "model.depth", 2),
        (["model.width=16"], "model.width", 16),
        (["train.optimizer[adam].betas=[0.8, 0.9]"], "train.optimizer.betas", (0.8, 0.9)),
        (["train.schedule=onecycle", "train.schedule.warmup=0.5"], "train.schedule.warmup", 0.5),
        (["search.sampler.startup_trials=3"], "search.sampler.startup_trials", 3),
        (["search.time=30m"], "search.time", "30m"),
        (["data.root=a b=c"], "data.root", "a b=c"),
        (["train.optimizer=adamw"], "train.optimizer.weight_decay", 0.01),
    ],
)
def test_set_puts_a_value_anywhere(sets: list[str], path: str, value: object) -> None:
    text = THREE + "model: {name: cnn, depth: {int: [1, 3]}, width: {choice: [8, 16]}}\nsearch: {sampler: tpe}\n"
    found: object = parse_space(text, "f", sets).fixed
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ("model.dept=3", "--set 2: model.dept: no such field of cnn; did you mean depth?"),
        ("search.trials=-4", "--set 2: search.trials: must be at least 1, got -4"),
        (
            "train.optimizer.lr=0.1",
            "--set 2: train.optimizer.lr: train.optimizer is a choice; name the option: train.optimizer[adam] or ",
        ),
        ("train.optimizer[sdg].lr=1", "--set 2: train.optimizer[sdg].lr: no such option: sdg; did you mean sgd?"),
        ("model.depth={int: [3, 1]}", "--set 2: model.depth: int needs low below high, got [3, 1]; write [1, 3]"),
        ("model.depth", "--set 2: 'model.depth': write NAME=VALUE"),
        ("model.depth=", "--set 2: model.depth: no value"),
        ("model.depth=[1", "--set 2: not valid YAML"),
        ("model.depth.x=1", "--set 2: model.depth.x: model.depth is one value; it has no x"),
        ("data.dataset.x=1", "--set 2: data.dataset.x: data.dataset is one value; it has no x"),
        ("seed[1]=1", "--set 2: seed[1]: seed is no choice in this file"),
    ],
)
def test_what_is_wrong_with_a_set_is_said_by_its_number(one: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_space(THREE + "seed: 1\nmodel: {name: cnn, depth: 1}\n", "f", ["seed=1", one])
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(message)


def test_the_package_imports_nothing_heavy() -> None:
    modules = sorted(p.stem for p in Path("tuner/spec").glob("*.py") if p.stem != "__init__")
    assert "space" in modules
    code = f"import sys\nfor m in {modules}: __import__('tuner.spec.' + m)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "ray", "optuna", "numpy", "pandas", "sklearn"} & {name.partition(".")[0] for name in loaded}


def test_a_preset_takes_its_magnitudes_and_no_transform_of_its_own_beside_it() -> None:
    text = "name: test\nmodel: cnn\ndata: {dataset: digits, augment: %s}\n"
    parsed = parse_space(text % "{choice: {off: none, crop: {flip_crop: {padding: {int: [1, 3]}}}}}", "f")
    assert [p.name for p in parsed.parameters] == ["data.augment", "data.augment[crop].flip_crop.padding"]
    found = parsed.resolve(lambda p: "crop" if p.name == "data.augment" else 3).data.augment
    assert dict(found.transforms)["RandomCrop"] == RandomCrop(padding=3)
    with pytest.raises(BadInput, match="write either the preset or its transforms"):
        parse_space(text % "{flip_crop: {}, HorizontalFlip: {}}", "f")
