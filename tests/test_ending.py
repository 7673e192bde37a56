"""How a run that used a store or a cluster goes on and ends: which copy, whose weights, and in which process."""

from __future__ import annotations

import subprocess
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from tuner import cli
from tuner.commands import proving
from tuner.records import bring
from tuner.records.store import Store
from tuner.records.writer import create
from tuner.runner import session
from tuner.runner.run import How
from tuner.spec.wish import Wish

Call = Callable[..., tuple[int, str, str]]


def made(status: str = "finished", path: Path = Path("run")) -> Any:
    return types.SimpleNamespace(status=status, path=path, signal=0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[How], list[str]]:
    """A run whose copy is said to lie in the store `said`; how it is gone on with, and whose weights are fetched."""
    with create(tmp_path, "a") as folder:
        folder.write_space("name: a\n", [])
        folder.write_run(name="a", status="interrupted", store=f"file://{tmp_path}/said/a")
    hows: list[How] = []
    fetched: list[str] = []

    def resume_run(folder: Any, wish: Wish, console: Any, how: How, **more: Any) -> Any:
        hows.append(how)
        return made(path=tmp_path / "a")

    def bring_weights(store: Store, into: Path, tell: Any) -> list[str]:
        fetched.append(store.url)
        return ["one is gone"]

    monkeypatch.setattr(session, "resume_run", resume_run)
    monkeypatch.setattr(bring, "bring_weights", bring_weights)
    return tmp_path / "a", hows, fetched


def test_a_run_goes_on_with_the_copy_that_it_names(run: Any) -> None:
    path, hows, fetched = run
    cli.go_on(path, Wish())
    assert hows[0].store == fetched[0] == f"file://{path.parent}/said/a"


def test_the_copy_that_is_named_now_comes_before_the_one_of_then(run: Any, tmp_path: Path) -> None:
    path, hows, _ = run
    cli.go_on(path, Wish(), store=f"file://{tmp_path}/now/a")
    assert hows[0].store == f"file://{tmp_path}/now/a"


def test_a_run_that_goes_on_without_its_cluster_has_the_weights_of_then(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _, fetched = run
    cli.go_on(path, Wish())
    assert len(fetched) == 1 and "one is gone" in capsys.readouterr().err


@pytest.mark.parametrize("joined", [False, True])
def test_after_a_cluster_the_winner_is_delivered_in_another_process(
    joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def deliver(name: str, path: Path, *, as_json: bool) -> tuple[dict[str, Any], int]:
        asked.append(name)
        return {}, 0

    for name in ("deliver", "deliver_apart"):
        monkeypatch.setattr(proving, name, partial(deliver, name))
    cli.finish(made(), False, finalize=True, joined=joined)
    cli.finish(made("failed-not"), False, finalize=True, joined=joined)
    assert asked == ["deliver_apart" if joined else "deliver"]


@pytest.mark.parametrize(("code", "number"), [(0, 0), (143, 15), (-9, 9)])
def test_a_delivery_apart_tells_what_it_made_and_what_ended_it(
    code: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.CompletedProcess(["x"], code, '{"winner": "001"}')
    monkeypatch.setattr(subprocess, "run", lambda *words, **more: ended)
    assert proving.deliver_apart(Path("a"), as_json=True) == ({"winner": "001"}, number)


def test_a_delivery_apart_that_fails_ends_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *words, **more: subprocess.CompletedProcess(["x"], 2, "{}"))
    with pytest.raises(typer.Exit) as end:
        proving.deliver_apart(Path("a"), as_json=True)
    assert end.value.exit_code == 2
