"""Folders for results: that what is there and is not ours stays, whatever --out names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.delivery.plain import harmless
from tuner.delivery.target import make_ready
from tuner.errors import BadInput
from tuner.terminal import plain, print_table

Call = Callable[..., tuple[int, str, str]]


def test_a_folder_that_is_new_empty_or_was_filled_before_is_ready(tmp_path: Path) -> None:
    make_ready(tmp_path / "a" / "new", "evaluation.json")
    (tmp_path / "a" / "new" / "half.csv").write_text("broken off")
    make_ready(tmp_path / "a" / "new", "evaluation.json")
    (tmp_path / "copied").mkdir()
    for name in ("evaluation.json", "index.html"):
        (tmp_path / "copied" / name).write_text("")
    make_ready(tmp_path / "copied", "evaluation.json")


@pytest.mark.parametrize(
    ("there", "said"),
    [("photo.png", "holds 'photo.png'"), ("versus.json", "holds 'versus.json'"), ("run.json", "is a run itself")],
)
def test_a_folder_of_anything_else_is_refused(there: str, said: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("dear")
    with pytest.raises(BadInput, match=said):
        make_ready(tmp_path, "evaluation.json")
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_what_one_command_began_is_not_for_another(tmp_path: Path) -> None:
    make_ready(tmp_path / "out", "explain.json")
    with pytest.raises(BadInput, match="choose another folder"):
        make_ready(tmp_path / "out", "compressed.json")


@pytest.mark.parametrize(
    "words", [("explain", "IMAGE"), ("evaluate", "--split", "validation"), ("compress",), ("ensemble",)]
)
def test_no_command_replaces_what_it_did_not_write(
    words: tuple[str, ...], run: Path, tmp_path: Path, call: Call
) -> None:
    names = ("index.html", "original.onnx", "predictions.csv", "soup/model.json", "confusion.png")
    for name in names:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("dear")
    command, *rest = words
    code, _, err = call(command, run, *rest, "--out", tmp_path / "mine")
    assert code == 2 and "choose another folder with --out" in err
    assert all((tmp_path / "mine" / name).read_text() == "dear" for name in names)


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("predict", LONG, "a.png"), ("explain", "RUN", LONG), ("evaluate", "RUN", "--out", LONG),
        ("export", "RUN", "--out", LONG), ("latency", "RUN", "--out", LONG),
    ],
)  # fmt: skip
def test_a_path_that_is_too_long_is_refused_in_words(words: tuple[str, ...], run: Path, call: Call) -> None:
    code, _, err = call(*(run if word == "RUN" else word for word in words))
    assert code == 2 and err.count("\n") == 1 and LONG[:50] in err


def test_a_cell_that_a_spreadsheet_would_run_is_text() -> None:
    assert [harmless(text) for text in ("=1+1", "\n=1", "cat-1", "")] == ["'=1+1", "'\n=1", "cat-1", ""]


def test_names_of_files_give_no_orders_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("image",), [("a\x1b]0;owned\x07.png",)])
    assert capsys.readouterr().out.split() == ["image", r"a\x1b]0;owned\x07.png"]
    assert plain("two\nlines, caf\xe9") == "two\nlines, caf\xe9" and plain("\udcff\x9b") == r"\udcff\x9b"
