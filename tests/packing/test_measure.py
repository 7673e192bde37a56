"""Measuring: real processes on this machine's cores; the course of it with processes that only pretend."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import BadInput, HypertuneError
from tuner.packing import curve, measure
from tuner.packing.child import Load, answer, out_of_memory
from tuner.packing.curve import OUT_OF_MEMORY, TOO_SLOW, Curve, Point, Request
from tuner.packing.packing import Machine
from tuner.spec.trial_config import TrialConfig
from tuner.training.datasets import prepare

GB = 2**30
Ask = Callable[..., Request]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """A request for a small network on 300 drawn images."""

    def build(*counts: int, **more: Any) -> Request:
        said = {
            "data": {"dataset": "shapes", "subset": 300},
            "model": {"name": "cnn", "depth": 1, "width": 4},
            "train": {"batch_size": 16},
        }
        config = TrialConfig.model_validate(said)
        folder = str(prepare(config.data, 0, tmp_path).folder)
        trial = config.model_dump_json()
        plain = Request(trial, trial, folder, folder, 0, "cpu", 0, 2, 24 * GB, counts or (1, 2))
        return replace(plain, **more)

    return build


@pytest.mark.slow
def test_this_machine_is_measured_with_real_trials(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.3)
    said: list[tuple[str, int, int]] = []
    found = measure.measure(ask(), lambda *what: said.append(what))
    assert [(point.at_once, point.threads, point.failed) for point in found.points] == [(1, 2, ""), (2, 1, "")]
    assert all(point.images_per_second > 10 and 50 * 2**20 < point.host < 3 * GB for point in found.points)
    assert said == [("measuring 1 trial at once, step", 1, 2), ("measuring 2 trials at once, step", 2, 2)]
    assert curve.curve_of(json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.slow
def test_what_cannot_be_trained_is_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "broken_net.py").write_text("def make(**given): raise ValueError('no such layer')\n")
    trial = json.loads(ask().trial) | {"model": {"name": "broken_net:make"}}
    with pytest.raises(BadInput, match=r"cannot be trained: .*no such layer"):
        measure.measure(ask(1, trial=json.dumps(trial), paths=(str(tmp_path),)))


# ---------------------------------------------------------------- the course of it

PRETEND = """
import json, os, sys, time
for line in sys.stdin:
    order = json.loads(line)
    print(json.dumps({answer}), flush=True)
"""


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Processes that answer by an expression of `order`."""

    def start(expression: str) -> None:
        program = tmp_path / "pretend.py"
        program.write_text(PRETEND.replace("{answer}", expression))
        real = subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", lambda words, **how: real([sys.executable, "-S", program], **how))

    return start


Pretend = Callable[[str], None]
WORKS = {"rate": 10, "reserved": 5, "used": 7, "host": 1000}


def test_a_curve_that_falls_is_not_followed_to_its_end(ask: Ask, pretend: Pretend) -> None:
    rates = "{16: 10, 8: 30, 4: 10, 2: 5, 1: 1}[order['threads']]"  # of each: 10, 60, 40, 40 and 16 together
    pretend(f"{WORKS} | {{'rate': {rates}}}")
    found = measure.measure(ask(1, 2, 4, 8, 16, cores=16))
    assert [(point.at_once, point.images_per_second) for point in found.points] == [(1, 10), (2, 60), (4, 40), (8, 40)]


def test_out_of_memory_is_a_point_like_any_other(ask: Ask, pretend: Pretend) -> None:
    pretend(f"{WORKS} if order['threads'] > 1 else {{'failed': '{OUT_OF_MEMORY}'}}")
    found = measure.measure(ask(1, 2, 4, cores=4))
    assert [point.failed for point in found.points] == ["", "", OUT_OF_MEMORY]


def test_a_trial_that_is_killed_is_the_limit_too(ask: Ask, pretend: Pretend) -> None:
    pretend(f"{WORKS} if order['threads'] > 1 else os.kill(os.getpid(), 9)")
    assert [point.failed for point in measure.measure(ask(1, 2, cores=2)).points] == ["", OUT_OF_MEMORY]


