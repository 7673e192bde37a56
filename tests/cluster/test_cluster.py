"""A search on several machines: sent from outside or started on one of them, through the loss of any of them.

The side records are written by the workers, not by the code under test: see `killing/sitecustomize.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tuner.spec.trial_config import TrialConfig

if TYPE_CHECKING:
    from tests.cluster.conftest import Cluster, Command, Machine

    Network = Callable[..., AbstractContextManager[Cluster]]

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
LONG = pytest.mark.cluster
SPACE = """
name: NAME
data: {dataset: digits, subset: 600, augment: flip_crop}
model: {name: cnn, depth: {int: [1, 2]}, width: {choice: [8, 16]}, dropout: {uniform: [0, 0.3]}}
train:
  epochs: 6
  optimizer: {name: sgd, lr: {loguniform: [1.0e-3, 0.3]}}
  schedule: onecycle
search: {trials: TRIALS, sampler: {name: tpe, startup_trials: 3}, scheduler: {name: asha, grace: 2, factor: 2}}
"""


@dataclass(frozen=True)
class Run:
    """A run folder, read by nothing of ours, beside what the workers noted by themselves."""

    path: Path
    machines: list[Machine]

    def rows(self) -> dict[str, list[int]]:
        """Epochs in the folder by trial, whole lines alone."""
        found = {}
        for path in sorted(self.path.glob("trials/*/result.json")):
            found[path.parent.name] = [json.loads(line)["epoch"] for line in path.read_bytes().split(b"\n")[:-1]]
        return found

    def count(self) -> int:
        """Epochs of all trials."""
        return sum(map(len, self.rows().values()))

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.path / "events.jsonl").read_bytes().split(b"\n")[:-1]
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def status(self) -> str:
        return str(json.loads((self.path / "run.json").read_text())["status"])

    def stretches(self) -> list[Stretch]:
        """What the workers noted, machine by machine in the order of each."""
        names, found = {}, list[Stretch]()
        for path in self.path.glob("trials/*/params.json"):
            config = TrialConfig.model_validate_json(path.read_text())
            names[str(zlib.crc32(config.model_dump_json().encode()))] = path.parent.name
        for machine in self.machines:
            lines = machine.side.read_text().splitlines() if machine.side.exists() else []
            here = list[Stretch]()
            for process, mark, epoch in map(str.split, lines):
                if process == "saved":
                    latest = next((stretch for stretch in reversed(here) if stretch.trial == mark), None)
                    if latest:
                        latest.saved = int(epoch)
                elif mark in names:
                    new = Stretch(machine.name, process, names[mark], int(epoch), int(epoch))
                    if here and here[-1].follows(new):
                        here[-1].last = new.last
                    else:
                        here.append(new)
            found += here
        return found

    def hosts(self) -> set[str]:
        """Machines that trained."""
        return {stretch.machine for stretch in self.stretches()}

    def check(self, again: int = 0) -> None:
        """No epoch is lost or there twice; so many trials at most were trained again, and from their last checkpoint.

        A worker that has trained epoch e + 1 was told to go on after e, so e must be in the folder.
        """
        rows, found = self.rows(), self.stretches()
        assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in rows.values()), rows
        assert not [one for one in found if len(rows.get(one.trial, [])) < one.last - 1], found
        twice = set()
        for trial in rows:
            mine = sorted((one for one in found if one.trial == trial), key=lambda one: (one.first, one.saved))
            assert all(before.saved < after.first for before, after in itertools.pairwise(mine)), mine
            twice |= {trial for before, after in itertools.pairwise(mine) if before.last >= after.first}
        assert len(twice) <= again, found


@dataclass
class Stretch:
    """Epochs of a trial that one process trained, one after the other; saved: the last one that is in a checkpoint."""

    machine: str
    process: str
    trial: str
    first: int
    last: int
    saved: int = 0

    def follows(self, new: Stretch) -> bool:
        """Whether `new` is the next epoch of this process and trial."""
        return (self.process, self.trial, self.last + 1) == (new.process, new.trial, new.first)


@pytest.fixture(scope="module")
def standing(network: Network) -> Iterator[Cluster]:
    """A head without trials, two workers of one core, and a laptop."""
    with network(SLOW="0.3", watchful=True) as cluster:
        cluster.start_head()
        cluster.add_node()
        cluster.add_node()
        cluster.add_laptop()
        cluster.wait_for("head", "node1", "node2")
        yield cluster


@pytest.fixture
def cluster(standing: Cluster) -> Iterator[Cluster]:
    """It as it should be: two workers, whatever was lost or joined before, nothing noted yet, no search of another."""
    alive = [standing[name] for name in standing.alive()]  # as the head said some seconds ago
    workers = sorted(machine.name for machine in alive if machine.name.startswith("node") and machine.processes())
    for name in workers[2:]:
        standing[name].kill()
    new = [standing.add_node().name for _ in range(2 - len(workers))]
    standing.wait_for("head", *workers[:2], *new, only=True)
    standing.forget()
    yield standing
    standing.end_searches()


def write(where: Machine, name: str, trials: int) -> str:
    """A space file in the work folder of a machine."""
    (where.work / f"{name}.yaml").write_text(SPACE.replace("NAME", name).replace("TRIALS", str(trials)))
    return f"{name}.yaml"


def submit(cluster: Cluster, name: str, trials: int = 4, out: str = "", **extra: str) -> tuple[Command, Run]:
    """`hypertune submit` on the laptop."""
    space = write(cluster["laptop"], name, trials)
    words = ("submit", space, "--address", cluster.job_url, "--out", out or str(cluster.shared))
    return cluster["laptop"].start("hypertune", *words, **extra), Run(cluster.shared / name, cluster.machines)


def start(cluster: Cluster, where: Machine, name: str, trials: int = 4) -> tuple[Command, Run]:
    """`hypertune run --address auto` on a machine of the cluster."""
    words = ("run", write(where, name, trials), "--address", "auto", "--out", str(cluster.shared))
    return where.start("hypertune", *words), Run(cluster.shared / name, cluster.machines)


def test_its_nodes_take_tasks_and_nobody_enters_without_its_token(cluster: Cluster) -> None:
    code = """
