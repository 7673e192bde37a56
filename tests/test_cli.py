"""The commands as a user types them: what they print, their exit codes, what they leave."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tuner import terminal
from tuner.runner import session
from tuner.spec.edit import READY_MADE as SPACES

Call = Callable[..., tuple[int, str, str]]

FIXTURES = Path(__file__).parent / "fixtures"
BAD = """name: bad
data: {dataset: digits}
model: {name: cnn, dept: 3}
train: {optimizer: {name: adam, lr: {loguniform: [0, 1]}}}
search: {trials: -4}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_problems_of_a_file_at_once_with_their_places(home: Path, call: Call) -> None:
    (home / "bad.yaml").write_text(BAD)
    code, out, err = call("validate", "bad.yaml")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "bad.yaml:3:20: model.dept: no such field of cnn; did you mean depth?",
        "bad.yaml:4:51: train.optimizer.lr: loguniform needs a low above 0, got 0; try 1.0e-5",
        "bad.yaml:5:10: search.trials: must be at least 1, got -4",
        "3 problems; `hypertune fields` lists what can be set",
    ]


def test_a_program_reads_the_same_problems(home: Path, call: Call) -> None:
    (home / "bad.yaml").write_text(BAD)
    code, out, _ = call("run", "bad.yaml", "--json")
    said = json.loads(out)
    assert code == said["exit_code"] == 2 and [p["line"] for p in said["problems"]] == [3, 4, 5]


def test_bad_input_is_said_before_torch_or_ray_is_imported(home: Path) -> None:
    (home / "bad.yaml").write_text(BAD)
    code = (
        "import sys; sys.argv = ['hypertune', 'run', 'bad.yaml']\n"
        "from tuner import cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: print(end.code, {'torch', 'ray', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home)
    assert done.stdout.split("\n")[0] == "2 set()"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--time", "3x"], "--time: search.time: no duration: '3x'; write 90s, 30m or 2h"),
        (["--name", "a/b"], "--name: name: must begin with a letter or digit"),
        (["--set", "model.dept=3"], "--set 1: model.dept: no such field of cnn; did you mean depth?"),
    ],
)
def test_options_are_checked_like_the_file(home: Path, call: Call, options: list[str], message: str) -> None:
    (home / "ok.yaml").write_text("name: ok\ndata: {dataset: digits}\nmodel: {name: cnn}\n")
    code, _, err = call("run", "ok.yaml", *options)
    assert code == 2 and message in err


def test_every_ready_made_space_is_listed_copied_and_valid(home: Path, call: Call) -> None:
    _, out, _ = call("spaces", "--json")
    for space in json.loads(out):
        assert space["about"]
        assert call("new", space["name"], f"{space['name']}.yaml")[0] == 0
        assert call("validate", f"{space['name']}.yaml")[0] == 0
    assert call("new", "digits", "digits.yaml")[0] == 2  # never over a file that is there


def test_validate_data_checks_the_images_too(home: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(home / "cache"))
    (home / "photos.yaml").write_text("name: p\ndata: {dataset: image_folder, root: photos}\nmodel: {name: cnn}\n")
    assert call("validate", "photos.yaml")[0] == 0
    code, _, err = call("validate", "photos.yaml", "--data")
    assert code == 2 and "photos" in err and "Traceback" not in err
    (home / "ok.yaml").write_text("name: ok\ndata: {dataset: digits}\nmodel: {name: cnn}\n")
    code, out, _ = call("validate", "ok.yaml", "--data", "--json")
    assert code == 0 and json.loads(out)["data"]["image_size"] == 8


