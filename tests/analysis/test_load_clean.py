"""The compiled decoder of clean files gives what line by line gives, or leaves the file to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import analysis
from analysis.folders.lines import Reader

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = sorted(path for path in FIXTURES.iterdir() if path.is_dir() and path.name != "__pycache__")
READ_CLEAN = Reader._read_clean


def assert_both_ways_agree(run: Path) -> int:
    """Loads it either way; how many files the fast one took."""
    taken = 0

    def count(self: Reader, data: bytes, parts: Any) -> Any:
        nonlocal taken
        lines = READ_CLEAN(self, data, parts)
        taken += lines is not None
        return lines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "_read_clean", count)
        fast = analysis.load(run)
        patch.setattr(Reader, "_read_clean", lambda *_: None)
        careful = analysis.load(run)
    for name, value in vars(careful).items():
        if name in ("trials", "epochs", "stretches") or (name == "classes" and value is not None):
            assert_frame_equal(getattr(fast, name), value, check_exact=True)
        else:
            assert getattr(fast, name) == value, name
    return taken


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_on_real_folders(folder: Path) -> None:
    assert assert_both_ways_agree(folder) or folder.name == "ray_asha"  # its metrics are nested


ROW = {"epoch": 1, "seq": 1, "elapsed": 1.5, "val_accuracy": 0.5, "val_loss": 1.0, "decision": "continue", "flag": True,
       "val_class_accuracy": [0.5, None], "reason": None, "time": "now", "trial_id": "001"}  # fmt: skip
DAMAGE: dict[str, Callable[[list[str]], list[str]]] = {
    "none": lambda lines: lines,
    "torn": lambda lines: [*lines[:-1], lines[-1][:20]],
    "a line on two": lambda lines: [lines[0].replace(", ", ",\n", 1), *lines[1:]],
    "two on one": lambda lines: [lines[0] + lines[1], *lines[2:]],
    "two on one and one on two": lambda lines: [lines[0] + lines[1], lines[2].replace(", ", ",\n", 1)],
    "a blank one": lambda lines: [lines[0], "", *lines[1:]],
    "spaces": lambda lines: [f" {line} " for line in lines],
    "the other order": lambda lines: lines[::-1],
    "twice": lambda lines: [*lines, *lines[-1:]],
    "one missing": lambda lines: [lines[0], lines[2]],
    "carriage returns": lambda lines: [line + "\r" for line in lines],
    "no objects": lambda lines: [*lines, "3", "[]"],
}
VALUES = (
    *("NaN", "Infinity", "1e400", "1e-400", "-0", "123456789012345678901234567890", "9" * 400, "18446744073709551616"),
    *("9007199254740993", '"text"', '"\\ud800"', '"\\u00e9"', '"é"', "true", "[1, 2]", '{"a": {"b": 1}}', "null"),
    *("01", "."),
)  # fmt: skip


def write(tmp_path: Path, trials: list[list[str]]) -> Path:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    for number, lines in enumerate(trials, 1):
        place = tmp_path / "run" / "trials" / f"{number:03}"
        place.mkdir(parents=True)
        (place / "params.json").write_text("{}")
        (place / "result.json").write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")
    run = {"objectives": [{"metric": "val_accuracy", "mode": "max"}], "status": "finished"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(run | {"constraints": ["val_loss <= 2"]}))
    return tmp_path / "run"


def rows(count: int = 3, **changes: Any) -> list[str]:
    return [json.dumps(ROW | {"epoch": n, "seq": n} | changes) for n in range(1, count + 1)]


@pytest.mark.parametrize("damage", DAMAGE)
def test_on_damaged_lines(tmp_path: Path, damage: str) -> None:
    taken = assert_both_ways_agree(write(tmp_path, [rows(), DAMAGE[damage](rows()), rows()]))
    assert taken == (3 if damage in ("none", "spaces") else 2) or damage == "spaces"


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["val_accuracy", "epoch", "seq", "decision", "time", "val_class_accuracy", "new"])
def test_on_odd_values(tmp_path: Path, name: str, value: str) -> None:
    odd = [rows()[0], *(json.dumps({**ROW, "epoch": n, "seq": n, name: "@"}).replace('"@"', value) for n in (2, 3))]
    assert_both_ways_agree(write(tmp_path, [rows(), odd, odd[1:], rows(5)]))


def test_on_bytes_that_are_no_text_in_a_value_that_is_passed_over(tmp_path: Path) -> None:
    run = write(tmp_path, [rows(), rows()])
    file = run / "trials" / "001" / "result.json"
    file.write_bytes(file.read_bytes().replace(b'"now"', b'"\xc3("', 1))
    assert assert_both_ways_agree(run) == 1


def test_trials_that_report_other_things_are_fast_too(tmp_path: Path) -> None:
    assert assert_both_ways_agree(write(tmp_path, [rows(), rows(extra=1), rows(other="x"), rows()])) == 4


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.floats(), max_size=2)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.dictionaries(st.sampled_from([*ROW, "a", "b/c", "trial", "_type"]), CELLS), max_size=4), max_size=3
    )
)
def test_on_anything(tmp_path: Path, trials: list[list[dict[str, Any]]]) -> None:
    made = [[json.dumps(ROW | {"epoch": n, "seq": n} | row) for n, row in enumerate(trial, 1)] for trial in trials]
    assert_both_ways_agree(write(tmp_path, [*made, rows()]))
