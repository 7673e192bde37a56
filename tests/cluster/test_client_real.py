"""The client against a real head: a search sent from a machine that shares nothing with it but a tunnel and a token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.conftest import Cluster

    Network = Callable[..., AbstractContextManager[Cluster]]

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(600)]
SPACE = """
name: NAME
data: {dataset: digits, subset: 600}
model: {name: cnn, depth: 1, width: {choice: [8, 16]}}
train: {epochs: 5, optimizer: {name: sgd, lr: {loguniform: [1.0e-3, 0.3]}}}
search: {trials: TRIALS, scheduler: none}
"""


@pytest.fixture(scope="module")
def cluster(network: Network) -> Iterator[Cluster]:
    """A head that trains, and a laptop that reaches it through a tunnel; an epoch takes a moment."""
    with network(SLOW="0.3") as cluster:
        cluster.start_head(cpus=2)
        cluster.add_laptop()
        cluster.wait_for("head")
        yield cluster


def hypertune(cluster: Cluster, *words: str, **extra: str) -> tuple[int, str, str]:
    """A command on the laptop, to its end: exit code, stdout, stderr."""
    command = cluster["laptop"].start("hypertune", *words, **extra)
    out, err = command.communicate(timeout=300)
    assert "Traceback" not in err, err
    return command.returncode, out, err


def write(cluster: Cluster, name: str, trials: int) -> str:
    (cluster["laptop"].work / f"{name}.yaml").write_text(SPACE.replace("NAME", name).replace("TRIALS", str(trials)))
    return f"{name}.yaml"


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_search_is_sent_followed_listed_and_brought_home(cluster: Cluster) -> None:
    space = write(cluster, "sent", 3)
    code, out, err = hypertune(cluster, "submit", space, "--out", str(cluster.shared), "--json")
    assert code == 0, err
    assert json.loads(out)["status"] == "finished"
    (job,) = (job for job in json.loads(hypertune(cluster, "jobs", "--json")[1]) if job["name"] == "sent")
    assert (job["exit_code"], job["run"]) == (0, str(cluster.shared / "sent"))
    assert "003 finished epoch 5" in hypertune(cluster, "logs", "sent")[1]
    code, out, err = hypertune(cluster, "fetch", "sent")
    assert code == 0, out + err
    home = cluster["laptop"].work / "results" / "sent"
    assert tree(home) == tree(cluster.shared / "sent")
    assert any("checkpoint_best" in name for name in tree(home))
    assert [path.name for path in home.parent.iterdir()] == ["sent"]


def test_a_job_is_stopped_well_and_the_command_that_it_names_goes_on_with_it(cluster: Cluster) -> None:
    run = cluster.shared / "long"
    space = write(cluster, "long", 6)
    words = ("submit", space, "--out", str(cluster.shared))
    assert hypertune(cluster, *words, "--detach")[0] == 0
    while not list(run.glob("trials/*/result.json")):
        assert json.loads(hypertune(cluster, "jobs", "--json")[1])[0]["status"] in ("pending", "running")
    code, _, err = hypertune(cluster, *words)
    assert (code, "hypertune stop long-" in err) == (3, True), err

    code, out, err = hypertune(cluster, "stop", "long", "--json")
    assert code == 0, err
    assert json.loads(out)["status"] == "stopped"
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    again = json.loads(out)["again"].split()[1:]
    code, out, err = hypertune(cluster, *again)
    assert code == 0, out + err
    rows = {p.parent.name: [json.loads(row)["epoch"] for row in p.open()] for p in run.glob("trials/*/result.json")}
    assert list(rows.values()) == [[1, 2, 3, 4, 5]] * 6
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


def test_a_wrong_token_is_refused_in_a_sentence(cluster: Cluster) -> None:
    code, _, err = hypertune(cluster, "jobs", RAY_AUTH_TOKEN="wrong")
    assert (code, "refuses the token" in err) == (2, True)
    assert "wrong" not in err


def test_the_token_is_nowhere_in_what_the_head_keeps_of_a_job(cluster: Cluster) -> None:
    status, jobs = cluster.get("/api/jobs/")
    assert status == 200
    assert jobs
    assert cluster.token not in json.dumps(jobs)