def test_a_dry_run_shows_the_plan_and_leaves_nothing(home: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(home / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    (home / "ok.yaml").write_text(
        "name: ok\ndata: {dataset: digits}\nmodel: {name: cnn, depth: {int: [1, 4]}}\n"
        "train: {optimizer: {choice: {adam: {lr: {loguniform: [1.0e-4, 1.0e-1]}}, sgd: {}}}}\n"
    )
    code, out, _ = call("run", "ok.yaml", "--dry-run")
    assert code == 0 and not (home / "results").exists()
    assert "1,438 images 8x8 grey, 10 classes (1,150 train, 288 validation), test set of 359 apart" in out
    assert (
        "model.depth 1-4 · train.optimizer adam sgd · train.optimizer[adam].lr 1e-4 .. 0.1 (log) · endless comb" in out
    )
    assert "of the space can be trained" in out
    assert "20 trials x up to 10 epochs, tpe (a model of what was good) + asha(grace 1, factor 3): about" in out


@pytest.fixture
def results(home: Path) -> Path:
    for name in ("hypertune_digits", "ray_grid"):
        shutil.copytree(FIXTURES / name, home / "results" / name)
    return home / "results"


def said(out: str) -> Any:
    return json.loads(out)


def test_analyze_names_the_report_and_runs_lists_it(results: Path, call: Call) -> None:
    code, out, _ = call("analyze", results / "hypertune_digits", "--json")
    assert code == 0 and Path(said(out)["report"]).exists()
    assert said(out)["best"] == {"trial": "005", "metric": "val_accuracy", "value": pytest.approx(0.89)}
    code, out, _ = call("runs", "--json")
    assert {run["name"]: run["status"] for run in said(out)}["hypertune_digits"] == "finished"


def test_analyze_of_results_itself_is_an_index(results: Path, call: Call) -> None:
    code, out, _ = call("analyze", results)
    assert code == 0 and "2 runs side by side: results/index.html" in out and (results / "index.html").exists()


def test_analyze_without_a_folder_takes_the_newest_run(results: Path, call: Call) -> None:
    run = json.loads((results / "hypertune_digits/run.json").read_text())
    (results / "hypertune_digits/run.json").write_text(json.dumps({**run, "created": "2999-01-01T00:00:00+00:00"}))
    assert call("analyze")[1].startswith("hypertune_digits: 12 trials, best 005")


@pytest.mark.parametrize("words", [["analyze"], ["analyze", "nowhere"], ["runs"], ["runs", "nowhere"]])
def test_a_missing_folder_is_one_line(home: Path, call: Call, words: list[str]) -> None:
    code, out, err = call(*words)
    assert code == 2 and not out and "there is no such folder" in err and len(err.splitlines()) == 1


def test_fields_of_a_section_are_listed(call: Call) -> None:
    code, out, _ = call("fields", "model.cnn")
    assert code == 0 and "growth" in out and "channels of the first block" in out
    assert call("fields", "model.cnm")[0] == 2


def test_status_says_how_a_dead_run_stands_and_how_to_go_on(call: Call) -> None:
    run = Path(__file__).parent / "fixtures" / "hypertune_killed"
    code, out, _ = call("status", str(run))
    assert code == 0 and " dead · " in out.splitlines()[0]
    assert "best   trial" in out and "hypertune resume" in out.splitlines()[-1]
    code, out, _ = call("status", str(run), "--json")
    said = json.loads(out)
    assert code == 0 and said["status"] == "dead" and said["best"]["metric"] == "val_accuracy"
    assert call("status", str(run), "--watch")[1].count("dead") == 1  # nothing to wait for


def test_status_needs_neither_torch_nor_ray() -> None:
    run = Path(__file__).parent / "fixtures" / "hypertune_killed"
    code = (
        "import sys; from tuner.cli import app; app(['status', sys.argv[1]], standalone_mode=False); "
        "assert not {'torch', 'ray', 'optuna', 'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["status", "resume"])
def test_what_is_no_run_folder_is_bad_input(command: str, home: Path, call: Call) -> None:
    (home / "empty").mkdir()
    for name, says in (("missing", "missing"), ("empty", "empty")):
        code, _, err = call(command, str(home / name))
        assert code == 2 and says in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("wish", "says"),
    [(("--trials", "more"), "write +20"), (("--time", "1d"), "no duration"), (("--space", "no.yaml"), "no.yaml")],
)
def test_a_wish_that_is_none_is_refused_before_anything_is_touched(
    wish: tuple[str, str], says: str, tmp_path: Path, call: Call
) -> None:
    run = tmp_path / "killed"
    shutil.copytree(Path(__file__).parent / "fixtures" / "hypertune_killed", run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, _, err = call("resume", str(run), *wish)
    assert code == 2 and says in err
    assert all(path.read_bytes() == data for path, data in before.items())


def test_a_preview_draws_a_sheet_and_tells_the_health(home: Path, call: Call) -> None:
    shutil.copy(SPACES / "shapes.yaml", home / "s.yaml")
    code, out, _ = call("preview", "s.yaml", "--set", "data.images=300", "--out", "sheet.png", "--json")
    said = json.loads(out)
    assert (code, said["panels"]) == (0, 4) and set(said["health"]["classes"]) == {
        "circle", "square", "triangle", "cross", "ring",
    }  # fmt: skip
    with Image.open("sheet.png") as sheet:
        stored = sheet.crop((150, 52, 150 + 96, 52 + 96))  # the first image, three pixels for one
        assert len(np.unique(np.asarray(stored).reshape(-1, 3), axis=0)) > 100
    code, out, _ = call("preview", "s.yaml", "--set", "data.images=300", "--set", "data.augment=none")
    assert code == 0 and "shapes_preview.png" in out and Path("shapes_preview.png").exists()


def test_a_range_test_suggests_a_rate_and_draws_its_curve(home: Path, call: Call) -> None:
    shutil.copy(SPACES / "digits.yaml", home / "d.yaml")
    code, out, _ = call("lr-find", "d.yaml", "--set", "train.optimizer=sgd", "--json")
    said = json.loads(out)
    assert code == 0 and 1e-3 < said["suggestion"] < 10 and len(said["rates"]) == len(said["losses"])
    assert Path(said["picture"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["preview", "lr-find"])
def test_a_picture_that_cannot_be_written_is_refused_first(command: str, home: Path, call: Call) -> None:
    shutil.copy(SPACES / "digits.yaml", home / "d.yaml")
    Path("file").touch()
    for place, why in (("x.foo", "let its name end in .png"), ("file/x.png", "its folder cannot be made")):
        code, _, err = call(command, "d.yaml", "--out", place)
        assert code == 2 and why in err


def test_images_without_a_file_get_a_space_that_is_shown_and_kept(home: Path, call: Call) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        folder = home / "photos" / f"kind{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (home / "photos.yaml").write_text("mine")
    code, _, err = call("run", "--data", "photos", "--time", "2m", "--dry-run")
    assert code == 0 and "photos-2.yaml" in err and "written to" in err, err
    assert (home / "photos.yaml").read_text() == "mine" and not (home / "results").exists()
    code, out, _ = call("validate", "photos-2.yaml")
    assert code == 0 and "valid" in out
    assert call("run")[0] == call("run", "photos-2.yaml", "--data", "photos")[0] == 2


def test_code_of_ones_own_is_found_where_the_command_is_started(home: Path, call: Call) -> None:
    (home / "mynet.py").write_text(
        "from torch import nn\n"
        "def make(*, classes, in_channels, image_size, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, width), nn.ReLU(),\n"
        "                         nn.Linear(width, classes))\n"
    )
    (home / "own.yaml").write_text(
        "name: own\ndata: {dataset: digits}\nmodel: {name: 'mynet:make', width: {int: [4, 8]}}\n"
    )
    code, out, err = call("validate", "own.yaml", "--data", "--json")
    assert code == 0, err
    assert [p["name"] for p in json.loads(out)["parameters"]] == ["model.width"]
    (home / "own.yaml").write_text((home / "own.yaml").read_text().replace("mynet:make", "mynet:mk"))
    code, _, err = call("validate", "own.yaml", "--data")
    assert code == 2 and "has no function 'mk'" in err


def test_what_is_no_terminal_gets_plain_lines_even_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook's kernel sets it for what it starts
    assert not terminal.open_console().is_terminal and not session.open_console(sys.stdout).is_terminal
