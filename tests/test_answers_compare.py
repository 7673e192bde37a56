"""`hypertune compare` as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

Call = Callable[..., tuple[int, str, str]]

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """results/ with two runs on the same images, the second of which found more, beside a file."""
    above = tmp_path / "results"
    for name in ("first", "second"):
        shutil.copytree(FIXTURES / "hypertune_digits", above / name)
        run = above / name / "run.json"
        run.write_text(json.dumps({**json.loads(run.read_text()), "name": name}))
    for rows in above.glob("second/trials/*/result.json"):
        rows.write_text(rows.read_text().replace('"val_accuracy": 0.89', '"val_accuracy": 0.99'))
    (above / "LOG.md").write_text("words")
    monkeypatch.chdir(tmp_path)
    return above


def test_runs_are_compared_beside_them(results: Path, call: Call) -> None:
    code, out, err = call("compare", "results/first", "results/second")
    assert (code, err) == (0, "")
    assert "second is 10.0 points above first" in out
    assert "nothing was repeated" in out
    assert out.endswith("page   results/compare/compare.html\n")
    assert (results / "compare" / "compare.html").is_file()


def test_what_a_glob_catches_beside_runs_is_passed_over(results: Path, call: Call) -> None:
    code, out, _ = call("compare", *sorted(results.iterdir()))
    assert code == 0
    assert "note   results/LOG.md: passed over, it is no run" in out


def test_the_page_goes_where_it_is_asked(results: Path, tmp_path: Path, call: Call) -> None:
    code, _, _ = call("compare", "results/first", "results/second", "--out", "there")
    assert code == 0
    assert (tmp_path / "there" / "compare.html").is_file()
    assert sorted(path.name for path in results.iterdir()) == ["LOG.md", "first", "second"]


def test_markdown_is_all_that_is_printed(results: Path, call: Call) -> None:
    _, out, _ = call("compare", "results/first", "results/second", "--markdown")
    assert out == (results / "compare" / "compare.md").read_text()


def test_json_is_one_object(results: Path, call: Call) -> None:
    _, out, _ = call("compare", "results/first", "results/second", "--json")
    found = json.loads(out)
    assert found["page"] == str(results / "compare" / "compare.html")
    assert [row["name"] for row in found["rows"]] == ["first", "second"]


def test_another_metric_can_be_asked_for(results: Path, call: Call) -> None:
    _, out, _ = call("compare", "results/first", "results/second", "--metric", "val_macro_f1", "--json")
    assert json.loads(out)["groups"][0]["metric"]["name"] == "val_macro_f1"
    code, _, err = call("compare", "results/first", "results/second", "--metric", "nope")
    assert code == 2
    assert "no trial reports nope" in err


def test_open_shows_the_page(results: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(typer, "launch", shown.append)
    call("compare", "results/first", "results/second", "--open")
    assert shown == [(results / "compare" / "compare.html").as_uri()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("results/first",), "compare needs at least two runs"),
        (("results/first", "results/LOG.md"), "compare needs at least two runs"),
        (("results/first", "results/first/"), "named twice"),
        (("results/first", "results/nope"), "there is no such folder"),
        (("results/first", "results/second", "--out", "results/first"), "is a run itself"),
        (("results/first", "results/second", "--out", "results/LOG.md"), "choose another folder with --out"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(results: Path, call: Call, words: tuple[str, ...], said: str) -> None:
    code, out, err = call("compare", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not (results / "compare").exists()


def test_damaged_and_foreign_runs_are_told_of(results: Path, call: Call) -> None:
    (results / "first" / "run.json").write_text('{"format": 1, ')
    shutil.copytree(FIXTURES / "ray_asha", results / "ray")
    code, out, _ = call("compare", "results/first", "results/second", "results/ray")
    assert code == 0
    assert "note   first: damaged files: 1 (run.json)" in out
    assert "Ray Tune records neither data nor split" in out
