"""Fields in words, and the classes' agreement with the grammar."""

from typing import get_args

import pytest

from tuner.errors import BadInput
from tuner.spec.distributions import WORDS
from tuner.spec.fields import Row, describe
from tuner.spec.objective import METRICS, Metric
from tuner.spec.section import Section, kinds_of, sections_of
from tuner.spec.trial_config import KINDS, SpaceConfig


def classes(cls: type[Section]) -> set[type[Section]]:
    """The class and all that it holds."""
    inner = [c for field in cls.model_fields.values() for c in sections_of(field.annotation)]
    return {cls}.union(*(classes(c) for c in inner))


def test_no_field_is_called_like_a_distribution() -> None:
    assert len(classes(SpaceConfig)) > 10
    assert not {name for cls in classes(SpaceConfig) for name in cls.model_fields} & set(WORDS)


@pytest.mark.parametrize("path", KINDS)
def test_the_kinds_of_a_section_are_those_of_its_field(path: str) -> None:
    *above, last = path.split(".")
    cls: type[Section] = SpaceConfig
    for part in above:
        (cls,) = sections_of(cls.model_fields[part].annotation)
    assert kinds_of(cls.model_fields[last].annotation) == KINDS[path]


def test_every_metric_has_a_direction() -> None:
    assert tuple(METRICS) == get_args(Metric)


def row(path: str) -> Row:
    (found,) = describe(path)
    return found


def test_a_field_is_described_in_words() -> None:
    assert row("train.optimizer.sgd.lr") == Row("lr", "number", "0.05", "above 0", True, "learning rate")
    assert row("model.cnn.norm").allowed == "none, batch, group"
    assert row("model.cnn.width").type == "whole number or list of whole numbers"
    assert row("data.val_fraction").allowed == "above 0, below 1"
    assert row("data.dataset").default == "required"
    assert describe("search")[4].default == "auto"
    assert row("search.metric").allowed.startswith("val_accuracy, val_macro_f1, val_loss, val_balanced_accuracy, ")


def test_what_is_searchable_is_said() -> None:
    searchable = {r.name for r in describe("data") if r.searchable}
    assert searchable == {"augment", "image_size"}
    assert {r.name for r in describe() if r.searchable} == {"model", "train"}


def test_sections_and_kinds_are_listed() -> None:
    assert [r.name for r in describe("train.optimizer")] == [
        "adam",
        "adamw",
        "nadam",
        "sgd",
        "rmsprop",
        "adagrad",
        "muon",
    ]
    assert {r.name for r in describe("data.augment.RandomCrop")} == {"padding", "p"}
    assert all(r.description for r in describe() + describe("model.cnn")[1:] + describe("search") + describe("data"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("modle", "no such field: modle; did you mean model?"),
        ("model.cn", "no such model: cn; did you mean cnn?"),
        ("model.cnn.dept", "no such field of model: dept; did you mean depth?"),
    ],
)
def test_an_unknown_field_names_the_nearest(path: str, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("?", r"\?")):
        describe(path)


def test_the_parts_of_a_list_and_the_users_own_kind_are_listed() -> None:
    assert {row.name for row in describe("model.cnn.blocks")} == {"width", "convs", "dilation", "kernel", "down"}
    assert "module:function" in [row.name for row in describe("model")]
    rows = {row.name: row for row in (*describe("model.cnn"), *describe("data"))}
    assert (rows["blocks"].type, rows["dropout"].type) == ("list of sections or null", "number or section")
    assert rows["arguments"].default == "{}"
