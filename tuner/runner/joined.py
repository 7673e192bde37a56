"""Joined: a Ray cluster that runs already, seen from one of its nodes: who is there, whether all can work, who goes."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.errors import BadInput, ClusterLost, HypertuneError
from tuner.packing.packing import Machine
from tuner.runner import node as there
from tuner.runner.drive import SETTINGS, Stage, Watchdog, drive, name_images
from tuner.runner.heartbeat import Heartbeat, answers, leave
from tuner.runner.placing import Node, Placer
from tuner.runner.sharing import packing_of
from tuner.runner.signals import output_to

ASKED = 600.0
"""Seconds in which a node must answer what it is asked before the search; images are decoded in that time."""

SILENT = 10.0
"""Seconds after which a person is told what is waited for."""

LOOK = 2.0
"""Seconds between two looks at the head."""

SEE_CARDS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Ray hides a node's GPUs from what asks for none; to know them is not to use them."""

Say = Callable[[str], None]


class Joined:
    """A cluster that this process is the driver of. `machines`: the kinds of machines that can take trials."""

    def __init__(self, ray: Any, address: str, home: Path, scratch: Path, say: Say) -> None:
        self.address = address
        self._ray = ray
        self._home = home
        self._scratch = scratch
        self._say = say
        self._stage: Stage | None = None
        self._seen: Mapping[str, Mapping[str, Any]] = {}
        self._known: dict[str, Machine] = {}
        self._hosts: dict[str, str] = {}
        self._ready: dict[str, Node] = {}
        self._asked: dict[str, Any] = {}
        self._refused: set[str] = set()
        self._looked = 0.0
        self.wanting = False
        """Whether an autoscaler was asked for nodes that are not needed when the driver goes."""

    @property
    def machines(self) -> Sequence[Machine]:
        """Kinds of machines that can take trials, each with the number of such nodes."""
        kinds: dict[Machine, int] = {}
        for machine in self._known.values():
            kinds[machine] = kinds.get(machine, 0) + 1
        return [replace(machine, nodes=count) for machine, count in kinds.items()]

    def measure(self, machine: Machine, request: Any) -> Any:
        """Measure on a node of this kind, as `packing.measure` does on the machine that it runs on."""
        from tuner.packing.measure import measure

        chosen = next(id for id, known in self._known.items() if known == replace(machine, nodes=1))
        return self._get(self._on(chosen, measure, request))

    def search(self, stage: Stage) -> None:
        """See that all nodes can work, then let Tune drive the conductor.

        Raises:
            BadInput: a node does not see the results or the images.
            HypertuneError: what the conductor raised, or Ray's own troubles.
        """
        if stage.plan.space.fixed.resources.mps:
            raise BadInput(
                "resources.mps: on a cluster it is started by who starts its nodes; leave it out of the file"
            )
        watchdog = Watchdog(stage.last)
        self._stage, self._say = stage, stage.say
        stage.signals.install()
        watchdog.start(Heartbeat(self._ray).missing, LOOK)
        try:
            self._check(stage, sorted(self._known))
            placer = Placer(self._ready.values(), stage.plan.space.fixed.resources.trials_at_once)
            self.want(stage)
            if not stage.signals.caught:
                drive(stage, placer, self, watchdog, self._scratch, self._home)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise watchdog.lost or ClusterLost(f"Ray went away: {error}") from error
        finally:
            watchdog.stop()
            if watchdog.lost:
                self.wanting = False
                atexit.register(leave, watchdog.lost.exit_code)
            else:
                self.want(None)
                shutil.rmtree(stage.path / there.MARKS, ignore_errors=True)
                self._ray.shutdown()

    # ------------------------------------------------------------ who is there

    def _alive(self) -> dict[str, Mapping[str, Any]]:
        """Nodes that could take a trial, by id."""
        nodes = {n["NodeID"]: n for n in self._ray.nodes() if n["Alive"]}
        able = {id: node for id, node in nodes.items() if node["Resources"].get("CPU", 0) >= 1}
        self._seen = able
        with ThreadPoolExecutor(max_workers=min(32, len(able) or 1)) as pool:  # one that is gone costs a second
            return {id: able[id] for id, there in zip(able, pool.map(self._answers, able), strict=True) if there}

    def get_to_know(self) -> None:
        """Ask every node what it is; wait for the first one where an autoscaler has yet to start it.

        Raises:
            ClusterLost: there is no node that takes trials.
        """
        nodes, start = self._alive(), time.monotonic()
        if not nodes:
            self._say("no node takes trials yet; waiting for one")
            self._request([{"CPU": 1}])
        while not (nodes := self._alive()):
            if time.monotonic() - start > ASKED:
                raise ClusterLost(
                    f"no node has joined the cluster for {ASKED / 60:.0f} minutes; is there one with a CPU?"
                )
            time.sleep(LOOK)
        for id, answer in {id: self._on(id, there.describe) for id in nodes}.items():
            self._learn(id, self._get(answer))

    def _learn(self, id: str, said: Mapping[str, Any]) -> None:
        machine, has = Machine(**said["machine"]), self._seen[id]["Resources"]
        # What Ray may hand out counts: a head is often started with fewer cores than it has, or with none. Memory in
        # whole GiB: machines of one kind differ by some pages.
        memory = machine.memory >> 30 << 30 or machine.memory
        self._known[id] = replace(machine, cores=int(has["CPU"]), memory=memory, gpus=int(has.get("GPU", 0)))
        self._hosts[id] = str(said["host"])
        self._compare(said)

    def _compare(self, said: Mapping[str, Any]) -> None:
        from tuner.runner.about import versions

        theirs = said["versions"]
        pairs = ((name, theirs.get(name), mine) for name, mine in versions().items())
        other = [f"{name} {version}, here {mine}" for name, version, mine in pairs if version != mine]
        if other:
            self._say(f"note   {said['host']} has other versions: {'; '.join(other)}")

    def _get(self, answer: Any) -> Any:
        """What a node answers; what it refuses in our own words is raised as it is."""
        try:
            return self._ray.get(answer, timeout=ASKED)
        except self._ray.exceptions.RayError as error:
            if isinstance(cause := getattr(error, "cause", None), HypertuneError):
                raise cause from None
            raise ClusterLost(f"a node cannot do what it is asked: {_last_line(error)}") from error

    def _on(self, id: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Start a function on a node, whatever is busy there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(id, soft=False)
        task = self._ray.remote(function).options(
            num_cpus=0, scheduling_strategy=strategy, max_retries=2, runtime_env={"env_vars": SEE_CARDS}
        )
        return task.remote(*arguments)

    # ------------------------------------------------------------ whether they can work

    def _check(self, stage: Stage, ids: Sequence[str]) -> None:
        """See that these nodes reach the results and the images; they are ready then.

        Raises:
            BadInput: one of them does not.
        """
        waiting, began, told = self._ask(stage, ids), time.monotonic(), False
        for id in waiting:
            while not self._ray.wait([waiting[id]], timeout=1.0)[0]:
                if stage.signals.caught:
                    return
                if time.monotonic() - began > ASKED:
                    raise ClusterLost(f"{self._name(id)} has not answered for {ASKED / 60:.0f} minutes")
                if not told and time.monotonic() - began > SILENT:
                    told = True
                    stage.say(f"waiting for {self._name(id)}: each node decodes the images once")
            try:
                self._hear(stage, id, self._get(waiting[id]), must=True)
            except ClusterLost:
                if self._answers(id):
                    raise
                stage.say(f"{self._name(id)} is gone")
                del self._known[id]  # should it come back, it is asked again
        if not self._ready:
            raise ClusterLost("no node of the cluster takes trials")

    def _ask(self, stage: Stage, ids: Sequence[str]) -> dict[str, Any]:
        """Ask nodes whether they see what the driver sees."""
        marks = stage.path / there.MARKS
        said = f"driver-{uuid.uuid4().hex}"
        if not stage.store:
            marks.mkdir(exist_ok=True)
            (marks / said).write_text(said)
        job = {
            "run": str(stage.path),
            "store": stage.store,
            "said": said,
            "user_path": str(self._home),
            "split_seed": stage.plan.space.fixed.seed,
            "sizes": [name_images(stage.plan, size, self._home) for size in stage.plan.prepared],
        }
        return {id: self._on(id, there.check, {**job, "mark": id}) for id in ids}

    def _hear(self, stage: Stage, id: str, answer: Mapping[str, str], *, must: bool) -> None:
        problem, name = answer["problem"], self._name(id)
        if not problem and not stage.store and not (stage.path / there.MARKS / id).is_file():
            problem, answer = "what it writes there does not arrive here", {"about": "results"}
        if problem and answer["about"] == "results":
            problem = (
                f"{stage.store or stage.path}: {name} does not reach the results: {problem}. All nodes must reach "
                "them: name a shared folder, or an s3:// or gs:// address, with --out"
            )
        if problem and must:
            raise BadInput(problem)
        if problem:
            self._refused.add(id)
            self._say(f"{name} takes no trials: {problem}")
            return
        packing = packing_of(stage.plan.packings, self._known[id], stage.plan.trials)
        if not packing.at_once:
            self._refused.add(id)
            self._say(f"{name} takes no trials: it has {self._known[id].cores} cores and {self._known[id].gpus} GPUs")
            return
        self._ready[id] = Node(id, self._seen[id]["NodeManagerAddress"], self._hosts[id], packing)

    def _name(self, id: str) -> str:
        return f"node {self._hosts.get(id, id[:8])}"

    # ------------------------------------------------------------ who comes and goes

    def gone(self, address: str) -> bool:
        """Whether a node does not answer: the head takes 15 s and more to notice that."""
        here = [id for id, node in self._ready.items() if node.address == address]
        if here and all(map(self._answers, here)):
            return False
        self._looked = 0.0  # look at once
        return True

    def _answers(self, id: str) -> bool:
        node = self._seen.get(id)
        return node is not None and answers(node["NodeManagerAddress"], node["NodeManagerPort"], 1.0)

    def look(self, placer: Placer) -> list[str]:
        """Know the nodes as they are now; which jobs have lost theirs."""
        stage = self._stage
        assert stage is not None
        if time.monotonic() - self._looked < LOOK:
            return []
        self._looked = time.monotonic()
        alive = self._alive()
        for id in {*self._known, *self._asked} - alive.keys():  # what it answered is of no use: it is asked again
            self._known.pop(id, None)
            self._asked.pop(id, None)
            if self._ready.pop(id, None):
                self._say(f"{self._name(id)} is gone; its trials go on elsewhere from their checkpoints")
                if not self._ready:
                    self._say("no node takes trials now; waiting for one")
        for id in alive:
            if id not in self._known and id not in self._refused and id not in self._asked:
                self._asked[id] = self._on(id, there.describe)
        for id in [id for id, answer in self._asked.items() if self._ray.wait([answer], timeout=0)[0]]:
            self._welcome(stage, id, self._asked.pop(id))
        return placer.update(self._ready.values())

    def _welcome(self, stage: Stage, id: str, answer: Any) -> None:
        """Hear what a node that came later is, then what it sees."""
        try:
            said = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self._refused.add(id)
            self._say(f"{self._name(id)} takes no trials: {_last_line(error)}")
            return
        if id not in self._known:
            self._learn(id, said)
            self._asked.update(self._ask(stage, [id]))
            return
        self._hear(stage, id, said, must=False)
        if id in self._ready:
            self._say(f"{self._name(id)} has joined")

    def want(self, stage: Stage | None) -> None:
        """Tell an autoscaler how many trials could run at once; nothing at the end, so that it can let nodes go."""
        bundles = []
        if stage is not None:
            share = stage.plan.used.typical
            one = {"CPU": share.cpu, **({"GPU": share.gpu} if share.gpu else {})}
            most = stage.plan.space.fixed.resources.trials_at_once or stage.plan.trials
            bundles = [one] * min(most, stage.plan.trials, MOST_WANTED)
        self._request(bundles)

    def _request(self, bundles: list[dict[str, float]]) -> None:
        from ray.autoscaler.sdk import request_resources

        self.wanting = bool(bundles)
        with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError):
            request_resources(bundles=bundles)


