"""The JSON Schema that editors use: in step with the classes, open to distributions, closed to mistakes."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tuner.spec.edit import READY_MADE, ready_made
from tuner.spec.schema import schema
from tuner.spec.space_file import plain, read

VALID = [path for _, path, _ in ready_made()] + [
    Path(__file__).parent / f"spaces/{n}.yaml" for n in ("multi", "pbt", "per_block", "week4")
]
HEAD = "name: test\ndata: {dataset: digits}\n"


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft7Validator.check_schema(schema())
    return jsonschema.Draft7Validator(schema())


def load(text: str) -> Any:
    return plain(read(text, "f")[0])


def test_the_file_is_in_step() -> None:
    written = json.loads((READY_MADE / "schema.json").read_text())
    assert written == json.loads(json.dumps(schema())), "run: python -m tuner.spec.schema"


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_valid_spaces_validate(path: Path, validator: Any) -> None:
    assert not list(validator.iter_errors(load(path.read_text())))


@pytest.mark.parametrize(
    "text",
    [
        "model: cnn\ntrain: {optimizer: sgd}",
        "train: {optimizer: {choice: [adam, sgd]}}",
        "train: {optimizer: {choice: {adam: , fast: {name: sgd, lr: {choice: {a: 0.1, b: {uniform: [0.1, 1]}}}}}}}",
        "model: {choice: {small: {name: cnn, depth: 1}, big: {name: cnn, depth: {logint: [1, 4]}}}}",
        "train: {schedule: {name: onecycle, final_lr: {same_as: train.optimizer.lr}}}",
        "model: {name: cnn, head: {choice: {a: {hidden: []}, b: {hidden: [{int: [8, 64, 8]}]}}}}",
    ],
)
def test_the_grammar_is_open(text: str, validator: Any) -> None:
    assert not list(validator.iter_errors(load(HEAD + text)))


@pytest.mark.parametrize(
    "text",
    [
        "model: {name: cnn, dept: 3}",
        "model: {name: cnn, depth: {uniform: [1, 3]}}",
        "model: {name: cnn, dropout: {uniform: [0, 2]}}",
        "model: {name: cnn, depth: {choice: [0]}}",
        "model: {name: cnn, depth: {randint: [1, 3]}}",
        "train: {optimizer: adm}",
        "seed: {choice: [1, 2]}",
        "search: {metric: val_acc}",
        "search: {metric: {val_acc: max}}",
        "search: {metric: {val_accuracy: maxi}}",
        "search: {scheduler: {name: pbt, evry: 2}}",
        "search: {trials: 0}",
    ],
)
def test_mistakes_are_closed(text: str, validator: Any) -> None:
    assert list(validator.iter_errors(load(HEAD + text)))
