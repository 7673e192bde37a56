"""Writes a report again as its run goes on: looks at the times of the files, and reads only where something changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from analysis import style
from analysis.folders.folder import Unreadable
from analysis.results import Results, load

NEWS = (".json", ".jsonl", ".csv", ".txt")
WEIGHTS = "checkpoint_"  # folders that are not looked into: a row of result.json goes with each
AGAIN = 6  # looks without news after which it is read all the same: a run that was killed changes nothing

Stamp = tuple[int, int, int]


def watch(
    path: Path,
    write: Callable[[Results], Path],
    seconds: float = 10,
    *,
    out: Path | None = None,
    read: Callable[[Path], Results] = load,
    sleep: Callable[[float], object] = time.sleep,
    say: Callable[[str], object] = print,
) -> int:
    """Has `write` write the report at once, then each time that something changed, and when the run has ended.

    Looks every `seconds`, at everything but the files directly in `out`, by default report/ in the run, where the
    report goes. Says a line each time that it wrote, and returns how often it did. A folder that cannot be read, as its
    run has only just begun, is tried again with the next change. Ctrl-C ends it quietly: the last report stays.
    """
    out = path / "report" if out is None else out
    seen: Stamp | None = None
    wrote = quiet = 0
    with suppress(KeyboardInterrupt):
        while True:
            now = stamp(path, out)  # before it is read: what comes meanwhile is seen by the next look
            news, seen = now != seen, now
            quiet = 0 if news else quiet + 1
            if news or quiet % AGAIN == 0:
                try:
                    results = read(path)
                except Unreadable as error:
                    if news:
                        say(f"{datetime.now():%H:%M:%S}  not yet: {error}")
                else:
                    going = is_running(results)
                    if news or not going:
                        page = write(results)
                        wrote += 1
                        say(f"{datetime.now():%H:%M:%S}  {_line(results)}  {page}")
                    if not going:
                        break
            sleep(seconds)
    return wrote


def is_running(results: Results) -> bool:
    """Whether more may come, as the run's status says; a run whose process is gone is not running."""
    return results.run.get("status") == "running"


def stamp(path: Path, out: Path | None = None) -> Stamp:
    """How many files that runs write there are below `path`, when the last was written (ns), and their bytes in all.

    10,000 trials take 0.2 s. Files directly in `out` do not count; links are not followed.
    """
    count = newest = size = 0
    pending = [str(path)]
    while pending:
        folder = pending.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            ours = out is not None and Path(folder) == out
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith(WEIGHTS):
                        pending.append(entry.path)
                elif entry.name.endswith(NEWS) and not ours:
                    with suppress(OSError):  # replaced just now
                        about = entry.stat(follow_symlinks=False)
                        count, size, newest = count + 1, size + about.st_size, max(newest, about.st_mtime_ns)
    return count, newest, size


def _line(results: Results) -> str:
    """Trials, epochs, and the best so far."""
    metric, best = style.metric(results), results.best()
    text = f"{len(results.trials):,} trials, {int(results.trials['epochs'].sum()):,} epochs"
    if best is None:
        return text
    return f"{text}, best {metric.text(results.trials[metric.name].to_dict()[best])} (trial {best})"
