"""Segments: a run's lines and files on their way to a store, from a thread of their own, in order.

Object stores cannot append. The lines go up every two seconds, as the object `log/<seq of its first line>.jsonl`, which
is written again with more lines until it is large enough and the next one begins: whenever this process dies there are
whole objects only, and each line once. What the driver's disk has is never behind; the store is, by at most five
seconds while it answers. That is what the loss of the driver's machine can cost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from tuner.errors import HypertuneError, Locked
from tuner.records.claim import Claim
from tuner.records.store import Store

EVERY = 2.0
"""Seconds between two writes to the store, where there is anything to write."""

LARGE = 64 * 2**10
"""Bytes with which an object of the log is closed: 100 lines; a store with old versions keeps each of its states."""

PATIENCE = 300.0
"""Seconds without success after which the run ends rather than go on without its copy."""

MOST = 64 * 2**20
"""Bytes that may wait."""

CLOSING = 10.0
"""Seconds that the end of a run waits for its last lines."""

MANY = 32
"""Trials of which checkpoints go, beyond which all are listed at once instead of each."""

AT_ONCE = 8
"""Requests at a time."""

SAFE = "the run folder on this machine is whole, and what the copy lacks goes up when it is opened again"

Matches = Callable[[str], bool]
"""Whether an object, or a folder of a trial, is meant."""


class Segments:
    """Writes lines, whole files and deletions of a run to its copy. Threads may hand it work at the same time.

    `lines`: the last object of the log that is there, to be written on, and the seq of its first line.
    `note` is called with what a person should know, from this thread or another.
    `start` begins the thread; without it nothing is written but by `turn`.
    """

    def __init__(
        self,
        store: Store,
        claim: Claim,
        *,
        first: int = 0,
        lines: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.note: Callable[[str], None] = lambda text: None
        self._claim = claim
        self._clock = clock
        self._turn = threading.Lock()
        self._state = threading.Condition(threading.RLock())  # a signal handler may write in the middle of a line
        self._first, self._written = (first, lines) if len(lines) < LARGE else (0, b"")
        self._lines: list[tuple[int, bytes]] = []
        self._files: dict[str, bytes] = {}
        self._gone: list[tuple[str, Matches]] = []
        self._size = 0
        self._failing: float | None = None
        self._why = ""
        self._lost: Locked | None = None
        self._over = False
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="copy", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ what is to be written

    def check(self) -> None:
        """See that the copy is kept; said once, after which the folder alone goes on, so that its end can be written.

        Raises:
            Locked: another process writes it.
            HypertuneError: it could not be written for five minutes.
        """
        if self._over:
            return
        why: HypertuneError | None = self._lost
        if self._failing is not None and self._clock() - self._failing >= PATIENCE:
            why = HypertuneError(f"the copy could not be written for five minutes: {self._why}; {SAFE}")
        elif self._size > MOST:
            why = HypertuneError(f"{self.store.url} takes less than this run writes: {MOST >> 20} MiB wait; {SAFE}")
        if why:
            with self._state:
                self._over = True
                self._forget_all()
            raise why

    def add(self, seq: int, data: bytes) -> None:
        """Lines of the log, whole ones, the first of them with this seq."""
        with self._state:
            if not self._over:
                self._lines.append((seq, data))
                self._size += len(data)

    def replace(self, name: str, data: bytes) -> None:
        """A whole file; its last state is the one that goes up."""
        with self._state:
            if not self._over:
                self._size += len(data) - len(self._files.get(name, b""))
                self._files[name] = data

    def forget(self, trial: str, matches: Matches) -> None:
        """Delete those of a trial's checkpoints whose name matches, when the lines before are written."""
        with self._state:
            if not self._over:
                self._gone.append((trial, matches))

    @property
    def waiting(self) -> int:
        """How many lines have not gone up."""
        with self._state:
            return sum(data.count(b"\n") for _, data in self._lines)

    # ------------------------------------------------------------ writing

    def turn(self) -> None:
        """Write all that waits, and give a sign of life; what fails stays, and is tried again the next time."""
        with self._turn:
            if self._over or self._lost:
                return
            try:
                self._claim.beat()
                self._write()
            except Locked as lost:
                self._lost = lost
                self.note(str(lost))
            except HypertuneError as error:
                self._fail(str(error))
            else:
                self._succeed()
        with self._state:
            self._state.notify_all()

    def flush(self, patience: float) -> bool:
        """Write what waits now, for so many seconds at most; whether all of it is written."""
        if self._thread is None:
            self.turn()
        with self._state:
            self._wake.set()
            return self._state.wait_for(lambda: self._done or self._over or self._lost is not None, patience)

    def close(self, patience: float = CLOSING) -> None:
        """Write what waits, let go of the claim and end the thread; says what could not be written."""
        if self._waits_long():
            self.note(f"writing the last lines to {self.store.url}")
        if not self.flush(patience) and (self._lines or self._files):
            self.note(
                f"{self.waiting:,} lines have not gone up to {self.store.url}"
                f"{f': {self._why}' if self._why else ''}; they do when the run is opened again on this machine"
            )
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1.0)
        if not self._over and not self._lost and self._failing is None and self._turn.acquire(timeout=1.0):
            try:
                self._claim.leave()
            except HypertuneError as error:
                self.note(f"{self.store.url} is still marked as being written, for a minute: {error}")
            finally:
                self._turn.release()

    @property
    def _done(self) -> bool:
        return not (self._lines or self._files or self._gone)

    def _waits_long(self) -> bool:
        return self._failing is not None or self._size > LARGE * AT_ONCE

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(EVERY)
            self._wake.clear()
            if not self._closed.is_set():
                self.turn()

    def _write(self) -> None:
        """Files, then lines, then run.json: a trial's settings are there before the line that tells of it, and what
        says that a run has ended comes last. Then what is not needed any more goes.
        """
        with self._state:
            files, lines, gone = dict(self._files), list(self._lines), list(self._gone)
        run = files.pop("run.json", None)
        self._each([(self._put_file, (name, data)) for name, data in files.items()])
        if lines:
            self._put_lines(lines)
        if run is not None:
            self._put_file("run.json", run)
        if len(gone) > MANY:  # a run that is opened again asks for every trial that has ended
            there = _folders(self.store.names("trials"))
            gone_now = [(trial, matches, there.get(trial, set())) for trial, matches in gone]
            self._each([(self._delete, each) for each in gone_now if any(map(each[1], each[2]))])
        else:
            self._each([(self._delete, each) for each in gone])
        with self._state:
            del self._gone[: len(gone)]

    def _each(self, tasks: list[tuple[Callable[..., None], tuple[object, ...]]]) -> None:
        if len(tasks) < 2:
            for do, given in tasks:
                do(*given)
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="copy") as pool:
            for done in [pool.submit(do, *given) for do, given in tasks]:
                done.result()

    def _put_file(self, name: str, data: bytes) -> None:
        self.store.put(name, data)
        with self._state:
            if self._files.get(name) is data:
                del self._files[name]
                self._size -= len(data)

    def _put_lines(self, lines: list[tuple[int, bytes]]) -> None:
        first = self._first if self._written else lines[0][0]
        data = self._written + b"".join(some for _, some in lines)
        self.store.put(segment_name(first), data)
        self._first, self._written = (first, data) if len(data) < LARGE else (0, b"")
        with self._state:
            del self._lines[: len(lines)]
            self._size -= sum(len(some) for _, some in lines)

    def _delete(self, trial: str, matches: Matches, there: set[str] | None = None) -> None:
        if there is None:
            there = _folders(self.store.names(f"trials/{trial}")).get(trial, set())
        for name in sorted(filter(matches, there)):
            self.store.delete_under(f"trials/{trial}/{name}")

    def _fail(self, why: str) -> None:
        self._why = why
        if self._failing is None:
            self._failing = self._clock()
            self.note(f"the copy waits: {why}; it is tried again, and {SAFE}")

    def _succeed(self) -> None:
        if self._failing is not None:
            self.note(f"the copy in {self.store.url} is up to date again")
        self._failing, self._why = None, ""

    def _forget_all(self) -> None:
        self._lines, self._files, self._gone, self._size = [], {}, [], 0


def _folders(names: Iterable[str]) -> dict[str, set[str]]:
    """Trial -> its checkpoints, of the names below trials/."""
    found: dict[str, set[str]] = {}
    for name in names:
        if name.count("/") > 2:
            _, trial, folder, _ = name.split("/", 3)
            found.setdefault(trial, set()).add(folder)
    return found


def segment_name(first: int) -> str:
    """Of the object of the log that begins with this line."""
    return f"log/{first:012d}.jsonl"
