"""What is said of a space that is wrong: the rule, the value, the place, once each."""

from pathlib import Path

import pytest

from tuner.errors import BadInput
from tuner.spec.space import load_space, parse_space

SPACES = Path(__file__).parent / "spaces"
HEAD = "name: test\ndata: {dataset: digits}\n"


def problems(text: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        parse_space(HEAD + text, "f")
    return [f"{p.line}:{p.column} {p.message}" for p in caught.value.problems]


def test_all_problems_of_a_file_are_said_at_once_in_its_order() -> None:
    text = "model:\n  name: cnn\n  dept: 3\ntrain:\n  optimizer: {name: adam, lr: {loguniform: [0, 1]}}\n"
    text += "search:\n  trials: -4\n"
    assert problems(text) == [
        "5:3 model.dept: no such field of cnn; did you mean depth?",
        "7:45 train.optimizer.lr: loguniform needs a low above 0, got 0; try 1.0e-5",
        "9:3 search.trials: must be at least 1, got -4",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # R1: the words
        ("dropout: {unifrom: [0, 1]}", "no such distribution: unifrom; did you mean uniform?"),
        ("dropout: {uniform: [0, 0.3], p: 1}", "uniform stands alone in its mapping, not beside p"),
        (
            "depth: {randint: [1, 4]}",
            "randint is another tool's word; write {int: [1, 3]} (both ends are included here)",
        ),
        ("depth: {grid_search: [1, 4]}", "grid_search is another tool's word; write {choice: [1, 4]}"),
        ("depth: {values: [1, 4]}", "values is another tool's word; write {choice: [1, 4]}"),
        ("dropout: {quniform: [0, 0.5, 0.1]}", "quniform is another tool's word; write {uniform: [0, 0.5, 0.1]}"),
        ("dropout: {log_uniform_values: [0.1, 0.5]}", "write {loguniform: [0.1, 0.5]}"),
        ("dropout: {min: 0, max: 0.5}", "write {uniform: [0, 0.5]}"),
        ("depth: {lograndint: [1, 5]}", "write {logint: [1, 4]}"),
        ("dropout: {distribution: log_uniform_values, min: 0.1, max: 0.5}", "write {loguniform: [0.1, 0.5]}"),
        # R2: the ends
        ("dropout: {uniform: [0.3, 0.1]}", "uniform needs low below high, got [0.3, 0.1]; write [0.1, 0.3]"),
        ("dropout: {uniform: [0.3, 0.3]}", "write 0.3"),
        ("dropout: {uniform: 0.3}", "uniform takes [low, high] or [low, high, step], got 0.3"),
        ("dropout: {uniform: [0, a]}", "uniform takes numbers, got a"),
        ("depth: {int: [1, 2.5]}", "int takes whole numbers, got 2.5"),
        ("depth: {int: [1, true]}", "int takes whole numbers, got true"),
        ("depth: {logint: [0, 4]}", "logint needs a low above 0, got 0; try 1"),
        ("dropout: {loguniform: [0.1, 0.2, 0.1]}", "loguniform takes no step; write [low, high]"),
        ("dropout: {uniform: [0, 0.5, 0.2]}", "steps of 0.2 from 0 miss 0.5; write [0, 0.4, 0.2]"),
        ("dropout: {uniform: [0, 0.3000000001, 0.1]}", "steps of 0.1 from 0 miss 0.3000000001; write [0, 0.3, 0.1]"),
        ("dropout: {uniform: [0, 0.5, 1.0e-20]}", "steps of 1e-20 are too many to tell apart; leave the step out"),
        ("depth: {int: [1, 4, 2]}", "steps of 2 from 1 miss 4; write [1, 3, 2]"),
        ("depth: {int: [1, 4, 0]}", "a step must be above 0, got 0"),
        # R3: choices
        ("depth: {choice: [1, true]}", "choice holds 1 beside true, which counts as the same; keep one"),
        ("depth: {choice: [1, 2, 1]}", "choice holds 1 twice; keep one"),
        ("depth: {choice: [1, '1']}", 'choice holds 1 beside "1", which counts as the same; keep one'),
        ("depth: {choice: []}", "choice takes a list of values, or a mapping label -> option"),
        ("head: {choice: [{pool: average}]}", "an option that is a mapping needs a label"),
        ("head: {choice: {'a[1]': {pool: average}}}", "a label holds no [ ] ="),
        # R5: per-block lists
        ("depth: 2, width: [16]", "lists 1 blocks, depth is 2; write 2 items, or one value for all blocks"),
        ("depth: {int: [1, 3]}, width: [16, 32]", "lists 2 blocks, depth goes up to 3; write 3 items"),
        (
            "depth: {int: [1, 2]}, width: [8, 8, {choice: {a: 8, b: {int: [8, 16]}}}]",
            "lists 3 blocks, depth goes up to 2",
        ),
        ("width: [16, 32]", "lists 2 blocks, depth is 3"),
        ("depth: {choice: {a: 1}}, width: [16]", "depth must be a number, a choice of numbers, or int"),
        # values
        ("depth: {uniform: [1, 3]}", "must be a whole number; write {int: [low, high]}"),
        ("head: {hidden: [{uniform: [8, 16]}]}", "must be a whole number; write {int: [low, high]}"),
        ("depth: two", "must be a whole number, got the text two"),
        ("width: abc", "must be a whole number or a list, got the text abc"),
        ("width: -4", "must be at least 1, got -4"),
        ("blocks: [{width: 8, kernel: 4}]", "a kernel's side must be odd"),
        ("depth: 2, width: [16, abc]", "must be a whole number, got the text abc"),
        ("norm: bacth", "must be one of none, batch, group, got the text bacth; did you mean batch?"),
        ("norm: off", "must be one of none, batch, group, got the text off"),
        ("dropout: {uniform: [1, 2]}", "must be below 1, got 1"),
        ("dropout: '0.5'", 'must be a number or a mapping of its fields, got the text "0.5"; write 0.5'),
        ("kernel: {choice: [3, 4]}", "a kernel's side must be odd"),
        ("head: {pool: {choice: [average, flaten]}}", "must be one of average, max, flatten, got the text flaten"),
    ],
)
def test_a_mistake_in_the_model_is_said_once(text: str, said: str) -> None:
    (problem,) = problems("model: {name: cnn, " + text + "}")
    assert problem.startswith("3:")
    assert " model." in problem
    assert said in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: cn", "model: no such model: cn; did you mean cnn?"),
        ("model: {width: 3}", "model: name is missing: one of cnn"),
        ("model: [cnn]", "model: takes a name or a mapping with name, got a list"),
        ("model: {choice: [cnn], width: 3}", "model: choice stands alone in its mapping, not beside width"),
        ("train: {optimizer: {choice: {fast: {lr: 0.1}}}}", "train.optimizer[fast]: no such optimizer: fast"),
        ("train: {optimizer: {choice: [adam, sdg]}}", "no such optimizer: sdg; did you mean sgd?"),
        ("train: {optimizer: {name: {choice: [adam, sgd]}, momentum: 0.9}}", "no such field of adam, which"),
        ("train: {optimizer: {name: {choice: [adam, sgdd]}}}", "no such optimizer: sgdd; did you mean sgd?"),
        ("train: {optimizer: {name: {choice: [adam, sgd]}, lr: 0}}", "train.optimizer.lr: must be above 0, got 0"),
        ("train: {optimizer: {name: sgd, nesterov: on}}", "must be true or false, got the text on; write true"),
        ("train: {optimizer: {name: adam, betas: [0.9]}}", "train.optimizer.betas: has too few items, got [0.9]"),
        (
            "train: {optimizer: {name: adam, betas: [0.9, 0.9, 0.9]}}",
            "train.optimizer.betas: has too many items: 2 at most",
        ),
        ("train: {optimizer: {name: adam, betas: [0.9, 1.5]}}", "train.optimizer.betas.1: must be below 1, got 1.5"),
        (
            "train: {optimizer: {name: sgd, nesterov: {choice: [false, true]}, momentum: {choice: [0.9, 0]}}}",
            "train.optimizer: nesterov needs a momentum above 0",
        ),
        # R7: same_as
        ("train: {schedule: {name: onecycle, final_lr: {same_as: train.optimizer.lr}}}", "is not written in this file"),
        (
            "train: {optimizer: {choice: {adam: {lr: 0.1}, sgd: }}, "
            "schedule: {name: onecycle, final_lr: {same_as: train.optimizer.lr}}}",
            "is not written in this file; write it out, or point at another value (where train.optimizer is sgd)",
        ),
        ("train: {schedule: {name: onecycle, final_lr: {same_as: train.schedule.final_lr}}}", "is a same_as itself"),
        (
            "train: {batch_size: {same_as: model.width.1}}\nmodel: {name: cnn, depth: {int: [1, 2]}, width: [8, 16]}",
            "exists only where model.depth is above 1",
        ),
        # R8: what is searchable
        ("seed: {choice: [1, 2]}", "seed: cannot be searched: trials would differ by luck"),
        ("search: {trials: {int: [1, 2]}}", "search.trials: cannot be searched: it says how trials are chosen"),
        ("resources: {cpu: {choice: [1, 2]}}", "resources.cpu: cannot be searched"),
        ("train: {epochs: {int: [5, 10]}}", "train.epochs: can be searched only with search.scheduler: none"),
        (
            "train: {choice: {a: {epochs: 5}, b: {epochs: 6}}}",
            "train.epochs: can be searched only with search.scheduler",
        ),
        # the rest
        ("search: {metric: val_acc}", "search.metric: no such metric: val_acc; did you mean val_accuracy?"),
        ("search: {metric: val_class_accuracy}", "no such metric: val_class_accuracy"),
        ("search: {metric: val_top4_accuracy}", "no such metric: val_top4_accuracy; did you mean val_top"),
        ("search: {metric: {val_ece: max}}", "search.metric: val_ece: better is min, got max"),
        ("search: {metric: {val_acc: max}}", "search.metric: no such metric: val_acc; did you mean val_accuracy?"),
        ("search: {metric: {val_accuracy: max, parms: min}}", "no such metric: parms; did you mean params?"),
        ("search: {metric: {val_accuracy: maxi}}", "metric.val_accuracy: must be one of max, min, got the text maxi"),
        ("search: {metric: {val_accuracy: max, params: max}}", "search.metric: params: better is min, got max"),
        ("search: {metric: {params: min}}", "the first decides which trial is stopped: one of val_accuracy, val_macro"),
        ("search: {metric: {}}", "search.metric: must name a metric at least: one of val_accuracy, val_macro_f1"),
        ("search: {metric: 3}", "must be a metric or several, like {val_accuracy: max, params: min}, got 3"),
        ("search: {constraints: [params <= 9, parms <= 9]}", "3:37 search.constraints.1: no such metric: parms; did"),
        ("search: {constraints: [params < 9]}", "0: no constraint: 'params < 9'; write METRIC <= NUMBER or METRIC >="),
        ("search: {constraints: [params <= few]}", "search.constraints.0: 'params <= few': few is no number"),
        ("search: {hang_after: 5}", "search.hang_after: must be text, got 5"),
        (
            "search: {metric: {val_accuracy: max, params: min}, sampler: cmaes}",
            "3:52 search.sampler: cmaes improves one metric; write auto, tpe, gp or nsga2 for several",
        ),
        (
            "model: {name: cnn, depth: {int: [1, 3]}}\n"
            "search: {trials: 1, start_from: [{model.depth: 1}, {model.depth: 2}]}",
            "4:10 search.trials: 1 do not hold the 2 of start_from; write that many at least",
        ),
        ("search: {time: 3 hours}", "search.time: no duration: '3 hours'; write 90s, 30m or 2h"),
        ("search: {start_from: 3}", "search.start_from: must be a list, got 3"),
        (
            "search: {sampler: grid}\nmodel: {name: cnn, dropout: {uniform: [0, 0.5]}}",
            "search.sampler is grid; a grid needs",
        ),
        ("data: {dataset: digits}", "data: given twice in one mapping; the first is in line 2"),
        ("foo: 1", "foo: no such field; there are"),
        ("choice: [1, 2]", "choice stands alone in its mapping"),
        ("train:", "train: must be a mapping of its fields, got null"),
    ],
)
def test_a_mistake_is_said_once(text: str, said: str) -> None:
    (problem,) = problems(text)
    assert said in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {dataset: digits}", "f:1:1: name: is missing"),
        ("name: a/b\ndata: {dataset: digits}", "f:1:1: name: must begin with a letter or digit"),
        ("name: a\ndata: {dataset: image_folder}", "f:2:1: data: image_folder needs root"),
        ("name: a\ndata: {root: x}", "f:2:1: data.dataset: is missing"),
        (
            "name: a\ndata: {dataset: {choice: [digits, shapes]}}",
            "f:2:8: data.dataset: cannot be searched: trials would see",
        ),
        (
            "name: a\ndata: {dataset: digits, augment: flip}",
            "f:2:25: data.augment: no such augment: flip; did you mean flip_crop?",
        ),
        ("[1, 2]", "f:1:1: a space file is a mapping"),
    ],
)
def test_a_mistake_at_the_top_is_said_once(text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_space(text, "f")
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(said)


PBT = """\
model: {name: cnn, width: {choice: [16, 32]}, dropout: {uniform: [0, 0.5]}}
train: {epochs: 8, optimizer: {choice: {sgd: {lr: {uniform: [0.1, 1]}}, adam: }}}
search: {scheduler: {name: pbt, %s}}
"""


@pytest.mark.parametrize("text", ["every: 7", "mutate: [train.optimizer.lr]", "mutate: ['train.optimizer[sgd].lr']"])
def test_a_population_may_change_what_is_searched_and_may_change_in_mid_run(text: str) -> None:
    assert parse_space(HEAD + PBT % text, "f").fixed.search.scheduler.name == "pbt"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            PBT % "mutate: [model.dropout, model.width]",
            "5:57 search.scheduler.mutate.1: model.width: cannot change in a trial that runs; "
            "those that can: model.dropout, train.optimizer[sgd].lr, train.optimizer.lr",
        ),
        (PBT % "mutate: [train.batch_size]", "train.batch_size: is not searched in this space; those that can: model."),
        (PBT % "mutate: []", "5:33 search.scheduler.mutate: names nothing to change; leave it out, or name some of"),
        (PBT % "every: 8", "5:33 search.scheduler.every: is 8; trials train 8 epochs and would never be compared"),
        (PBT.replace("epochs: 8", "epochs: {int: [8, 9]}") % "every: 2", "train.epochs: can be searched only with"),
        (
            "model: {name: cnn, depth: {int: [1, 3]}}\nsearch: {scheduler: pbt}",
            "4:10 search.scheduler: pbt changes settings of running trials, and none that can change is searched: ",
        ),
    ],
)
def test_what_a_population_cannot_do_is_said_once(text: str, said: str) -> None:
    (problem,) = problems(text)
    assert said in problem


