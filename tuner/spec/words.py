"""Reads one distribution from its mapping; words of other tools are refused with the line to write (grammar R1-R3)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from tuner.spec.distributions import WORDS, Int, LogInt, LogUniform, Plain, Uniform, text_of
from tuner.spec.nearest import nearest
from tuner.spec.space_file import Listing, Node, Place, Scalar, Table, plain

# Words of Ray Tune, Optuna, W&B, KerasTuner and Hyperopt -> ours. Those of the second table leave the upper end out.
_FOREIGN = {
    **dict.fromkeys(
        ("grid_search", "grid", "values", "categorical", "suggest_categorical", "sample", "options"), "choice"
    ),
    **dict.fromkeys(("quniform", "q_uniform", "suggest_float", "suggest_uniform", "float", "range"), "uniform"),
    **dict.fromkeys(
        ("log_uniform", "log_uniform_values", "qloguniform", "suggest_loguniform", "log", "logfloat"), "loguniform"
    ),
    **dict.fromkeys(("suggest_int", "int_uniform", "q_int", "integer", "intuniform"), "int"),
    **dict.fromkeys(("log_int", "log_randint"), "logint"),
}
_UPPER_END_OUT = {"randint": "int", "qrandint": "int", "lograndint": "logint", "qlograndint": "logint"}
_NO_EQUAL = ("normal", "lognormal", "randn", "qrandn", "q_normal", "sample_from", "func")
_LOW = ("min", "low", "lower", "min_value")
_HIGH = ("max", "high", "upper", "max_value")
MAX_STEPS = 2**53  # as many as a float can count


@dataclass(frozen=True)
class Option:
    """One option of a choice: its label, what it stands for, and whether it was written as `label: option`."""

    label: Plain
    node: Node
    place: Place
    named: bool


def word_of(node: Node) -> str | None:
    """Which distribution a mapping is, None when it is none."""
    if isinstance(node, Table) and len(node.entries) == 1:
        (word,) = node.entries
        return word if word in WORDS else None
    return None


def body_of(node: Node) -> Node:
    """What stands after the word of a distribution."""
    assert isinstance(node, Table)
    (body,) = node.entries.values()
    return body


def check_words(table: Table, name: str, fields: Iterable[str]) -> None:
    """Refuse a mapping that looks like a distribution and is none.

    Raises:
        BadInput: a word of ours beside another key, a word misspelt, or a word of another tool.
    """
    for word in table.entries:
        if word in WORDS and len(table.entries) > 1:
            others = ", ".join(key for key in table.entries if key != word)
            raise table.keys[word].error(f"{name}: {word} stands alone in its mapping, not beside {others}")
    fields = list(fields)
    if not table.entries or any(key in fields for key in table.entries):
        return
    first = next(iter(table.entries))
    line = _translation(table)
    if line is not None:
        raise table.keys[first].error(f"{name}: {first} is another tool's word; write {line}")
    close = difflib.get_close_matches(first.lower(), WORDS, n=1, cutoff=0.75)
    if len(table.entries) == 1 and close and not nearest(first, fields):
        raise table.keys[first].error(f"{name}: no such distribution: {first}; did you mean {close[0]}?")


def _translation(table: Table) -> str | None:
    values = plain(table)
    word = next(iter(values))
    if word == "values" or (len(values) > 1 and word in ("distribution", "type", "dist", *_LOW, *_HIGH)):
        return _translated_pairs(values)
    if len(values) > 1:
        return None
    ends = values[word]
    if word in _NO_EQUAL:
        return "one of " + ", ".join(WORDS)
    if word in _UPPER_END_OUT:
        if _numbers(ends):
            low, high = (0, ends[0]) if len(ends) == 1 else ends[:2]
            return f"{{{_UPPER_END_OUT[word]}: [{text_of(low)}, {text_of(high - 1)}]}} (both ends are included here)"
        return f"{{{_UPPER_END_OUT[word]}: [low, high]}} (both ends are included here)"
    if word not in _FOREIGN:
        return None
    ours = _FOREIGN[word]
    if ours == "loguniform" and _numbers(ends):
        ends = ends[:2]
    return f"{{{ours}: {shown(ends)}}}"


def _translated_pairs(values: dict[str, object]) -> str | None:
    if "values" in values:
        return f"{{choice: {shown(values['values'])}}}"
    low = next((values[k] for k in _LOW if k in values), None)
    high = next((values[k] for k in _HIGH if k in values), None)
    if low is None or high is None:
        return None
    log = "log" in str(values.get("distribution", values.get("type", ""))) or values.get("log") is True
    whole = isinstance(low, int) and isinstance(high, int)
    ours = ("log" if log else "") + ("int" if whole else "uniform")
    return f"{{{ours}: [{shown(low)}, {shown(high)}]}}"


def _numbers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, int | float) for v in value)


def shown(value: object) -> str:
    """A value as one would write it in the file, short."""
    text: str
    if isinstance(value, list | tuple):
        text = "[" + ", ".join(shown(v) for v in value) + "]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, str):
        bare = re.fullmatch(r"[^\W\d][\w./+-]*", value) and value.lower() not in ("true", "false", "null")
        text = value if bare else json.dumps(value, ensure_ascii=False)
    elif value is None or isinstance(value, bool | int | float):
        text = text_of(value)
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_range(word: str, body: Node, name: str) -> Uniform | LogUniform | Int | LogInt:
    """The range of `{word: [low, high]}` or `{word: [low, high, step]}`.

    Raises:
        BadInput: the ends are no numbers, out of order, not above 0 on a logarithm, or a step misses the high end.
    """
    whole, log = word in ("int", "logint"), word in ("loguniform", "logint")
    form = "[low, high]" if log else "[low, high] or [low, high, step]"
    if not isinstance(body, Listing) or len(body.items) not in ((2,) if log else (2, 3)):
        if log and isinstance(body, Listing) and len(body.items) == 3:
            raise body.place.error(f"{name}: {word} takes no step; write [low, high]")
        raise body.place.error(f"{name}: {word} takes {form}, got {shown(plain(body))}")
    numbers: list[float] = []
    for item in body.items:
        value = item.value if isinstance(item, Scalar) else None
        kind = int if whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind):
            what = "whole numbers" if whole else "numbers"
            raise item.place.error(f"{name}: {word} takes {what}, got {shown(plain(item))}")
        assert isinstance(value, int | float)
        numbers.append(value if whole else float(value))
    low, high = numbers[:2]
    if low >= high:
        fix = f"write {text_of(low)}" if low == high else f"write [{text_of(high)}, {text_of(low)}]"
        raise body.items[0].place.error(f"{name}: {word} needs low below high, got {shown(plain(body))}; {fix}")
    if log and low <= 0:
        example = "1" if whole else "1.0e-5"
        message = f"{name}: {word} needs a low above 0, got {text_of(low)}; try {example}"
        raise body.items[0].place.error(message)
    step = numbers[2] if len(numbers) == 3 else None
    if step is not None:
        _check_step(name, low, high, step, body)
    if log:
        return LogInt(low, high) if whole else LogUniform(low, high)
    return Int(low, high, step) if whole else Uniform(low, high, step)


def _check_step(name: str, low: float, high: float, step: float, body: Listing) -> None:
    place = body.items[2].place
    if step <= 0:
        raise place.error(f"{name}: a step must be above 0, got {text_of(step)}")
    # Exact, of the decimals as written: 0.1 + 0.2 is 0.3 here. Optuna compares so and moves a high end that is missed.
    first, last, by = (Fraction(str(number)) for number in (low, high, step))
    if (last - first) / by > MAX_STEPS:
        raise place.error(f"{name}: steps of {text_of(step)} are too many to tell apart; leave the step out")
    if (last - first) % by:
        end = first + (last - first) // by * by
        reached = type(high)(end)
        better = f"[{text_of(low)}, {text_of(reached)}, {text_of(step)}]" if end > first else "a smaller step"
        message = f"{name}: steps of {text_of(step)} from {text_of(low)} miss {text_of(high)}; write {better}"
        raise place.error(message)


def read_options(body: Node, name: str) -> Iterator[Option]:
    """The options of `choice: [..]` or `choice: {label: option, ..}`, each with its label.

    Raises:
        BadInput: no options, one without a label, two that are the same, or `1` beside `true`.
    """
    if isinstance(body, Table) and body.entries:
        for key, node in body.entries.items():
            if any(c in key for c in "[]="):
                raise body.keys[key].error(f"{name}: a label holds no [ ] =, got {key}")
            yield Option(key, node, body.keys[key], named=True)
        return
    if not isinstance(body, Listing) or not body.items:
        raise body.place.error(f"{name}: choice takes a list of values, or a mapping label -> option")
    seen: list[Plain] = []
    for item in body.items:
        label = _label(item, name)
        for other in seen:
            if other == label or text_of(other) == text_of(label):
                both = f"{shown(other)} beside {shown(label)}, which counts as the same"
                what = f"{shown(label)} twice" if type(other) is type(label) else both
                raise item.place.error(f"{name}: choice holds {what}; keep one")
        seen.append(label)
        yield Option(label, item, item.place, named=False)


def _label(item: Node, name: str) -> Plain:
    if isinstance(item, Scalar):
        return item.value
    if isinstance(item, Listing):
        if any(isinstance(part, Table) for part in item.items):
            raise item.place.error(f"{name}: an option that is searched itself needs a label: {{my_label: [...]}}")
        return text_of(plain(item))
    kind = item.entries.get("name")
    if isinstance(kind, Scalar) and isinstance(kind.value, str) and word_of(item) is None:
        return kind.value
    raise item.place.error(f"{name}: an option that is a mapping needs a label; write choice: {{my_label: {{...}}}}")