def test_one_that_ends_by_itself_is_an_error(ask: Ask, pretend: Pretend) -> None:
    pretend(f"{WORKS} if order['threads'] > 1 else sys.exit('bad driver')")
    with pytest.raises(HypertuneError, match="bad driver"):
        measure.measure(ask(1, 2, cores=2))


class Alarm:
    """A clock that rings when we say."""

    def __init__(self, seconds: float, do: Callable[..., None], arguments: list[Any]) -> None:
        Alarm.ring = partial(do, *arguments)

    ring: partial[None]

    def start(self) -> None: ...

    def cancel(self) -> None: ...


def test_what_took_too_long_is_not_called_out_of_memory(
    ask: Ask, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threading.Timer", Alarm)
    pretend(f"{WORKS} if order['threads'] > 1 else time.sleep(99)")
    found = measure.measure(ask(1, 2, cores=2), lambda what, number, of: Alarm.ring() if number == 2 else None)
    assert [point.failed for point in found.points] == ["", TOO_SLOW]
    with pytest.raises(HypertuneError, match="no answer in 120 s; numbers for"):
        measure.measure(ask(1, 2, cores=2), lambda *what: Alarm.ring())


def test_more_than_main_memory_holds_is_not_tried(ask: Ask, pretend: Pretend) -> None:
    pretend(f"{WORKS}")
    found = measure.measure(ask(1, 2, 4, cores=4, memory=3000))
    assert [point.failed for point in found.points] == ["", "", OUT_OF_MEMORY]


def test_on_gpus_the_largest_is_measured_first_and_alone(ask: Ask, pretend: Pretend) -> None:
    pretend(f"{WORKS} | ({{'reserved': 99}} if order['trial'] == 'L' else {{}})")
    found = measure.measure(ask(1, 2, device="cuda", cards=1, largest="L"))
    assert found.largest == 99 and [point.reserved for point in found.points] == [5, 5]


def test_each_process_sees_one_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as Ray does where nothing is asked for
    assert [measure._card(2, number)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert measure._card(2, 1) == {"CUDA_VISIBLE_DEVICES": "7"} and measure._card(0, 1) == {}


# ---------------------------------------------------------------- a child


@pytest.fixture
def load() -> Iterator[Load]:
    made = Load()
    yield made
    made.drop({"device": "cpu"})


def test_a_child_trains_what_it_is_told(ask: Ask, load: Load) -> None:
    request = ask()
    order = {"trial": request.trial, "folder": request.folder, "split_seed": 0, "device": "cpu", "threads": 1}
    assert "host" in answer(load, {"do": "prepare", **order})
    assert answer(load, {"do": "go", **order, "seconds": 0.0})["rate"] > 0
    assert answer(load, {"do": "prepare", **order, "trial": "{}"})["broken"].startswith("ValidationError")


def test_memory_errors_by_their_many_names() -> None:
    said = ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling", "DefaultCPUAllocator: can't"]
    assert all(out_of_memory(RuntimeError(text)) for text in said) and out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shapes differ")) and not out_of_memory(ValueError("out of memory"))


# ---------------------------------------------------------------- kept


def test_what_was_measured_is_kept_by_machine_and_by_what_decides_speed(ask: Ask, tmp_path: Path) -> None:
    here, request, found = Machine(2, 24 * GB), ask(), Curve((Point(1, 2, 10.0),), 7)
    file = curve.place(tmp_path, here, request)
    assert curve.read(file) is None
    curve.keep(file, found)
    assert curve.read(file) == found

    def changed(section: str, **values: Any) -> Path:
        said = json.loads(request.trial)
        said[section] |= values
        return curve.place(tmp_path, here, replace(request, trial=json.dumps(said)))

    assert changed("train", epochs=99) == changed("model", dropout=0.3) == file
    assert curve.place(tmp_path, replace(here, nodes=3), request) == file
    others = {changed("model", width=8), changed("train", batch_size=8), curve.place(tmp_path, Machine(4, GB), request)}
    assert file not in others and len(others) == 3


def test_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"points": [')
    assert curve.read(tmp_path / "x.json") is None