import ray, socket
ray.init(address="auto", log_to_driver=False)
where = ray.remote(num_cpus=1)(lambda: socket.gethostname() + " " + ray.util.get_node_ip_address())
ips = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"]]
print("\\n".join(ray.get([where.options(resources={f"node:{ip}": 0.1}).remote() for ip in ips])))
"""
    found = dict(line.split()[::-1] for line in cluster.head.do("python", "-c", code).splitlines())
    workers = {m.ip: m.name for m in cluster.machines if m.name in cluster.alive() and m is not cluster.head}
    assert found == workers if cluster.switch else found.keys() == workers.keys()
    assert cluster.get("/api/jobs/")[0] == 200
    assert cluster.get("/api/jobs/", token="wrong")[0] == 403


# Its programs end and its kernel says so; its power is cut; its network is.
LOSSES = ["end", pytest.param("kill", marks=LONG), pytest.param("unplug", marks=LONG)]


@pytest.mark.parametrize("how", LOSSES)
def test_a_search_that_is_sent_uses_all_nodes_and_survives_the_loss_of_one(cluster: Cluster, how: str) -> None:
    if how == "unplug" and not cluster.switch:
        pytest.skip("a network of its own needs a namespace")
    process, run = submit(cluster, f"sent-{how}")
    kept, lost = map(cluster.__getitem__, sorted(cluster.alive() - {"head"}))
    process.until(lambda: run.hosts() == {kept.name, lost.name} and run.count() > 2, "epochs on both nodes")
    cluster.unplug(lost) if how == "unplug" else getattr(lost, how)()
    said = process.end()
    lost.kill()
    assert process.returncode == 0 and len(run.rows()) == 4, said
    check_that_no_trial_suffered(run, said)
    run.check(again=1)


def check_that_no_trial_suffered(run: Run, said: str) -> None:
    """A machine that is gone is no fault of the trials that ran there."""
    assert run.status() == "finished" and not [e for e in run.events("ended") if e["state"] == "failed"], said
    moved = run.events("retried")
    assert moved and not any(event["deaths"] for event in moved), moved


# ------------------------------------------------------------ the long form: `make cluster-test`


@LONG
def test_a_search_that_is_stopped_ends_well_and_goes_on_when_sent_again(cluster: Cluster) -> None:
    process, run = submit(cluster, "again")
    process.until(lambda: run.count() > 3, "epochs")
    laptop = cluster["laptop"]
    assert "again" in laptop.start("hypertune", "stop", "again", "--address", cluster.job_url).end()
    said = process.end()
    assert process.returncode == 143 and "hypertune submit again.yaml" in said, said
    assert run.status() == "interrupted"
    before = run.rows()
    process, run = submit(cluster, "again")
    said = process.end()
    assert process.returncode == 0, said
    after = run.rows()
    assert len(after) == 4 and all(after[trial][: len(epochs)] == epochs for trial, epochs in before.items())
    run.check(again=2)  # the two that ran, from their last checkpoints


@LONG
def test_a_node_that_joins_in_mid_run_is_used(cluster: Cluster) -> None:
    process, run = submit(cluster, "joined", trials=30)
    process.until(lambda: run.count() > 2, "epochs")
    new = cluster.add_node()
    process.until(lambda: new.name in run.hosts(), f"an epoch on {new.name}")
    laptop = cluster["laptop"]
    laptop.start("hypertune", "stop", "joined", "--address", cluster.job_url).end()
    assert process.end() and process.returncode == 143
    run.check()
    new.kill()


@LONG
def test_images_are_prepared_once_a_node(cluster: Cluster) -> None:
    def prepared() -> dict[str, list[tuple[int, int]]]:
        found = {m.name: [p.stat() for p in m.home.glob("cache/**/meta.json")] for m in cluster.machines}
        return {name: [(stat.st_ino, stat.st_mtime_ns) for stat in stats] for name, stats in found.items()}

    for name in ("first", "second"):
        process, run = submit(cluster, name)
        said = process.end()
        assert process.returncode == 0, said
        if name == "first":
            first = prepared()
        assert run.status() == "finished" and len(run.hosts()) == 2, said
    assert first == prepared()
    assert all(len(first[name]) == 1 for name in run.hosts()), first


@LONG
def test_a_driver_on_a_node_that_is_ended_can_be_gone_on_with(cluster: Cluster) -> None:
    process, run = start(cluster, cluster["node1"], "signalled")
    process.until(lambda: run.count() > 3, "epochs")
    process.send_signal(signal.SIGTERM)
    said = process.end(30)
    assert process.returncode == 143 and f"hypertune resume {run.path} --address auto" in said, said
    assert run.status() == "interrupted"
    process = cluster.head.start("hypertune", "resume", str(run.path), "--address", "auto")
    said = process.end()
    assert process.returncode == 0, said
    assert len(run.rows()) == 4
    run.check(again=2)


@LONG
def test_a_lost_drivers_machine_costs_no_reported_epoch(cluster: Cluster) -> None:
    machine = cluster.add_node()
    cluster.wait_for(machine.name)
    process, run = start(cluster, machine, "orphan")
    process.until(lambda: run.count() > 3, "epochs")
    machine.kill()
    process.end()
    process = cluster.head.start("hypertune", "resume", str(run.path), "--address", "auto")
    said = process.end()
    assert process.returncode == 0 and run.status() == "finished", said
    assert len(run.rows()) == 4
    run.check(again=3)  # one a trial that ran


@LONG
def test_a_lost_head_is_noticed_and_a_new_one_goes_on(network: Network) -> None:
    with network(SLOW="0.3") as cluster:
        head, node = cluster.start_head(), cluster.add_node()
        cluster.wait_for(head.name, node.name)
        process, run = start(cluster, head, "headless")
        process.until(lambda: run.count() > 3, "epochs")
        cluster.kill_gcs()
        said = process.end(60)
        assert process.returncode == 4 and f"hypertune resume {run.path} --address auto" in said, said
        head.kill()
        node.kill()
        head, node = cluster.start_head(), cluster.add_node()
        cluster.wait_for(head.name, node.name)
        process = head.start("hypertune", "resume", str(run.path), "--address", "auto")
        said = process.end()
        assert process.returncode == 0, said
        assert len(run.rows()) == 4
        run.check(again=1)


@LONG
def test_a_node_that_does_not_see_the_results_is_named_before_the_first_trial(cluster: Cluster) -> None:
    if not cluster.switch:
        pytest.skip("a disk of its own needs a mount namespace")
    blind = cluster.add_node(hides=cluster.shared)
    cluster.wait_for(blind.name)
    process, run = start(cluster, cluster.head, "unseen")
    said = process.end()
    blind.kill()
    assert process.returncode == 2 and "Traceback" not in said, said
    assert f"node {blind.name} does not reach the results" in said and "--out" in said, said
    assert not run.rows() and not run.hosts()


@LONG
def test_results_in_an_object_store_need_no_shared_folder(network: Network) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_EC2_METADATA_DISABLED": "true"}
    with network(SLOW="0.3", watchful=True, **keys) as cluster:
        store = cluster.add_machine("store")
        store.serve("moto_server", "-H", store.ip, "-p", str(PORT))
        cluster.start_head()
        hidden = cluster.shared if cluster.switch else None
        nodes = [cluster.add_node(hides=hidden), cluster.add_node(hides=hidden)]
        laptop = cluster.add_laptop()
        cluster.wait_for("head", *(node.name for node in nodes))
        store.do("python", "-c", MAKE_BUCKET.format(ip=store.ip, port=PORT))
        url = f"s3://results/all?scheme=http&endpoint_override={store.ip}:{PORT}&region=us-east-1"
        process, _ = submit(cluster, "stored", out=url, trials=6)
        process.until(lambda: nodes[1].side.exists(), "an epoch on a second node")
        nodes[1].kill()
        said = process.end()
        assert process.returncode == 0, said
        said = laptop.start("hypertune", "fetch", "stored", "--address", cluster.job_url).end()
        run = Run(laptop.work / "results" / "stored", cluster.machines)
        check_that_no_trial_suffered(run, said)
        run.check(again=1)


PORT = 5577
MAKE_BUCKET = """
import boto3
boto3.client("s3", endpoint_url="http://{ip}:{port}", region_name="us-east-1").create_bucket(Bucket="results")
"""


@LONG
def test_a_wrong_token_is_said_in_a_line(cluster: Cluster) -> None:
    process, run = submit(cluster, "stranger", RAY_AUTH_TOKEN="wrong")
    said = process.end()
    assert process.returncode not in (0, 143) and "token" in said and "Traceback" not in said, said
    assert "auth_token" in said.splitlines()[-1] and not run.path.exists()


OWNER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import conftest
with conftest.cluster_with() as cluster:
    machine = cluster.add_machine("one")
    machine.serve("sleep", "300")
    sleeping = lambda: [process.pid for process in machine.processes() if process.name() == "sleep"]
    conftest.wait_until(sleeping, 10, "sleep")
    print(*sleeping(), cluster.base, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@LONG
def test_nothing_of_a_cluster_outlives_a_test_process_that_is_killed() -> None:
    here = str(Path(__file__).parent)
    killed = subprocess.run([sys.executable, "-c", OWNER, here], stdout=subprocess.PIPE, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    process, base = killed.stdout.split()
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(process)).wait(timeout=10)
    shutil.rmtree(base)
