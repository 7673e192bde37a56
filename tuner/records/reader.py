"""Record: a run folder read back, every line in the order in which it was written; damage is left out and said.

Only the standard library: a resume and `hypertune status` read 20,000 lines before anything heavy is imported.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.errors import BadInput

FORMAT = 1
"""Of run.json; raised when a reader of run folders must know."""

LARGEST = {"result.json": 256 << 20, "events.jsonl": 256 << 20}
"""Bytes of a file that are read: 400,000 lines; 16 MiB of every other file. A larger one is none of ours."""

SHOWN = 5
"""Places that a problem names; the rest is counted."""

STATES = ("finished", "stopped", "diverged", "failed", "out_of_memory", "interrupted")


@dataclass(frozen=True)
class Line:
    """One line of events.jsonl, or with the event `row` one of a trial's result.json; `fields` is all of it.

    `trial` is the trial of this run that it is about; None for `learned`, which is about one of another run.
    """

    seq: int
    event: str
    trial: str | None
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """A run folder as read. `lines` are in the order of `seq`; `problems` are sentences about what was left out.

    Of the lines it holds: each `seq` once; one `asked` a trial, before everything else about it; each epoch of a trial
    once; nothing about a trial after an end that is final (every state but interrupted).
    """

    path: Path
    run: Mapping[str, Any]
    space_text: str
    parameters: tuple[Mapping[str, Any], ...]
    lines: tuple[Line, ...]
    problems: tuple[str, ...]

    def config(self, trial: str) -> Mapping[str, Any] | None:
        """A trial's params.json; None where it is missing or damaged."""
        folder = self.path / "trials" / trial
        if not _is_id(trial) or (self.path / "trials").is_symlink() or folder.is_symlink():
            return None
        return parse(_read(folder / "params.json")[0])


def read_record(path: Path) -> Record:
    """Read a run folder: running, ended, killed, of an older version or damaged. Follows no link in it, writes nothing.

    Raises:
        BadInput: it is no run folder; the text says what was found and what to do.
    """
    problems = _Problems()
    run = problems.json(path, "run.json")
    if not isinstance(run, dict):
        if not (path / "space.yaml").is_file():
            raise BadInput(_no_run(path))
        problems.say("run.json is missing or damaged: what the run was is not known")
        run = {}
    elif run.get("format", FORMAT) != FORMAT:
        problems.say(f"run.json has format {run['format']}, this version reads {FORMAT}: some may be misread")
    space = problems.read(path, "space.yaml")
    if space is None:
        problems.say("space.yaml is missing: what was searched is known from space.json only")
    parameters = problems.json(path, "space.json")
    if not isinstance(parameters, list) or not all(isinstance(entry, dict) for entry in parameters):
        problems.say("space.json is missing or damaged")
        parameters = []
    # Rows before events: a trial that is asked for meanwhile has no row yet that would seem to come from nowhere.
    found = [
        entry for trial in trial_names(path) for entry in _lines(path, f"trials/{trial}/result.json", problems, trial)
    ]
    if found and not os.path.lexists(path / "events.jsonl"):
        problems.say("events.jsonl is missing: which trials there were is not known")
    found += _lines(path, "events.jsonl", problems)
    return Record(
        path=path,
        run=run,
        space_text=(space or b"").decode(errors="replace"),
        parameters=tuple(parameters),
        lines=tuple(_sift(found, problems)),
        problems=problems.sentences(),
    )