MOST_WANTED = 1_000
"""Trials at once that an autoscaler is asked for at most."""


@contextlib.contextmanager
def join(address: str, say: Say) -> Iterator[Joined]:
    """Become a driver of the cluster that this machine is a node of; say: hears what a person should know.

    Raises:
        BadInput: an address that a driver cannot have.
        ClusterLost: no cluster answers.
    """
    if address.startswith("ray://"):
        raise BadInput(
            f"--address {address}: under Ray's client protocol the search would run on the head, without its lock and "
            "Ctrl-C; from outside use `hypertune submit`, on a node of the cluster --address auto"
        )
    if address.startswith(("http://", "https://")):
        raise BadInput(f"--address {address} is a job server: send it the search with `hypertune submit`")
    home, scratch = Path.cwd(), Path(tempfile.mkdtemp(prefix="ht-"))
    os.environ.update(SETTINGS)
    try:
        joined = Joined(_connect(address, scratch), address, home, scratch, say)
        try:
            joined.get_to_know()
            yield joined
        finally:
            if joined.wanting:
                joined.want(None)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _connect(address: str, scratch: Path) -> Any:
    import ray
    from ray._private.services import canonicalize_bootstrap_address_or_die

    hint = "start one with `ray start --head`, or leave --address out to search on this machine alone"
    try:
        found = canonicalize_bootstrap_address_or_die(address)
        host, _, port = found.rpartition(":")
        if not answers(host.strip("[]"), int(port), 5.0):  # Ray itself tries for three minutes
            raise ConnectionError(f"the head at {found} does not answer")
        _see_token(address, found)
        with contextlib.chdir(scratch):  # Ray puts the current directory first on its workers' sys.path
            ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # Ray's own leaves with 15
    except ValueError:
        raise BadInput(f"--address {address}: must be auto, or HOST:PORT of the head, such as 10.0.0.1:6379") from None
    except (ConnectionError, OSError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterLost(f"--address {address}: {_last_line(error)}; {hint}") from error
    return ray


def _see_token(address: str, found: str) -> None:
    """See at once, and in silence, that the head takes the token of this machine: Ray tries for 20 s, and prints.

    Raises:
        BadInput: it does not, or there is none.
    """
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient  # type: ignore[attr-defined] # its stubs are not whole
    from ray.exceptions import AuthenticationError

    try:
        with output_to(Path(os.devnull)):
            ensure_token_if_auth_enabled(create_token_if_missing=False)  # without a token the next line would abort
            GcsClient(address=found)
    except AuthenticationError:
        if os.environ.get("RAY_AUTH_MODE") != "token":
            raise BadInput(f"--address {address}: the cluster wants a token: export RAY_AUTH_MODE=token here") from None
        raise BadInput(
            f"--address {address}: there is no token here that the cluster takes: put that of the head into "
            "~/.ray/auth_token (mode 0600), or name the file that holds it: RAY_AUTH_TOKEN_PATH=FILE"
        ) from None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
