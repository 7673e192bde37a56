"""The whole way on small data, by the notebook's own cells: from a search to a model that labels new images."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tuner.delivery.judging.scores import score
from tuner.delivery.model import open_model, open_torch
from tuner.delivery.pictures import open_split
from tuner.delivery.predictions import judge

pytestmark = pytest.mark.ray

NOTEBOOK = Path(__file__).parent.parent / "docs" / "from_search_to_model.ipynb"
SMALL = "TRIALS, EPOCHS, IMAGES = 4, 6, 800"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebook has run, with fewer trials, epochs and images; an error in a cell fails here."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = SMALL
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("HYPERTUNE_CACHE", str(folder / "cache"))
        client = NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(folder)}})
        client.execute()
    return folder


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(home / "cache"))
    return home / "results" / "shapes"


def test_the_winner_is_of_the_finalists_and_the_looks_are_counted(run: Path) -> None:
    told = json.loads((run / "final" / "finalize.json").read_text())
    assert told["winner"] == max(told["finalists"], key=lambda f: f["mean"])["trial"] and told["test"]["looks"] == 1
    assert len((run / "final" / "test_looks.jsonl").read_text().splitlines()) == 2  # and one by evaluate
    assert open_torch(run).about.origin.trial == told["winner"]


def test_the_evaluation_holds_what_the_delivered_model_says_now(run: Path) -> None:
    told = json.loads((run / "final" / "evaluation" / "evaluation.json").read_text())
    model = open_torch(run)
    found = judge(model, open_split(model.place, model.about, "test", "this test"))
    assert told["metrics"]["accuracy"]["value"] == pytest.approx(found.right.mean())
    assert told["metrics"]["macro_f1"]["value"] == pytest.approx(score(found, resamples=2).metrics["macro_f1"].value)


def test_every_exported_form_gives_the_probabilities_of_the_trained_checkpoint(run: Path) -> None:
    told = json.loads((run / "final" / "finalize.json").read_text())
    values = told["finalists"][0]["values"]
    trial = told["finalists"][0]["runs"][values.index(max(values))]
    checkpoint = open_torch(run / "final" / "finalists" / "trials" / trial)
    pictures = open_split(checkpoint.place, checkpoint.about, "validation", "this test")
    wanted = judge(checkpoint, pictures).probabilities
    for form in ("model.onnx", "model.json"):
        found = judge(open_model(run / "final" / "export" / form), pictures).probabilities
        assert np.abs(found - wanted).max() < 1e-4


def test_labels_are_those_of_the_model_and_add_up(home: Path, run: Path) -> None:
    rows = list(csv.DictReader((home / "labels.csv").read_text().splitlines()))
    assert len(rows) == 4 and all(row["label"] in open_model(run).about.classes for row in rows)
    assert all(0 < float(row["probability"]) <= 1 for row in rows)


def test_what_was_made_is_there(home: Path, run: Path) -> None:
    for name in ("evaluation/index.html", "explain/index.html", "export/README.md", "compressed/pareto.png"):
        assert (run / "final" / name).stat().st_size > 1000
    compile((home / "winner.py").read_text(), "winner.py", "exec")


def test_the_notebook_that_is_shown_was_executed_to_its_end() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert "/tmp" not in NOTEBOOK.read_text() and NOTEBOOK.stat().st_size < 2**20
