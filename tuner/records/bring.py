"""Bring: a run folder rebuilt from its copy in a store, and which of the two knows more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from tuner.errors import BadInput, Locked
from tuner.records import holder
from tuner.records.reader import FORMAT, parse, trial_names
from tuner.records.store import Store
from tuner.records.writer import write_whole

LOG = re.compile(r"log/(\d{12,})\.jsonl")
WHOLE = re.compile(r"run\.json|space\.yaml|space\.json|trials/[A-Za-z0-9]{1,64}/(params\.json|error\.txt)")
STATE = "state.json"
"""Without it a checkpoint is none."""

WEIGHTS = re.compile(
    r"trials/[A-Za-z0-9]{1,64}/(checkpoint_(best|\d{6,})|given_\d{6,})/(state\.json|weights\.safetensors)"
)
"""The names that are ours: a store holds what others put there too, and a name must not lead out of the folder."""

ID = re.compile(r"[A-Za-z0-9]{1,64}")

AT_ONCE = 16
"""Requests at a time."""

LARGEST = 16 << 20
"""Bytes of an object of the log, or of a whole file: a larger one is none of ours."""

SHOWN = 5
"""Places that a problem names; the rest is counted."""

Tell = Callable[[str, int, int], None]
"""Told what is done, how much of it, of how much."""

Standing = Literal["none", "here", "there"]


@dataclass(frozen=True)
class Log:
    """The lines of a run by `seq`, each as the bytes that were written, and what was wrong with them."""

    lines: Mapping[int, bytes]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tail:
    """The last object of a copy's log, as it is, and the `seq` that its name says; empty where there is no log."""

    first: int = 0
    data: bytes = b""

    @property
    def lines(self) -> dict[int, bytes]:
        """Its whole lines."""
        return dict(_split(self.data))

    @property
    def sound(self) -> bool:
        """Whether it is as it was written, so that it can be written on."""
        numbers = [seq for seq, _ in _split(self.data)]
        return self.data.endswith(b"\n") and len(numbers) == self.data.count(b"\n") and numbers[0] == self.first

    @property
    def highest(self) -> int:
        """No line of the copy has a greater `seq`."""
        torn = not self.data.endswith(b"\n")
        return max(self.first + self.data.count(b"\n") - 1 + torn, *self.lines, 0) if self.first else 0

    def is_of(self, here: Mapping[int, bytes]) -> bool:
        """Whether its lines are among these."""
        return all(here.get(seq) == line for seq, line in self.lines.items())


def read_tail(store: Store) -> Tail:
    """The end of a copy's log."""
    segments = _segments(store.names("log"))
    return Tail(_first(segments[-1]), store.get(segments[-1]) or b"") if segments else Tail()


def standing(store: Store, path: Path) -> Standing:
    """Where the run is known best: `none`: the store has none; `here`: the folder has every line that the copy ends
    with; `there`: the copy has lines that the folder has not, so it is to be brought before the run goes on.
    """
    tail = read_tail(store)
    if not tail.first and store.get("run.json") is None:
        return "none"
    begun = (path / "run.json").exists()  # bringing it was cut short, where it is not
    return "here" if begun and tail.is_of(local_log(path)) else "there"


def local_log(path: Path) -> dict[int, bytes]:
    """The lines of a folder; torn ones are none."""
    found: dict[int, bytes] = {}
    for name in ("events.jsonl", *(f"trials/{trial}/result.json" for trial in trial_names(path))):
        file = path / name
        if file.is_file() and not file.is_symlink():
            found.update(_split(file.read_bytes()))
    return found


