"""Measure: so many real trials at once on this machine, each in a process of its own, and what they reach together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import tuner
from tuner.errors import BadInput, HypertuneError
from tuner.packing.curve import OUT_OF_MEMORY, TOO_SLOW, Curve, Point, Request
from tuner.packing.mps import serve_mps

SECONDS = 1.5
"""Seconds that each number of trials is measured for."""

LONGEST = 120.0
"""Seconds after which measuring ends, whatever the children do."""

HOST_SHARE = 0.8
"""Of the main memory that trials may fill."""

Progress = Callable[[str, int, int], None]
Answer = dict[str, Any]


class Ended(Exception):
    """A child is gone, with the last line that it wrote; killed: by a signal that it cannot catch."""

    def __init__(self, said: str, *, killed: bool) -> None:
        self.killed = killed
        super().__init__(said)


class Child:
    """A process of `tuner.packing.child`."""

    def __init__(self, environment: dict[str, str], errors: IO[str]) -> None:
        self._errors = errors
        # -P: a user's own tuner/ in the current directory must not hide ours.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tuner.packing.child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
        )  # fmt: skip

    def tell(self, do: str, **more: Any) -> None:
        """Give an order; it is worked on while others are told theirs."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # `hear` will say so

    def hear(self) -> Answer:
        """The answer to the oldest order that is not answered."""
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            code = self.process.wait()
            self._errors.seek(0)
            said = [line.strip() for line in self._errors if line.strip()]
            raise Ended(said[-1] if said else f"a process ended with {code}", killed=code == -signal.SIGKILL)
        answer: Answer = json.loads(line)
        return answer


def measure(request: Request, progress: Progress | None = None) -> Curve:
    """Train the typical configuration so many at once, for each of `request.counts`, until more bring less.

    The processes are started once, begin each measurement together and train for 1.5 s. What runs out of memory is a
    point like any other. progress: hears what is measured, which of how many.

    Raises:
        BadInput: the configuration cannot be trained.
        HypertuneError: the processes do not work.
    """
    with _children(request) as (children, late):
        try:
            largest = _measure_largest(request, children[0]) if request.device == "cuda" else 0
            points: list[Point] = []
            for number, at_once in enumerate(request.counts, 1):
                if progress:
                    progress(
                        f"measuring {at_once} trial{'s' * (at_once > 1)} at once, step", number, len(request.counts)
                    )
                points.append(_measure(request, children[:at_once], points, late))
                if points[-1].failed or _falls(points):
                    break
        except Ended as error:
            said = f"no answer in {LONGEST:g} s" if late.is_set() else str(error)
            raise HypertuneError(
                f"measuring how many trials share this machine does not work: {said}; "
                "numbers for resources.cpu and resources.gpu go without it"
            ) from error
    return Curve(tuple(points), largest)


def _measure(request: Request, children: Sequence[Child], before: Sequence[Point], late: threading.Event) -> Point:
    threads = max(1, request.cores // len(children))
    nothing = Point(len(children), threads, failed=OUT_OF_MEMORY)
    if before and before[-1].host * len(children) > HOST_SHARE * request.memory:
        return nothing  # on a CPU the kernel would end processes, and perhaps not ours
    order = {"trial": request.trial, "folder": request.folder, **_common(request), "threads": threads}
    try:
        ready = _all(children, "prepare", order)
        done = [] if _failed(ready) else _all(children, "go", {**order, "seconds": SECONDS})
    except Ended as error:
        if not before or not error.killed:
            raise
        # Either we did it, or the kernel, which does so when memory is full.
        return replace(nothing, failed=TOO_SLOW) if late.is_set() else nothing
    if _failed(ready) or _failed(done):
        return nothing
    return Point(
        at_once=len(children),
        threads=threads,
        images_per_second=sum(answer["rate"] for answer in done),
        reserved=max(answer["reserved"] for answer in done),
        used=done[0]["used"],
        host=max(answer["host"] for answer in done),
    )


def _measure_largest(request: Request, child: Child) -> int:
    """Bytes that torch holds of a card for the largest configuration; 0 where it does not fit."""
    order = {"trial": request.largest, "folder": request.largest_folder, **_common(request), "threads": 1}
    ready = _all([child], "prepare", order)
    _all([child], "drop", order)
    return 0 if _failed(ready) else int(ready[0]["reserved"])


def _common(request: Request) -> dict[str, Any]:
    return {"device": request.device, "split_seed": request.split_seed, "paths": request.paths}


def _all(children: Sequence[Child], do: str, order: dict[str, Any]) -> list[Answer]:
    """The answers of all children to one order: all begin at once, and the next begins when the last has ended."""
    for child in children:
        child.tell(do, **order)
    answers = [child.hear() for child in children]
    for answer in answers:
        if said := answer.get("refused") or answer.get("broken"):
            raise BadInput(f"the typical configuration cannot be trained: {said}")
    return answers


def _failed(answers: Sequence[Answer]) -> bool:
    return any("failed" in answer for answer in answers)


def _falls(points: Sequence[Point]) -> bool:
    """Whether the last two reached less than what came before: further ones would do no better."""
    best = max(point.images_per_second for point in points)
    return len(points) > 2 and all(point.images_per_second < best for point in points[-2:])


@contextmanager
def _children(request: Request) -> Iterator[tuple[list[Child], threading.Event]]:
    """As many processes as are needed at most, spread over the cards, and what is set when they have been ended because
    they took too long; all are gone after the block."""
    root = str(Path(tuner.__file__).parent.parent)
    with ExitStack() as stack:
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path}
        if request.mps:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ht-")))
            environment |= stack.enter_context(serve_mps(scratch, request.cards))
        children: list[Child] = []
        stack.callback(_end, children)
        for number in range(max(request.counts)):
            errors = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
            children.append(Child({**environment, **_card(request.cards, number)}, errors))
        late = threading.Event()
        clock = threading.Timer(LONGEST, _kill, [children, late])
        clock.daemon = True
        clock.start()
        stack.callback(clock.cancel)
        yield children, late


def _card(cards: int, number: int) -> dict[str, str]:
    """The environment of a child that sees one card alone; Ray hides them all from what asks for none."""
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = (seen or [str(card) for card in range(cards)])[:cards]
    return {"CUDA_VISIBLE_DEVICES": names[number % len(names)]} if names else {}


def _kill(children: Sequence[Child], late: threading.Event) -> None:
    late.set()
    for child in children:
        child.process.kill()


def _end(children: Sequence[Child]) -> None:
    for child in children:
        child.process.kill()
    for child in children:
        child.process.communicate()