@pytest.mark.parametrize("sampler", ["auto", "random", "grid", "qmc", "tpe", "gp", "nsga2"])
def test_the_other_samplers_take_several_metrics(sampler: str) -> None:
    text = f"search: {{metric: {{val_accuracy: max, params: min}}, sampler: {sampler}}}"
    assert len(parse_space(HEAD + text, "f").fixed.search.objectives) == 2


def test_only_so_many_problems_are_shown_and_all_are_kept() -> None:
    with pytest.raises(BadInput) as caught:
        parse_space(HEAD + "".join(f"line-{n}: 1\n" for n in range(50)), "f")
    assert len(caught.value.problems) == 50
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("\nand 30 more")


def test_a_name_fits_into_a_folders_name() -> None:
    assert parse_space("name: " + "鳥" * 66 + "\ndata: {dataset: digits}", "f")
    with pytest.raises(BadInput, match="name: names a folder: at most 200 bytes, got 201"):
        parse_space("name: " + "鳥" * 67 + "\ndata: {dataset: digits}", "f")


def test_an_escaped_emoji_is_shown_as_it_is() -> None:
    with pytest.raises(BadInput, match="got '🎉'"):
        parse_space(HEAD, "f", [r'name="\ud83c\udf89"'])
    with pytest.raises(BadInput, match="--set 1: half of a character"):
        parse_space(HEAD, "f", [r'name="\ud83c"'])


@pytest.mark.parametrize("name", ["multi", "pbt", "per_block", "week4"])
def test_an_example_of_todays_fields_is_valid(name: str) -> None:
    assert load_space(SPACES / f"{name}.yaml").parameters