def bring(store: Store, into: Path, *, weights: bool = False, tell: Tell | None = None) -> tuple[str, ...]:
    """Rebuild a run folder from its copy; sentences about what is missing or damaged there.

    A folder that is there is brought to the state of the copy: lines that the copy has not are left out, with the
    weights of their trials, and counted. `weights`: those that were kept too, and what unfinished trials go on from,
    where they are not in the folder.

    Raises:
        BadInput: there is no run; it was written by a later version; or what is in `into` is no run.
        Locked: another process has the folder open.
        StoreError: the store refused, or cannot be reached.
    """
    names = store.names()
    if "run.json" not in names and not _segments(names):
        raise BadInput(f"{store.url}: there is no run; name the folder that holds its run.json")
    run = store.get("run.json")
    if (version := (parse(run) or {}).get("format", FORMAT)) != FORMAT:
        raise BadInput(f"{store.url} was written by another version of hypertune (format {version}, here {FORMAT})")
    if into.exists() and any(into.iterdir()) and not any((into / n).exists() for n in ("run.lock", "space.yaml")):
        raise BadInput(f"{into} holds something else; choose another folder with --out")
    log = _fetch_log(store, _segments(names), tell)
    into.mkdir(parents=True, exist_ok=True)
    lock = FileLock(into / "run.lock")
    try:
        lock.acquire(timeout=0.5, poll_interval=0.02)
    except Timeout:
        raise Locked(f"{into} is being written by another process ({holder.read_holder(into) or 'unknown'})") from None
    try:
        (into / "run.json").unlink(missing_ok=True)  # until all is there it is no run: the next one brings it again
        problems = [*log.problems, *_leave_out(into, log), *_write_lines(into, log)]
        problems += _fetch_files(store, into, names, tell)
        if weights:
            problems += bring_weights(store, into, names=names, tell=tell)
        if run is None:
            problems.append("run.json is missing in the copy: what the run was is not known")
        else:
            write_whole(into / "run.json", run)
    finally:
        lock.release()
    return tuple(problems)


def bring_weights(
    store: Store, into: Path, *, names: Iterable[str] | None = None, tell: Tell | None = None
) -> list[str]:
    """Fetch the checkpoints that the folder has not as the copy has them; sentences about those that did not come."""
    found = [name for name in (store.names("trials") if names is None else names) if WEIGHTS.fullmatch(name)]
    folders: dict[str, list[str]] = {}
    for name in found:
        folders.setdefault(name.rpartition("/")[0], []).append(name.rpartition("/")[2])

    def fetch(name: str) -> bool:
        here = into / name / STATE
        if here.is_file() and store.get(f"{name}/{STATE}") == here.read_bytes():
            return True
        return fetch_folder(store, name, folders[name], into / name)

    whole = [name for name in folders if STATE in folders[name]]
    lost = _each("bringing weights", whole, fetch, tell)
    return [_count("weights that are gone from the copy", lost)] if lost else []