def trial_names(path: Path) -> list[str]:
    """Names of the trials' folders, sorted; links are left out."""
    try:
        if not stat.S_ISDIR(os.lstat(path / "trials").st_mode):
            return []
        with os.scandir(path / "trials") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def parse(line: bytes | None) -> dict[str, Any] | None:
    """The object of a line; None where it is none."""
    try:
        value = json.loads((line or b"").decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# ---------------------------------------------------------------- which lines count


@dataclass(frozen=True)
class _Found:
    """A line and where it is."""

    place: str
    number: int
    line: Line


def _lines(path: Path, name: str, problems: _Problems, trial: str | None = None) -> Iterator[_Found]:
    """The lines of one file that are as they must be."""
    data = problems.read(path, name)
    *whole, torn = (data or b"").split(b"\n")
    for number, text in enumerate(whole, start=1):
        fields = parse(text)
        if fields is None:
            problems.count("damaged lines, left out", name, number)
        elif trial is not None:
            if _sound(fields, ("epoch",)) and fields["epoch"] > 0 and fields.get("trial_id", trial) == trial:
                yield _Found(name, number, Line(fields["seq"], "row", trial, fields))
            else:
                problems.count("lines with missing or wrong fields, left out", name, number)
        else:
            event = fields.get("event")
            if isinstance(event, str) and event != "row" and _sound(fields, NEEDED.get(event, ())):
                about = None if event == "learned" else fields.get("trial")
                yield _Found(name, number, Line(fields["seq"], event, about, fields))
            else:
                problems.count("lines with missing or wrong fields, left out", name, number)
    if torn:  # the writer cuts it too: what does not end in a newline was never reported as written
        problems.count("torn last lines, left out", name, len(whole) + 1)


def _sift(found: list[_Found], problems: _Problems) -> Iterator[Line]:
    """In order of `seq`, without what does not fit what came before."""
    asked: set[str] = set()
    over: set[str] = set()
    epochs: set[tuple[str, int]] = set()
    last = -1
    for entry in sorted(found, key=lambda entry: entry.line.seq):
        line, what = entry.line, ""
        again = (line.trial or "", line.fields["epoch"]) if line.event == "row" else None
        if line.seq == last or (line.event == "asked" and line.trial in asked) or again in epochs:
            what = "lines written twice, left out"
        elif line.trial is not None and line.event != "asked" and line.trial not in asked:
            what = "lines about a trial that was not asked for, left out"
        elif line.trial in over:
            what = "lines about a trial after its end, left out"
        if what:
            problems.count(what, entry.place, entry.number)
            continue
        last = line.seq
        if line.event == "asked":
            asked.add(str(line.trial))
        elif again:
            epochs.add(again)
        elif line.event == "ended" and line.fields["state"] != "interrupted":
            over.add(str(line.trial))
        yield line


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_id(value: Any) -> bool:
    """A name that is safe in a path."""
    return type(value) is str and value.isascii() and value.isalnum() and len(value) <= 64


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e300 < value < 1e300  # not NaN, not infinite, no integer beyond a float


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _are_settings(value: Any) -> bool:
    return type(value) is dict and all(v is None or type(v) in (str, bool) or _is_number(v) for v in value.values())


def _are_numbers(value: Any) -> bool:
    return type(value) is dict and all(map(_is_number, value.values()))


def _is_curve(value: Any) -> bool:
    return _are_numbers(value) and all(epoch.isdecimal() and len(epoch) < 10 for epoch in value)


FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("trial", "trial_id", "repeat_of"), _is_id),
    **dict.fromkeys(("reason", "label", "source", "decision", "status"), _is_text),
    **dict.fromkeys(("seq", "epoch", "deaths", "number", "seed", "checkpoint_epoch", "training_iteration"), _is_count),
    **dict.fromkeys(("elapsed", "epoch_seconds", "time_total_s", "images_per_second", "lr"), _is_number),
    **dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1"), _is_number),
    **dict.fromkeys(("val_macro_precision", "val_macro_recall", "val_balanced_accuracy", "val_roc_auc"), _is_number),
    **dict.fromkeys(("val_top3_accuracy", "val_top5_accuracy", "val_ece"), _is_number),
    **dict.fromkeys(("clean_train_accuracy", "raw_val_loss", "raw_val_accuracy"), _is_number),
    **dict.fromkeys(("accuracy_gap", "latency_ms", "peak_memory_mb", "memory_mb", "model_mb"), _is_number),
    **dict.fromkeys(("params", "flops"), _is_number),
    **dict.fromkeys(("to_the_end", "alone"), _is_flag),
    "state": STATES.__contains__,
    "parameters": _are_settings,
    "refused": lambda value: type(value) is list and all(map(_are_settings, value)),
    "size": _are_numbers,
    "excess": _are_numbers,
    "curve": _is_curve,
    "values": lambda value: type(value) is list and all(map(_is_number, value)),
    "val_class_accuracy": lambda value: type(value) is list and all(v is None or _is_number(v) for v in value),
    "unfinished": lambda value: type(value) is list and all(map(_is_text, value)),
    "dropped": lambda value: type(value) is dict and all(map(_is_text, value.values())),
}
"""What a field must be wherever it is; null means that there is none."""

