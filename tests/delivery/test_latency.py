"""Models take turns, each often enough; torch stands beside ONNX; what cannot be run is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.delivery.exporting import latency
from tuner.delivery.exporting.export import export_model
from tuner.delivery.exporting.latency import CALLS, ROUNDS, Row, compare, measure, race
from tuner.delivery.exporting.onnx_model import open_onnx, write_onnx
from tuner.delivery.model import Model, open_model
from tuner.errors import BadInput


def quiet(*_: object) -> None:
    pass


def test_models_take_turns_and_each_begins_a_round() -> None:
    order: list[str] = []
    taken = race([lambda: order.append("a"), lambda: order.append("b")], seconds=0)
    assert [len(times) for times in taken] == 2 * [ROUNDS * CALLS]
    turn = 1 + CALLS  # one is not timed, as these are short
    assert order[4:] == [*"a" * turn, *"b" * turn, *"b" * turn, *"a" * turn, *"a" * turn, *"b" * turn]


def test_a_race_goes_on_until_each_had_its_time() -> None:
    clock = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuner.delivery.exporting.latency.time.perf_counter", lambda: next(clock))
        taken = race([quiet, quiet], seconds=10)  # every call takes a second
    assert [sum(times) for times in taken] == [10, 10]


def test_a_row_has_the_middle_and_the_slow_end(model: Model) -> None:
    [row] = measure([model], 4, 1, seconds=0)
    assert row.batch == 4 and row.calls >= 5 and 0 < row.p50_ms <= row.p95_ms
    assert row.images_per_second == pytest.approx(4 / row.p50_ms * 1000)


def test_threads_are_set_for_both_and_put_back(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_onnx(tmp_path / "model.onnx", model)
    other, before, seen = open_model(tmp_path / "model.onnx"), torch.get_num_threads(), []

    def look(*words: Any, threads: int, **named: Any) -> Any:
        seen.append((threads, torch.get_num_threads()))
        return open_onnx(*words, threads=threads, **named)

    monkeypatch.setattr(latency, "open_onnx", look)
    measure([model, other], 1, before + 1, seconds=0)
    assert seen == [(before + 1, before + 1)] and torch.get_num_threads() == before


def test_threads_are_put_back_after_an_error_too(model: Model) -> None:
    before, seen = torch.get_num_threads(), []

    def fail(*_: object) -> None:
        seen.append(torch.get_num_threads())
        raise RuntimeError("out of memory")

    model.network.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        measure([model], 1, before + 1, seconds=0)
    assert seen == [before + 1] and torch.get_num_threads() == before


def test_the_command_times_torch_beside_onnx_and_writes_the_table(
    run: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "measure", lambda *words, **named: measure(*words, **{**named, "seconds": 0}))
    code, out, _ = call("latency", run, "--batch", 1, "--batch", 3, "--threads", 1, "--json")
    told = json.loads(out)
    assert code == 0 and json.loads((run / "final" / "latency.json").read_text())["rows"] == told["rows"]
    assert [(row["form"], row["batch"]) for row in told["rows"]] == [
        ("torch", 1),
        ("onnx", 1),
        ("torch", 3),
        ("onnx", 3),
    ]
    assert told["machine"]["cores"] >= 1 and told["machine"]["onnxruntime"] and told["not_run"] == []


def test_the_onnx_file_of_an_export_is_taken_and_one_of_another_model_is_not(run: Path, model: Model) -> None:
    trial = open_model(run / "trials" / "003")
    assert isinstance(trial, Model)
    assert latency._find_onnx(trial) is None
    export_model(trial, run / "final" / "export", ["onnx"])
    assert latency._find_onnx(trial) is not None
    best = open_model(run)
    assert isinstance(best, Model) and latency._find_onnx(best) is None


def test_a_network_without_an_onnx_form_is_timed_alone_and_that_is_said(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BadInput("no such operator")

    monkeypatch.setattr(latency, "write_onnx", refuse)
    found = compare([run], [1], [1], device="cpu", trust_code=False, tell=quiet, seconds=0)
    assert [row.form for row in found.rows] == ["torch"]
    assert found.not_run == (f"{found.rows[0].model} in ONNX: no such operator",)


def test_speed_is_against_the_first_model_of_the_same_batch_and_threads() -> None:
    rows = [
        Row("m", form, batch, 1, 6, p50, p50, 1.0)
        for form, batch, p50 in (("torch", 1, 8.0), ("onnx", 1, 2.0), ("torch", 8, 9.0), ("onnx", 8, 18.0))
    ]
    found = latency.table(latency.Latency(tuple(rows), (), 0.0))
    assert [line[-1] for line in found] == ["1.00x", "4.00x", "1.00x", "0.50x"]


def test_a_gpu_that_is_not_there_is_refused(run: Path, call: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    code, _, err = call("latency", run, "--device", "cuda")
    assert code == 2 and "no GPU" in err


def test_a_place_or_threads_that_cannot_be_are_refused_before_anything_is_timed(
    run: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "compare", None)
    (tmp_path / "file").write_text("")
    for words, said in (
        (("--out", tmp_path / "file" / "x.json"), "cannot be written"),
        (("--out", tmp_path), "is a folder"),
        (("--threads", 100_000), "at most that many"),
    ):
        code, _, err = call("latency", run, *words)
        assert code == 2 and said in err


def test_a_busy_machine_is_said() -> None:
    assert not latency.notes(latency.Latency((), (), 0.9), cores=2)
    assert "load 3.2 on 2 cores" in latency.notes(latency.Latency((), (), 3.2), cores=2)[0]
