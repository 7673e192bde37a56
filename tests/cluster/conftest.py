"""A Ray cluster of real processes: every node a machine of its own, that can lose its power or its network.

A machine is a process with namespaces of its own: network, host name, process ids, mounts. It runs Ray's ordinary
`ray start` on Ray's ordinary ports, and when it is killed the kernel ends all that runs on it, as if its power were
cut. The machines hang on a switch, a network namespace with a bridge in it. None of this has a name outside and
nothing is left of it: the pipes to the machines close with the test process, whatever ends it, and they end then.
Where namespaces are not permitted (they need root) all nodes are raylets of this one host, at 127.0.0.2, .3 and so on.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

BIN = Path(sys.executable).parent
KILLING = Path(__file__).parents[1] / "runner" / "killing"
MACHINE = [sys.executable, str(Path(__file__).parent / "machines" / "machine.py")]
UNSHARE = ["unshare", "--net", "--fork"]
CLONE_NEWNET = 0x40000000
START = 150.0
"""Seconds that nodes may take to be alive: three at once need 8 on two idle cores, 20 on busy ones."""

WATCHFUL = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
}
"""Settings of a head that takes a node whose programs ended for dead after 5 seconds; with Ray's own it takes 15."""


@functools.cache
def apart() -> bool:
    """Whether machines can have namespaces of their own here."""
    bridge = ["ip", "link", "add", "lan", "type", "bridge"]
    tried = subprocess.run([*UNSHARE, "--pid", "--mount-proc", *bridge], capture_output=True)
    return tried.returncode == 0


def wait_until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Look ten times a second.

    Raises:
        AssertionError: it did not become true in time.
    """
    end, clock = time.monotonic() + seconds, threading.Event()
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} seconds in vain for {what}"
        clock.wait(0.1)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def in_namespaces(*more: str) -> subprocess.Popen[bytes]:
    """A process with a network of its own and `more` of its own; its only child holds them until our end closes."""
    process = subprocess.Popen([*UNSHARE, *more, *MACHINE], stdin=subprocess.PIPE)
    wait_until(psutil.Process(process.pid).children, 10, "namespaces")  # it forks when it has them
    return process


class Command(subprocess.Popen[str]):
    """A command on a machine. `nsenter` stands between: what is sent to it is for its child."""

    def send_signal(self, sig: int) -> None:
        for process in psutil.Process(self.pid).children() if apart() else [psutil.Process(self.pid)]:
            process.send_signal(sig)

    def until(self, true: Callable[[], object], what: str, seconds: float = 240) -> None:
        """Wait for it; an AssertionError where the command ends first, or it does not become true in time."""
        wait_until(lambda: true() or self.poll() is not None, seconds, what)
        assert self.poll() is None or true(), f"ended before {what}: {self.end()}"

    def end(self, seconds: float = 240) -> str:
        """Wait for its end; all that it said. An AssertionError where it does not end in time."""
        try:
            return "".join(self.communicate(timeout=seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not over after {seconds:.0f} seconds: {''.join(self.communicate())}") from None


@dataclass
class Machine:
    """One machine, with a home, a cache and a side record of its own, which `killing/sitecustomize.py` writes.

    tunnel: a machine on whose network its commands run, as if through `ssh -L`.
    """

    name: str
    ip: str
    home: Path
    environment: dict[str, str]
    tunnel: Machine | None = None
    init: subprocess.Popen[bytes] | None = None
    service: subprocess.Popen[bytes] | None = None
    commands: list[Command] = field(default_factory=list)

    @property
    def work(self) -> Path:
        """The folder that its user works in."""
        return self.home / "work"

    @property
    def side(self) -> Path:
        return self.home / "side.txt"

    @property
    def log(self) -> Path:
        """What its service says."""
        return self.home / "service.log"

    def boot(self, token: str) -> None:
        """Make its home, and its namespaces where that is permitted."""
        for folder in (self.home / "ray", self.home / ".ray", self.work):
            folder.mkdir(parents=True)
        (self.home / ".ray" / "auth_token").touch(0o600)
        (self.home / ".ray" / "auth_token").write_text(token)
        places = {"HOME": self.home, "HYPERTUNE_CACHE": self.home / "cache", "SIDE": self.side}
        self.environment |= {name: str(place) for name, place in places.items()}
        if apart():
            Path("/tmp/ray").mkdir(exist_ok=True)
            self.init = in_namespaces("--uts", "--mount", "--ipc", "--pid", "--kill-child", "--mount-proc")
            own = f"mount -t tmpfs tmpfs /dev/shm && mount --bind {self.home / 'ray'} /tmp/ray"
            self.do("sh", "-c", f"hostname {self.name} && ip link set lo up && {own}")

    def enter(self, *command: str) -> list[str]:
        """The command that runs `command` on it."""
        if self.init is None:
            return list(command)
        mine = f"/proc/{self.init.pid}/ns"
        net = f"/proc/{self.tunnel.init.pid}/ns/net" if self.tunnel and self.tunnel.init else f"{mine}/net"
        spaces = [f"--net={net}", f"--uts={mine}/uts", f"--ipc={mine}/ipc", f"--mount={mine}/mnt"]
        return ["nsenter", *spaces, f"--pid={mine}/pid_for_children", "--wd=.", *command]

    def do(self, *command: str) -> str:
        """Run it on this machine to its end; what it printed."""
        done = subprocess.run(self.enter(*command), env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{self.name}: {' '.join(command)}: {done.stderr}{done.stdout}"
        return done.stdout

    def start(self, *command: str, **extra: str) -> Command:
        """Start it on this machine."""
        started = Command(
            self.enter(*command), cwd=self.work, env={**self.environment, **extra}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever shell ignores it for us
        )  # fmt: skip
        self.commands.append(started)
        return started

    def serve(self, *command: str) -> None:
        """Run it until the machine ends."""
        with self.log.open("wb") as log:
            self.service = subprocess.Popen(
                self.enter(*command) if apart() else [*MACHINE, *command],
                env=self.environment, cwd="/", stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip

    def serve_ray(self, *options: str) -> None:
        """`ray start --block` with these options."""
        own = [] if apart() else [f"--temp-dir={self.home / 'ray'}"]
        self.serve(str(BIN / "ray"), "start", "--block", "--disable-usage-stats", f"--node-ip-address={self.ip}",
                   "--object-store-memory=80000000", "--include-log-monitor=False", *own, *options)  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """All that was started on it."""
        root = self.init or self.service
        if root is None or root.poll() is not None:
            return []
        if self.init is None:
            return list(psutil.Process(root.pid).children(recursive=True))
        space = Path(f"/proc/{self.init.pid}/ns/pid_for_children").readlink()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == space and process.ppid() != self.init.pid:
                    found.append(process)
        return found

    def end(self, *names: str) -> None:
        """Kill what runs on it by one of these names; all that runs on it where none is named."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if not names or any(Path(word).name in names for word in process.cmdline()[:3]):
                    process.kill()

    def kill(self) -> None:
        """Cut its power: nothing says goodbye."""
        if self.init:
            self.init.kill()  # and with it, at once, all that has a process id of its namespace
        for process in (self.init, self.service):
            if process and process.stdin:
                process.stdin.close()
                process.wait(timeout=30)


