"""`hypertune refine` as a user types it, and the file that it writes: valid, commented, the user's own."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.findings import findings
from analysis.folders.parameters import from_space, plain
from analysis.refinement.refine import Rules, refine
from analysis.results import Results
from tuner.spec.distributions import Choice, Int, LogInt, LogUniform
from tuner.spec.edit import ready_made
from tuner.spec.parameter import Parameter
from tuner.spec.proposal import NextSpace, Proposed, may_be, steps, write_next
from tuner.spec.space import Space, load_space, parse_space

Call = Callable[..., tuple[int, str, str]]

FIXTURES = Path(__file__).parent / "fixtures"
DIGITS = FIXTURES / "hypertune_digits"
TEXT = """\
# the head
name: test
data: {dataset: digits}   # images
model:
  name: cnn
  width: {choice: [16, 32, 64]}   # channels
  dropout: {uniform: [0, 0.4]}
train:
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-4, 1.0e-2]}}   # the usual
      sgd: {lr: {loguniform: [1.0e-3, 0.1]}, momentum: {uniform: [0.8, 0.98]}}
  batch_size: {same_as: model.width}
search: {trials: 20, start_from: [{model.width: 16}]}
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests by formula instead of by shuffles, and no looking for pairs: a second less a search."""
    monkeypatch.setattr("analysis.findings.interactions", lambda results: ())
    monkeypatch.setattr("analysis.effects.MOST", 1)


def write(text: str, *changes: tuple[str, Any], starts: Mapping[str, Any] | None = None) -> NextSpace:
    made = [Proposed(name, "as it was", new, f"because of {name}") for name, new in changes]
    return write_next(parse_space(text, "f"), made, [("run/001", starts)] if starts else [], ["told"], "test-2")


def distributions(space: Space) -> dict[str, Any]:
    return {p.name: p.distribution for p in space.parameters}


# ---------------------------------------------------------------- the command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_the_next_space_and_says_what_to_type(here: Path, call: Call) -> None:
    code, out, _ = call("refine", DIGITS)
    name = load_space(DIGITS / "space.yaml").fixed.name
    written = here / f"{name}-2.yaml"
    assert code == 0 and f"next   hypertune run {name}-2.yaml --warm-start " in out
    assert load_space(written).fixed.name == f"{name}-2"
    assert 1 <= len(load_space(written).starts) <= 3


def test_it_never_overwrites(here: Path, call: Call) -> None:
    (here / "mine.yaml").write_text("mine")
    code, _, err = call("refine", DIGITS, "-o", "mine.yaml")
    assert code == 2 and "exists; give another name" in err and (here / "mine.yaml").read_text() == "mine"
    call("refine", DIGITS)
    call("refine", DIGITS)
    names = sorted(path.stem for path in here.glob("*-[0-9].yaml"))
    assert len(names) == 2 and [load_space(here / f"{name}.yaml").fixed.name for name in names] == names


def test_a_refined_space_counts_on(here: Path, call: Call) -> None:
    call("refine", DIGITS, "-o", "next.yaml")
    shutil.copytree(DIGITS, here / "later")
    shutil.copyfile("next.yaml", here / "later" / "space.yaml")
    code, out, _ = call("refine", here / "later")
    name = load_space(DIGITS / "space.yaml").fixed.name
    assert code == 0 and f"{name}-3.yaml" in out
    assert (here / f"{name}-3.yaml").read_text().count("# refined from") == 1


def test_a_number_in_a_name_is_part_of_it(here: Path, call: Call) -> None:
    shutil.copytree(DIGITS, here / "cifar10-60")
    run = json.loads((DIGITS / "run.json").read_text()) | {"name": "cifar10-60"}
    (here / "cifar10-60" / "run.json").write_text(json.dumps(run))
    space = (
        (DIGITS / "space.yaml")
        .read_text()
        .replace(f"name: {load_space(DIGITS / 'space.yaml').fixed.name}", "name: cifar10-60")
    )
    (here / "cifar10-60" / "space.yaml").write_text(space)
    call("refine", here / "cifar10-60")
    assert (here / "cifar10-60-2.yaml").exists()


def test_other_tools_folders_get_a_table(here: Path, call: Call) -> None:
    code, out, _ = call("refine", FIXTURES / "ray_asha")
    assert code == 0 and "no space file" in out and "trial " in out and not list(here.iterdir())


def test_programs_get_the_same(here: Path, call: Call) -> None:
    code, out, _ = call("refine", DIGITS, "--json", "--top", 1)
    told = json.loads(out)
    assert code == 0 and len(told["starts"]) == 1 == len(load_space(here / told["file"]).starts)
    assert {"notes", "changes", "kept", "command", "left_out", "learned_from"} <= told.keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["nowhere"], "no such folder"), ([DIGITS, "-o", "no/where.yaml"], "cannot be written")],
)
def test_what_cannot_be_is_said(here: Path, call: Call, words: list[object], said: str) -> None:
    code, out, err = call("refine", *words)
    assert code == 2 and said in err and "Traceback" not in out + err


def test_a_broken_space_file_is_said_where_it_breaks(here: Path, call: Call) -> None:
    shutil.copytree(DIGITS, here / "run")
    (here / "run" / "space.yaml").write_text("name: x\ndata: {dataset: digits}\nmodell: cnn\n")
    code, _, err = call("refine", here / "run")
    assert code == 2 and "space.yaml:3:1" in err


# ---------------------------------------------------------------- the file


def test_reasons_stand_above_their_lines_and_the_rest_stays() -> None:
    made = write(
        TEXT, ("model.dropout", {"uniform": [0.1, 0.3]}), ("train.optimizer[adam].lr", {"loguniform": [1e-5, 0.001]})
    )
    lines = made.text.splitlines()
    at = lines.index("  dropout: {uniform: [0.1, 0.3]}")
    assert lines[at - 1] == "  # refined, model.dropout was as it was: because of model.dropout"
    at = next(n for n, line in enumerate(lines) if line.startswith("      adam: {lr: {loguniform: [1.0e-5, 0.001]}}"))
    assert lines[at].endswith("# the usual")
    assert lines[at - 1].startswith("      # refined, train.optimizer[adam].lr was")
    assert lines[:3] == ["# the head", "# refined from test: told", "name: test-2"]
    assert distributions(made.space)["model.dropout"].low == 0.1
    assert [line for line in lines if "channels" in line] == ["  width: {choice: [16, 32, 64]}   # channels"]


def test_fixed_values_and_fewer_options() -> None:
    made = write(TEXT, ("model.width", 32), ("train.optimizer", {"choice": ["adam"]}))
    assert "  width: 32" in made.text and "sgd" not in made.text and "# the usual" in made.text
    assert list(distributions(made.space)) == ["model.dropout", "train.optimizer", "train.optimizer[adam].lr"]
    assert made.space.fixed.train.batch_size == 32  # same_as


def test_more_of_a_row() -> None:
    made = write(TEXT, ("model.width", {"choice": [32, 64, 128]}))
    assert distributions(made.space)["model.width"].labels == (32, 64, 128)


def test_an_option_that_is_a_section_stays_one() -> None:
    text = TEXT.replace("batch_size", "schedule: {choice: [constant, onecycle, cosine]}\n  batch_size")
    for new, left in (("onecycle", ("onecycle",)), ({"choice": ["constant", "cosine"]}, ("constant", "cosine"))):
        made = write(text, ("train.schedule", new))
        assert distributions(made.space)["train.schedule"].labels == left


def test_null_and_lists_are_found_by_their_labels() -> None:
    text = TEXT.replace("batch_size", "ema: {choice: [null, 0.98]}\n  batch_size")
    text = text.replace("  dropout:", "  head: {hidden: {choice: [[], [128], [64, 32]]}}\n  dropout:")
    made = write(text, ("train.ema", "null"), ("model.head.hidden", {"choice": ["128", "64-32"]}))
    assert made.space.fixed.train.ema is None and "train.ema" not in distributions(made.space)
    assert distributions(made.space)["model.head.hidden"].labels == ("128", "64-32")
    made = write(text, starts={"train.ema": "null", "model.head.hidden": "64-32"})
    assert made.space.starts[0].fixed == {"train.ema": None, "model.head.hidden": "64-32"}


def test_starting_points_name_what_is_searched_and_stand_for_the_old_ones() -> None:
    best = {
        "model.width": 32,
        "model.dropout": 0.123456,
        "train.optimizer": "sgd",
        "train.optimizer[sgd].lr": 0.0123456789,
    }
    made = write(TEXT, ("model.width", 32), starts=best)
    assert [start.label for start in made.space.starts] == ["run/001"]
    assert made.space.starts[0].fixed == {
        "model.dropout": 0.1235,
        "train.optimizer": "sgd",
        "train.optimizer[sgd].lr": 0.01235,
    }
    gone = write(TEXT, ("train.optimizer", {"choice": ["adam"]}), starts=best)
    assert gone.space.starts[0].fixed == {"model.width": 32, "model.dropout": 0.1235, "train.optimizer": "adam"}


def test_what_the_file_would_not_take_is_left_out() -> None:
    text = TEXT.replace("width: {choice: [16, 32, 64]}", "depth: {int: [1, 2]}\n  width: [16, {choice: [16, 32]}]")
    text = text.replace("model.width}", "model.width.0}").replace(", start_from: [{model.width: 16}]", "")
    made = write(text, ("model.depth", {"int": [1, 3]}), ("model.dropout", {"uniform": [0, 1.5]}), ("nothing", 3))
    assert set(made.left_out) == {"model.depth", "model.dropout", "nothing"}
    assert distributions(made.space) == distributions(parse_space(text, "f"))


def test_an_alias_costs_no_comments() -> None:
    text = TEXT.replace("{choice: [16, 32, 64]}", "&w {choice: [16, 32, 64]}").replace("{same_as: model.width}", "*w")
    made = write(text, ("model.width", {"choice": [32, 64]}))
    assert "# channels" in made.text
    assert distributions(made.space)["train.batch_size"].labels == (16, 32, 64)


@pytest.mark.parametrize("text", ["a\nb: c", "x # y", "\x85\u2028\u2029 {[", "\ufeff'\"", "&a *b !c %d", "-" * 3])
def test_hostile_reasons_are_comments(text: str) -> None:
    changes = [Proposed("model.dropout", text, {"uniform": [0, 0.3]}, text)]
    made = write_next(parse_space(TEXT, "f"), changes, [(f"l{text}", {"model.width": 32})], [text], "next")
    assert distributions(made.space)["model.dropout"].high == 0.3 and made.space.fixed.name == "next"
    ours = [line for line in made.text.splitlines() if "refined" in line]
    assert all(line.lstrip().startswith("# refined") for line in ours) and len(ours) == 3


def test_hostile_labels_are_found() -> None:
    text = TEXT.replace("adam: {", '"a\\nb: #{c}, é 😀": {name: adam, ')
    name = "train.optimizer[a\nb: #{c}, é 😀]"
    made = write(
        text, (f"{name}.lr", {"loguniform": [1e-3, 1e-2]}), starts={"train.optimizer": name[16:-1], f"{name}.lr": 0.002}
    )
    assert not made.left_out and distributions(made.space)[f"{name}.lr"].low == 1e-3
    assert made.space.starts[0].fixed == {"train.optimizer": name[16:-1], f"{name}.lr": 0.002}


def test_no_comment_gets_into_a_text_of_several_lines() -> None:
    text = TEXT.replace("data: {dataset: digits}   # images\n", "data: {dataset: digits}\n")
    text = text.replace("model:\n  name: cnn\n", 'model: {name: "c\\\n  nn", ').replace(
        "  width: {choice: [16, 32, 64]}   # channels\n", "width: {choice: [16, 32, 64]}, "
    )
    text = text.replace("  dropout: {uniform: [0, 0.4]}\n", "dropout: {uniform: [0, 0.4]}}\n")
    made = write(text, ("model.dropout", {"uniform": [0, 0.3]}))
    assert made.space.fixed.model.name == "cnn" and distributions(made.space)["model.dropout"].high == 0.3
    assert "because of model.dropout" in made.text


# ---------------------------------------------------------------- many searches


def draw(parameter: Parameter, rng: random.Random) -> Any:
    d = parameter.distribution
    if isinstance(d, Choice):
        return rng.choice(d.labels)
    if isinstance(d, LogUniform | LogInt):
        value = math.exp(rng.uniform(math.log(d.low), math.log(d.high)))
        return min(max(round(value), d.low), d.high) if isinstance(d, LogInt) else value
    if d.step or isinstance(d, Int):
        return d.low + rng.randrange(d.count() or 1) * (d.step or 1)
    return rng.uniform(d.low, d.high)


def search(space: Space, seed: int, count: int = 80) -> Results:
    """What random trials of a space would leave, of which a few settings, drawn too, decide the accuracy."""
    rng = random.Random(seed)
    weights = {p.name: rng.choice((0, 0, 0.3, -0.3)) for p in space.parameters}
    rows: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        cells: dict[str, Any] = {}
        chosen: dict[str, Any] = {}
        score = 0.5 + rng.gauss(0, 0.02)
        for p in space.parameters:
            if not all(c.name in chosen and c.holds(chosen[c.name]) for c in p.active_when):
                continue
            value = chosen[p.name] = draw(p, rng)
            cells[p.path] = plain(value)
            d = p.distribution
            at = (
                d.labels.index(value) / max(len(d.labels) - 1, 1)
                if isinstance(d, Choice)
                else (value - d.low) / (d.high - d.low)
            )
            score += weights[p.name] * at
        row = {
            "trial": f"{number:03}", "number": number, "label": None, "state": "finished", "reason": None, "epochs": 1,
            "best_epoch": 1.0, "full_epochs": 1.0, "seconds": 1.0, "started": 0.0, "ended": 1.0, "repeat_of": None,
            "breaks": None, "val_accuracy": score,
        }  # fmt: skip
        rows.append({**row, **cells})
        epochs.append({"trial": row["trial"], "epoch": 1, "val_accuracy": score})
    parameters = tuple(from_space(entry) for entry in space.to_json())
    frame = pd.DataFrame(rows).set_index("trial")
    for one in parameters:  # as results are read
        cell = frame[one.column]
        frame[one.column] = cell.astype(float) if one.ordered else cell.astype(object).where(cell.notna(), np.nan)
    return Results(
        Path("run"), "run", "hypertune", frame, pd.DataFrame(epochs), parameters, "val_accuracy", "max", {}, ()
    )


CASES = [*((path.read_text(), 0) for _, path, _ in ready_made()), *((TEXT, seed) for seed in range(8))]


@pytest.mark.parametrize(
    ("text", "seed"), CASES, ids=[f"{path.stem}" for _, path, _ in ready_made()] + list("abcdefgh")
)
def test_every_proposal_is_a_valid_space(text: str, seed: int) -> None:
    space = parse_space(text, "f")
    results = search(space, seed)
    found = refine(results, findings(results), Rules(steps(space), may_be(space)))
    changes = [Proposed(c.name, c.old, c.new, c.reason) for c in found.changes]
    made = write_next(
        space, changes, [(t, s) for t, s in zip(found.trials, found.starts, strict=True)], found.notes, "n"
    )
    after = distributions(parse_space(made.text, "f"))
    assert not made.left_out
    assert made.text.count("# refined, ") == len(changes) + 1
    for start in made.space.starts:  # what is best lies in the new space, all of it
        trial = results.trials.loc[start.label]
        assert len(start.fixed) == sum(
            p.name in after for p in results.parameters if p.name in found.starts[found.trials.index(str(trial.name))]
        )
    for parameter in space.parameters:
        if parameter.name in found.kept and parameter.name in after:
            assert after[parameter.name].to_optuna_json() == parameter.distribution.to_optuna_json()
    ours = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert [line for line in made.text.splitlines() if line in ours] == ours