NEEDED: dict[str, tuple[str, ...]] = {
    "asked": ("trial", "parameters"),
    "started": ("trial",),
    "retried": ("trial", "epoch", "deaths", "alone", "reason"),
    "mutated": ("trial", "epoch", "source", "parameters"),
    "ended": ("trial", "state", "epoch", "reason"),
    "run_ended": ("status",),
    "resumed": ("unfinished",),
    "space_changed": ("dropped",),
    "learned": ("parameters", "state", "values", "curve", "excess"),
    "checkpoint": ("trial", "reason"),
    "noted": ("trial", "reason"),
}
"""Fields without which an event says nothing. One that is not here was written by a later version, and is kept."""


def _sound(fields: Mapping[str, Any], needed: tuple[str, ...]) -> bool:
    if fields.get("seq") is None or any(fields.get(name) is None for name in needed):
        return False
    for name, value in fields.items():
        if value is not None and (check := FIELDS.get(name)) is not None and not check(value):
            return False
    return True


# ---------------------------------------------------------------- files


def _read(path: Path) -> tuple[bytes | None, str]:
    """A plain file's bytes, or why there are none; empty where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError) as error:
        return None, "it is a link" if path.is_symlink() else str(getattr(error, "strerror", error))
    about, largest = os.fstat(descriptor), LARGEST.get(path.name, 16 << 20)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        return None, "it is no plain file"
    with os.fdopen(descriptor, "rb") as file:
        if about.st_size > largest:
            return None, f"it has {about.st_size >> 20:,} MiB, more than the {largest >> 20} MiB that are read"
        try:
            return file.read(largest), ""
        except OSError as error:
            return None, str(error.strerror)


@dataclass
class _Problems:
    """What was left out, by kind, so that 10,000 torn files make one sentence."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """Note one sentence as it is."""
        self.found.setdefault(sentence, [])

    def count(self, what: str, name: str, number: int) -> None:
        """Note that `what`, a plural, was met in that line of a file."""
        self.found.setdefault(what, []).append(f"{name}:{number}")

    def read(self, path: Path, name: str) -> bytes | None:
        """A file's bytes; None where it is not there, or cannot be read, which is noted."""
        data, why = _read(path / name)
        if why:
            self.say(f"{name} was left out: {why}")
        return data

    def json(self, path: Path, name: str) -> Any:
        """A JSON file's value; None where there is none or it is damaged."""
        try:
            return json.loads((self.read(path, name) or b"").decode())
        except (ValueError, RecursionError):
            return None

    def sentences(self) -> tuple[str, ...]:
        """One a kind: `damaged lines, left out: 2 (events.jsonl:7, trials/001/result.json:3)`."""
        return tuple(_sentence(what, places) for what, places in self.found.items())


def _sentence(what: str, places: list[str]) -> str:
    if not places:
        return what
    more = [f"{len(places) - SHOWN:,} more"] if len(places) > SHOWN else []
    return f"{what}: {len(places):,} ({', '.join(places[:SHOWN] + more)})"


def _no_run(path: Path) -> str:
    if not path.is_dir():
        return f"{path}: there is no such folder; `hypertune runs` lists the runs in results/"
    if (path / "params.json").is_file() or path.name == "trials":
        return f"{path} is a trial's folder, or that of all trials; name the run's folder above it"
    inside = sorted(found.parent.name for found in path.glob("*/run.json"))
    if inside:
        named = ", ".join(inside[:SHOWN] + ["..."] * (len(inside) > SHOWN))
        return f"{path} holds runs, name one of them: {named}"
    return (
        f"{path} is no run folder: run.json is missing or damaged, and space.yaml is missing; "
        "`hypertune runs` lists the runs in results/"
    )