@dataclass
class Cluster:
    """A head and its workers. shared: the folder that all of them see; settings: environment of all of them."""

    base: Path
    shared: Path
    settings: dict[str, str] = field(default_factory=dict)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    machines: list[Machine] = field(default_factory=list)
    switch: subprocess.Popen[bytes] | None = None
    ports: tuple[int, int] = (6379, 8265)

    def __getitem__(self, name: str) -> Machine:
        return next(machine for machine in self.machines if machine.name == name)

    @property
    def head(self) -> Machine:
        """The newest head."""
        return next(machine for machine in reversed(self.machines) if machine.name.startswith("head"))

    @property
    def address(self) -> str:
        """Of its GCS, as nodes join it."""
        return f"{self.head.ip}:{self.ports[0]}"

    @property
    def job_url(self) -> str:
        """Of its job server: on the loopback of the head, where a client gets through a tunnel."""
        return f"http://127.0.0.1:{self.ports[1]}"

    def add_machine(self, name: str) -> Machine:
        """A machine on the network, without Ray."""
        if apart() and self.switch is None:
            self.switch = in_namespaces()
            self._on_switch("ip link add lan type bridge && ip link set lan up")
        number = len(self.machines) + 1
        ip = f"10.77.0.{number}" if apart() else f"127.0.0.{number + 1}"
        ours = ("RAY_", "HYPERTUNE_", "PYTEST_", "COV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        machine = Machine(name, ip, self.base / name, {
            **kept, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(KILLING), "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token", "RAY_prestart_worker_first_driver": "0", **self.settings,
        })  # fmt: skip
        self.machines.append(machine)
        machine.boot(self.token)
        if machine.init:
            self._on_switch(f"ip link add {name} type veth peer name eth0 netns {machine.init.pid}"
                            f" && ip link set {name} master lan up")  # fmt: skip
            machine.do("sh", "-c", f"ip addr add {ip}/24 dev eth0 && ip link set eth0 up")
        elif any(machine.name.startswith("head") for machine in self.machines):
            machine.environment["RAY_ADDRESS"] = self.address  # Ray's own search finds every cluster of this host
        return machine

    def _on_switch(self, script: str) -> None:
        assert self.switch is not None
        done = subprocess.run(["nsenter", "-t", str(self.switch.pid), "-n", "sh", "-c", script], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()

    def start_head(self, cpus: int = 0) -> Machine:
        """Start a head; every later node joins it."""
        self.ports = self.ports if apart() else (free_port(), free_port())
        head = self.add_machine(f"head{sum(machine.name.startswith('head') for machine in self.machines) or ''}")
        server = ("--dashboard-host=127.0.0.1", f"--dashboard-port={self.ports[1]}")
        head.serve_ray("--head", f"--port={self.ports[0]}", *server, f"--num-cpus={cpus}")
        return head

    def add_node(self, cpus: int = 1, gpus: int = 0, hides: Path | None = None) -> Machine:
        """Start a worker. `gpus` are pretended; `hides` is a folder in whose place it sees an empty disk of its own."""
        node = self.add_machine(f"node{sum(machine.name.startswith('node') for machine in self.machines) + 1}")
        if hides:
            node.do("mount", "-t", "tmpfs", "tmpfs", str(hides))
        node.serve_ray(f"--address={self.address}", f"--num-cpus={cpus}", *([f"--num-gpus={gpus}"] if gpus else []))
        return node

    def add_laptop(self) -> Machine:
        """A machine that has nothing of the cluster but a tunnel to its job server, the token, and no shared folder."""
        laptop = self.add_machine("laptop")
        laptop.tunnel = self.head
        laptop.environment |= {"RAY_API_SERVER_ADDRESS": self.job_url, "RAY_ADDRESS": ""}
        if laptop.init:
            laptop.do("mount", "-t", "tmpfs", "tmpfs", str(self.shared))
        return laptop

    def alive(self) -> set[str]:
        """Names of the machines whose Ray the head takes for alive."""
        try:
            status, body = self.get("/nodes?view=summary")
        except (OSError, ValueError):
            return set()
        nodes = body["data"]["summary"] if status == 200 else []
        raylets = [node["raylet"] for node in nodes]  # empty while nothing is known of a node
        ips = {raylet["nodeManagerAddress"] for raylet in raylets if raylet.get("state") == "ALIVE"}
        return {machine.name for machine in self.machines if machine.ip in ips}

    def wait_for(self, *names: str, only: bool = False) -> None:
        """Wait until these nodes, and the head's job server, are there; only: and no others any more."""
        try:
            wait_until(lambda: self.alive() == {*names} if only else self.alive() >= {*names}, START, f"nodes {names}")
        except AssertionError as late:
            said = [f"{m.name}: {m.log.read_text()[-800:]}" for m in self.machines if m.log.exists()]
            raise AssertionError("\n".join([str(late), *said])) from None

    def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """What the head's HTTP server answers to this path: status and body.

        Raises:
            OSError: nobody answers.
        """
        init = self.head.init
        request = urllib.request.Request(self.job_url + path)
        request.add_header("Authorization", f"Bearer {self.token if token is None else token}")

        def ask() -> tuple[int, Any]:
            if init:
                with Path(f"/proc/{init.pid}/ns/net").open() as network:
                    entered = ctypes.CDLL(None).setns(network.fileno(), CLONE_NEWNET)  # this thread alone
                    assert entered == 0
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as refused:
                with refused:
                    return refused.code, refused.read().decode()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(ask).result()

    def unplug(self, machine: Machine) -> None:
        """Cut its network: it runs on, and nobody hears of it."""
        self._on_switch(f"ip link set {machine.name} down")

    def kill_gcs(self) -> None:
        """Kill the head's server; the machine that it ran on stays up."""
        next(process for process in self.head.processes() if process.name() == "gcs_server").kill()

    def forget(self) -> None:
        """Begin new side records."""
        for machine in self.machines:
            machine.side.unlink(missing_ok=True)

    def end_searches(self) -> None:
        """End what a test has left running on the machines, but Ray."""
        for machine in self.machines:
            machine.end("hypertune", "tuner.cli")
            for command in machine.commands:
                with command:  # waits, and closes its pipes
                    if command.poll() is None:
                        command.kill()
            machine.commands.clear()

    def close(self) -> None:
        """End all of it."""
        for machine in self.machines:
            machine.kill()
        self.end_searches()
        if self.switch and self.switch.stdin:
            self.switch.stdin.close()
            self.switch.wait(timeout=30)


@contextlib.contextmanager
def cluster_with(*, watchful: bool = False, **settings: str) -> Iterator[Cluster]:
    """A network for a cluster, gone afterwards. Its folder has a short name: Ray's sockets allow 107 bytes."""
    base = Path(tempfile.mkdtemp(prefix="hc-", dir="/tmp"))
    cluster = Cluster(base, base / "shared", {**settings, **(WATCHFUL if watchful else {})})
    cluster.shared.mkdir()
    try:
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(base)


@pytest.fixture(scope="session")
def network() -> Callable[..., contextlib.AbstractContextManager[Cluster]]:
    """`with network(SLOW="0.3") as cluster:` a network without machines, with these settings on each of them."""
    return cluster_with
