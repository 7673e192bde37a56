"""--set in the user's text, and the ready-made spaces."""

import re
from pathlib import Path

import pytest

from tuner.errors import BadInput
from tuner.spec.edit import READY_MADE, copy_space, ready_made, set_values
from tuner.spec.space import load_space, parse_space

TEXT = """\
# what this is
name: "test"

data: {dataset: digits}   # images
model: {name: cnn, width: &w {choice: [16, 32]}, convs: {choice: [1, 2]}}
train:
    # which step
    optimizer:
        choice:
            adam: {lr: {loguniform: [1e-4, 1e-2]}}   # the usual
            sgd: {lr: {loguniform: [1.0e-3, 1.0e-1]}}
    batch_size: *w
search:
    start_from:
      - {model.width: 16}
"""


def test_comments_quotes_numbers_and_layout_stay() -> None:
    changed = set_values(TEXT, ["search.trials=5", "model.convs=2", "train.optimizer[adam].betas=[0.8, 0.9]"])
    expected = TEXT.replace("{choice: [1, 2]}", "{choice: [2]}")
    expected = expected.replace("1e-2]}}   # the", "1e-2]}, betas: [0.8, 0.9]} # the")
    assert changed.split() == (expected + "    trials: 5\n").split()
    assert [line[:8] for line in changed.splitlines()[:-1]] == [line[:8] for line in TEXT.splitlines()]


def test_a_mapping_of_metrics_stays() -> None:
    text = TEXT.replace("search:", "search:\n    metric: {val_accuracy: max, params: min}   # both")
    changed = set_values(text, ["search.trials=5", "search.metric.latency_ms=min"])
    assert "    metric: {val_accuracy: max, params: min, latency_ms: min} # both\n" in changed


def test_a_label_keeps_one_option() -> None:
    changed = set_values(TEXT, ["train.optimizer=sgd"])
    assert changed == TEXT.replace("            adam: {lr: {loguniform: [1e-4, 1e-2]}}   # the usual\n", "")


@pytest.mark.parametrize("one", ["model.width=16", "train.batch_size=16", "train.batch_size={choice: [16, 8]}"])
def test_a_change_reaches_one_place_of_an_alias(one: str) -> None:
    changed = parse_space(set_values(TEXT, [one]), "f")
    untouched = "train.batch_size" if "model" in one else "model.width"
    assert changed.to_json() == parse_space(TEXT, "f", [one]).to_json()
    assert next(p for p in changed.parameters if p.name == untouched).distribution.values() == (16, 32)


def test_a_change_in_merged_text_stays_in_its_place() -> None:
    text = "name: t\ndata: {dataset: digits}\nmodel:\n  choice:\n"
    text += "    a: &a {name: cnn, width: {choice: [8, 16]}}\n    b: {<<: *a, convs: 2}\n"
    changed = parse_space(set_values(text, ["model[b].width=16"]), "f")
    assert [p.distribution.values() for p in changed.parameters] == [("a", "b"), (8, 16), (16,)]


@pytest.mark.parametrize(
    "sets",
    [
        ["train.optimizer=adam"],
        ["train.schedule=onecycle", "train.schedule.warmup=0.1"],
        ["train.optimizer[sgd]={name: sgd, lr: 0.1}"],
        ["search.sampler.startup_trials=3"],
        ["search.start_from=[]", "name=b"],
        ["search.start_from=[]", "model=cnn", "model.depth={int: [1, 2]}"],
    ],
)
def test_the_text_says_what_was_checked(sets: list[str]) -> None:
    space = parse_space(TEXT.replace("search:", "search:\n    sampler: tpe"), "f", sets)
    again = parse_space(space.text, "f")
    assert again.fixed == space.fixed
    assert again.to_json() == space.to_json()


def test_without_changes_the_text_is_the_same_bytes() -> None:
    assert set_values(TEXT, []) == TEXT
    assert parse_space(TEXT, "f").text == TEXT


def test_a_malformed_change_is_refused() -> None:
    with pytest.raises(BadInput, match="--set 1: 'x': write NAME=VALUE"):
        set_values(TEXT, ["x"])


FIRST = ("cifar10_small_subset", "digits", "shapes")


@pytest.mark.parametrize(("name", "path", "about"), ready_made())
def test_a_ready_made_space_is_valid_and_says_what_it_is(name: str, path: Path, about: str) -> None:
    assert load_space(path).parameters
    assert about[0].isupper()
    assert len(about) <= 120
    lines = [line for line in path.read_text().splitlines() if ":" in line and not line.lstrip().startswith("#")]
    bare = [line for line in lines if "#" not in line and not line.rstrip().endswith(":")]
    if name in FIRST:  # those that one begins with say what each line does
        assert not [line for line in bare if not line.lstrip().startswith(("name:", "adam:", "sgd:"))]


def test_the_ready_made_spaces_are_those_of_the_readme() -> None:
    readme = (ready_made()[0][1].parent / "README.md").read_text()
    assert {f"`{name}.yaml`" for name, _, _ in ready_made()} == set(re.findall(r"^\| (`\w+\.yaml`)", readme, re.M))


def test_a_copy_names_its_schema_and_is_the_same_space(tmp_path: Path) -> None:
    made = copy_space("digits", tmp_path)
    assert made == tmp_path / "digits.yaml"
    first, _, rest = made.read_text().partition("\n")
    schema = first.partition("$schema=")[2]
    assert schema.startswith("file://")
    assert Path(schema.removeprefix("file://")).is_file()
    original = next(path for name, path, _ in ready_made() if name == "digits")
    assert rest == original.read_text()
    assert load_space(made).to_json() == load_space(original).to_json()


def test_a_copy_overwrites_nothing_and_knows_the_nearest_name(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    target.write_text("mine")
    with pytest.raises(BadInput, match="exists"):
        copy_space("digits.yaml", target)
    assert target.read_text() == "mine"
    with pytest.raises(BadInput, match="no such space: digit; did you mean digits"):
        copy_space("digit", tmp_path / "new.yaml")


def readme_examples() -> list[str]:
    text = (READY_MADE / "README.md").read_text()
    return [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]


@pytest.mark.parametrize("text", readme_examples())
def test_the_examples_of_the_readme_are_valid(text: str) -> None:
    optimizer = "train: {optimizer: {choice: {adam: , sgd: {lr: {uniform: [0.01, 0.1]}}}}}\n"
    given = {line.partition(":")[0] for line in text.splitlines()}
    lacking = [s for s in ("name: t\n", "data: {dataset: digits}\n", optimizer) if s.partition(":")[0] not in given]
    assert parse_space("".join(lacking) + text, "f")