def fetch_folder(store: Store, name: str, files: Sequence[str], into: Path) -> bool:
    """Fetch these objects of a folder as the folder `into`, whole or not at all; whether all were there."""
    new = into.with_name(f".{into.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        if not files or not all(store.download(f"{name}/{file}", new / file) for file in files):
            return False
        shutil.rmtree(into, ignore_errors=True)
        new.rename(into)
        return True
    finally:
        shutil.rmtree(new, ignore_errors=True)


# ---------------------------------------------------------------- the log


def _segments(names: Iterable[str]) -> list[str]:
    return sorted(filter(LOG.fullmatch, names), key=_first)


def _first(name: str) -> int:
    return int(name.removeprefix("log/").removesuffix(".jsonl"))


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole lines that have a `seq`."""
    for line in data.split(b"\n")[:-1]:
        fields = parse(line)
        if fields and type(fields.get("seq")) is int and 0 < fields["seq"] < 2**53:
            yield fields["seq"], line + b"\n"


def _fetch_log(store: Store, segments: Sequence[str], tell: Tell | None) -> Log:
    data: dict[str, bytes | None] = {}

    def fetch(name: str) -> bool:
        data[name] = store.get(name)
        return data[name] is not None

    problems = []
    if lost := _each("bringing the log", segments, fetch, tell):
        problems.append(_count("objects of the log that are gone from the copy", lost))
    lines: dict[int, bytes] = {}
    damaged, twice = [], []
    for name in segments:
        text = data[name] or b""
        split = list(_split(text))
        if len(split) != text.count(b"\n") or not text.endswith(b"\n") or (split and split[0][0] != _first(name)):
            damaged.append(name)
        for seq, line in split:
            if lines.setdefault(seq, line) != line:
                twice.append(name)
    if damaged:
        problems.append(_count("damaged objects of the log, of which the whole lines were taken", damaged))
    if twice:
        problems.append(_count("objects of the log that tell a line in two ways, of which the first was taken", twice))
    gaps = [f"{a + 1} to {b - 1}" for a, b in zip([0, *sorted(lines)], sorted(lines), strict=False) if b > a + 1]
    if gaps:
        problems.append(_count("gaps in the log: lines that the copy has not", gaps))
    return Log(dict(sorted(lines.items())), tuple(problems))


def _leave_out(into: Path, log: Log) -> list[str]:
    """Delete what a folder has and the copy has not: lines, and the weights of the trials that they are about."""
    more = {seq: line for seq, line in local_log(into).items() if log.lines.get(seq) != line}
    trials = {str(trial) for line in more.values() if (trial := _trial(parse(line) or {}))}
    for name in trial_names(into):
        (into / "trials" / name / "result.json").unlink(missing_ok=True)
        (into / "trials" / name / "error.txt").unlink(missing_ok=True)
        for each in (into / "trials" / name).iterdir() if name in trials else ():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
    (into / "events.jsonl").unlink(missing_ok=True)
    some = f"{len(more):,} lines" if len(more) > 1 else "1 line"
    return [f"{some} of the folder that was here were left out: the copy goes on without them"] if more else []


def _trial(fields: Mapping[str, Any]) -> str | None:
    trial = fields.get("trial") if "event" in fields else fields.get("trial_id")
    return trial if isinstance(trial, str) and ID.fullmatch(trial) else None


def _write_lines(into: Path, log: Log) -> list[str]:
    files: dict[Path, list[bytes]] = {}
    strange = []
    for seq, line in log.lines.items():
        fields = parse(line) or {}
        if "event" in fields:
            files.setdefault(into / "events.jsonl", []).append(line)
        elif trial := _trial(fields):
            files.setdefault(into / "trials" / trial / "result.json", []).append(line)
        else:
            strange.append(str(seq))
    for path, lines in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, b"".join(lines))
    return [_count("lines of no event and no trial, left out", strange)] if strange else []


# ---------------------------------------------------------------- files


def _fetch_files(store: Store, into: Path, names: Mapping[str, int], tell: Tell | None) -> list[str]:
    found = [name for name in names if WHOLE.fullmatch(name) and name != "run.json"]
    large = [name for name in found if names[name] > LARGEST]

    def fetch(name: str) -> bool:
        return store.download(name, into / name)

    lost = _each("bringing settings", [name for name in found if name not in large], fetch, tell)
    problems = [_count("files that are gone from the copy", lost)] if lost else []
    return problems + ([_count("files that are too large to be ours, left out", large)] if large else [])


def _each(what: str, names: Sequence[str], fetch: Callable[[str], bool], tell: Tell | None) -> list[str]:
    """Fetch all of them, several at a time in their order; those that were not there."""
    lost = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for done, (name, came) in enumerate(zip(names, pool.map(fetch, names), strict=True), start=1):
                lost += [] if came else [name]
                if tell:
                    tell(what, done, len(names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return lost


def _count(what: str, places: Sequence[str]) -> str:
    more = [f"{len(places) - SHOWN:,} more"] if len(places) > SHOWN else []
    return f"{what}: {len(places):,} ({', '.join([*places[:SHOWN], *more])})"
