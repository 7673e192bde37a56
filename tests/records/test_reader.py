"""A record holds what was written, in its order; damage is left out and said, and hurts nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.errors import BadInput
from tuner.records import reader, writer
from tuner.records.reader import FIELDS, NEEDED, Record, read_record
from tuner.records.writer import RunFolder
from tuner.spec.objective import MODES

Tell = Callable[[Record], list[tuple[Any, ...]]]
WHOLE = [
    (1, "run_started", None, None),
    (2, "asked", "001", None),
    (3, "asked", "002", None),
    (4, "row", "001", 1),
    (5, "row", "002", 1),
    (6, "row", "001", 2),
    (7, "row", "002", 2),
    (8, "ended", "001", 2),
]


def append(path: Path, line: Any) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")


def test_everything_that_was_written_is_read_in_its_order(small: Path, told: Tell) -> None:
    record = read_record(small)
    assert told(record) == WHOLE and record.problems == ()
    assert record.run["name"] == "small" and record.space_text == "name: small\n" and record.parameters == ()
    assert record.config("001") == {"seed": 0}


LEFT_OUT: dict[str, list[Any]] = {
    "damaged": ["{", "\x00\x00", "[1]", '{"seq": 9, "event": "a"', "[" * 99999, '{"seq": ' + "9" * 5000 + "}"],
    "missing or wrong": [
        {"event": "started", "trial": "001"},
        {"seq": 9},
        {"seq": "9", "event": "started", "trial": "001"},
        {"seq": True, "event": "started", "trial": "001"},
        {"seq": -1, "event": "started", "trial": "001"},
        {"seq": 9, "event": 5},
        {"seq": 9, "event": "row", "trial": "001", "epoch": 3},
        {"seq": 9, "event": "started", "trial": ["001"]},
        {"seq": 9, "event": "started", "trial": "../.."},
        {"seq": 9, "event": "asked", "trial": "003"},
        {"seq": 9, "event": "asked", "trial": "003", "parameters": {"a": []}},
        {"seq": 9, "event": "asked", "trial": "003", "parameters": {}, "refused": [{"a": []}]},
        {"seq": 9, "event": "asked", "trial": "003", "parameters": {}, "size": {"params": "many"}},
        {"seq": 9, "event": "ended", "trial": "002", "state": "lost", "epoch": 2, "reason": ""},
        {"seq": 9, "event": "ended", "trial": "002", "state": "failed", "epoch": 1e400, "reason": ""},
        {"seq": 9, "event": "learned", "parameters": {}, "state": "finished", "values": [], "curve": {"x": 1},
         "excess": {}},
    ],
    "twice": [
        {"seq": 8, "event": "run_ended", "status": "failed"},
        {"seq": 9, "event": "asked", "trial": "002", "parameters": {}},
    ],
    "not asked for": [{"seq": 9, "event": "started", "trial": "003"}],
    "after its end": [{"seq": 9, "event": "ended", "trial": "001", "state": "interrupted", "epoch": 2, "reason": ""}],
}  # fmt: skip


@pytest.mark.parametrize(("why", "line"), [(why, line) for why, lines in LEFT_OUT.items() for line in lines])
def test_a_line_that_makes_no_sense_is_left_out_and_said_with_its_place(
    small: Path, told: Tell, why: str, line: Any
) -> None:
    append(small / "events.jsonl", line)
    record = read_record(small)
    (problem,) = record.problems
    assert told(record) == WHOLE and why in problem and "1 (events.jsonl:5)" in problem


@pytest.mark.parametrize(
    ("why", "row"),
    [
        ("twice", {"seq": 9, "epoch": 2}),
        ("missing or wrong", {"seq": 9}),
        ("missing or wrong", {"seq": 9, "epoch": 0}),
        ("missing or wrong", {"seq": 9, "epoch": 2.5}),
        ("missing or wrong", {"seq": 9, "epoch": 3, "val_loss": "low"}),
        ("missing or wrong", {"seq": 9, "epoch": 3, "val_loss": float("nan")}),
        ("missing or wrong", {"seq": 9, "epoch": 3, "trial_id": "001"}),
        ("missing or wrong", {"seq": 9, "epoch": 3, "val_class_accuracy": [0.5, "all"]}),
    ],
)
def test_an_epoch_that_makes_no_sense_is_left_out(small: Path, told: Tell, why: str, row: Any) -> None:
    append(small / "trials/002/result.json", row)
    record = read_record(small)
    assert told(record) == WHOLE
    assert record.problems == (f"{record.problems[0].split(':')[0]}: 1 (trials/002/result.json:3)",)
    assert why in record.problems[0]


def test_of_an_epoch_that_was_written_twice_the_first_counts(small: Path) -> None:
    append(small / "trials/002/result.json", {"seq": 9, "epoch": 2, "val_accuracy": 0.9})
    rows = [line.fields for line in read_record(small).lines if (line.event, line.trial) == ("row", "002")]
    assert [row["val_accuracy"] for row in rows] == [0.1, 0.2]


def test_epochs_of_a_trial_that_was_lost_do_not_become_those_of_a_new_one(small: Path, told: Tell) -> None:
    events = (small / "events.jsonl").read_text().splitlines()
    (small / "events.jsonl").write_text("\n".join([events[0], events[1], *events[3:], ""]))
    append(small / "events.jsonl", {"seq": 9, "event": "asked", "trial": "002", "parameters": {}})
    assert told(read_record(small)) == [line for line in WHOLE if line[2] != "002"] + [(9, "asked", "002", None)]


def test_a_trial_that_was_interrupted_goes_on(small: Path, told: Tell) -> None:
    for seq, event in enumerate(("ended", "resumed", "ended"), start=9):
        state = "interrupted" if seq == 9 else "finished"
        line = {"seq": seq, "event": event, "trial": "002", "state": state, "epoch": 2, "reason": ""}
        append(small / "events.jsonl", {"seq": 10, "event": event, "unfinished": ["002"]} if seq == 10 else line)
    record = read_record(small)
    assert [line[0] for line in told(record)[-3:]] == [9, 10, 11] and record.problems == ()


def test_what_a_later_version_adds_is_kept(small: Path) -> None:
    append(small / "events.jsonl", {"seq": 9, "event": "celebrated", "trial": "002", "with": {"cake": [1]}})
    assert read_record(small).lines[-1].fields["with"] == {"cake": [1]}


def test_the_accuracy_of_each_class_comes_back_as_it_was_written(tmp_path: Path) -> None:
    with writer.create(tmp_path, "a") as folder:
        folder.write_run(status="running")
        folder.write_space("", [])
        folder.write_event("asked", trial="001", parameters={})
        folder.start_trial("001", {})
        folder.write_row("001", {"epoch": 1, "val_class_accuracy": [0.25, None, 1.0]})
    record = read_record(tmp_path / "a")
    assert (record.lines[-1].fields["val_class_accuracy"], record.problems) == ([0.25, None, 1.0], ())


def test_every_metric_must_be_a_number() -> None:
    assert set(MODES) <= set(FIELDS) and {name for names in NEEDED.values() for name in names} <= set(FIELDS)


def test_many_damaged_lines_make_one_sentence(small: Path) -> None:
    for _ in range(9):
        append(small / "trials/002/result.json", "?")
    (problem,) = read_record(small).problems
    assert problem.startswith("damaged lines, left out: 9 (trials/002/result.json:3, ") and problem.endswith(
        ", 4 more)"
    )


def deny(path: Path) -> Callable[..., int]:
    real = os.open

    def open_unless(asked: Path, *rest: Any) -> int:
        if asked == path:
            raise PermissionError(13, "Permission denied")
        return real(asked, *rest)

    return open_unless


@pytest.mark.parametrize("name", ["run.json", "space.json", "space.yaml", "events.jsonl", "trials/001/result.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "link", "folder", "pipe", "huge", "forbidden", "binary"])
def test_a_file_that_cannot_be_read_hurts_no_other(
    small: Path, name: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, elsewhere = small / name, small / "elsewhere"
    if damage == "forbidden":  # a mode would not keep root away
        monkeypatch.setattr("os.open", deny(path))
    elif damage == "huge":
        os.truncate(path, 1 << 29)
    else:
        path.rename(elsewhere)
        make: dict[str, Callable[[], object]] = {
            "gone": lambda: None,
            "empty": path.touch,
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "link": lambda: path.symlink_to(elsewhere),
            "binary": lambda: path.write_bytes(b"\xff\n\0{"),
        }
        make[damage]()
    record = read_record(small)
    assert sum(line.trial == "002" for line in record.lines) == (0 if name == "events.jsonl" else 3)
    nothing = damage == "empty" or (damage == "gone" and name.startswith("trials"))
    assert record.problems or nothing or (name, damage) == ("space.yaml", "binary")


def test_links_lead_nowhere(small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (small / "trials/002").rename(outside / "002")
    (small / "trials/002").symlink_to(outside / "002")
    record = read_record(small)
    assert [line.event for line in record.lines if line.trial == "002"] == ["asked"]
    assert record.config("002") is None
    (small / "trials").rename(outside / "trials")
    (small / "trials").symlink_to(outside / "trials")
    assert record.config("001") is None and not any(line.event == "row" for line in read_record(small).lines)


@pytest.mark.parametrize("trial", ["../..", "..", ".", "", "/etc", "001/../001", "a\0b", "\ud800", "999"])
def test_a_trial_of_a_strange_name_has_no_configuration(small: Path, trial: str) -> None:
    (small / "params.json").write_text('{"secret": 1}')
    assert read_record(small).config(trial) is None


def test_what_is_no_run_folder_is_said_with_what_to_do(small: Path) -> None:
    (small / "more/run").mkdir(parents=True)
    (small / "more/run/run.json").touch()
    cases = {
        small / "nowhere": "there is no such folder",
        small / "run.json": "there is no such folder",
        small / "trials/001": "name the run's folder above it",
        small / "trials": "name the run's folder above it",
        small / "more": "holds runs, name one of them: run",
        small / "more/run": "run.json is missing or damaged, and space.yaml is missing",
    }
    for path, words in cases.items():
        with pytest.raises(BadInput, match=words):
            read_record(path)


def test_a_damaged_run_json_is_no_reason_to_give_up(small: Path, told: Tell) -> None:
    (small / "run.json").write_text("{")
    record = read_record(small)
    assert told(record) == WHOLE and record.run == {} and "run.json is missing or damaged" in record.problems[0]
    (small / "space.yaml").unlink()
    with pytest.raises(BadInput):
        read_record(small)


def test_a_later_format_is_said_and_is_not_written_to(small: Path) -> None:
    (small / "run.json").write_text(json.dumps({"format": reader.FORMAT + 1}))
    assert "this version reads" in read_record(small).problems[0]
    with pytest.raises(BadInput, match="later version"):
        RunFolder(small)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_anywhere_are_survived(small: Path, data: st.DataObject) -> None:
    names = ["run.json", "space.yaml", "space.json", "events.jsonl", "trials/001/result.json", "trials/002/params.json"]
    path = small / data.draw(st.sampled_from(names))
    before = path.read_bytes()
    place = data.draw(st.integers(0, len(before)))
    noise = data.draw(st.binary(max_size=9) | st.sampled_from([b"\n", b"}", b'{"seq": 3}\n', b"null\n", b"9" * 400]))
    try:
        path.write_bytes(before[:place] + noise + before[data.draw(st.integers(place, len(before))) :])
        record = read_record(small)
        assert [line.seq for line in record.lines] == sorted({line.seq for line in record.lines})
        record.config("002")
        RunFolder(small).close()
        assert [line.seq for line in read_record(small).lines] == [line.seq for line in record.lines]
    finally:
        path.write_bytes(before)


def test_without_its_events_a_run_has_no_trials(small: Path) -> None:
    (small / "events.jsonl").unlink()
    record = read_record(small)
    assert record.lines == () and "events.jsonl is missing" in record.problems[0]
