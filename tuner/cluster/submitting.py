"""Submitting: a search as the job that a cluster is sent: its command, environment and what is known of it."""

from __future__ import annotations

import platform
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import tuner
from tuner.cluster.client import Cluster
from tuner.cluster.jobs import KEY, Job
from tuner.cluster.package import Package, gather, missing_modules, write_zip
from tuner.errors import BadInput, ClusterLost, Locked
from tuner.records.store import check_url, is_url, join
from tuner.spec.data import expand_home
from tuner.spec.space import Space, load_space

STOP_WAIT = "30"
"""Seconds that a stopped job has for its running epochs; Ray gives 3."""


@dataclass(frozen=True)
class Order:
    """A search that can be sent. env: Ray's runtime environment, but the package; notes: what is worth knowing."""

    name: str
    run: str
    package: Package
    entrypoint: str
    env: dict[str, Any]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def make_order(
    space_file: Path,
    out: str | None,
    *,
    sets: Sequence[str] = (),
    project: Path | None = None,
    code: bool = True,
    pin: bool = False,
    width: int | None = None,
) -> Order:
    """The job of a search. width: columns of the terminal that follows it, None where none does.

    Raises:
        BadInput: it cannot work, and why.
    """
    space = load_space(space_file, sets)
    where = check_out(out)
    images, notes = _images(space)
    package = gather(space_file, space.text, project=project, code=code, images=images)
    if code and (missing := missing_modules(package, space.text)):
        notes.append(f"{', '.join(missing)}: not among the files that are sent; the cluster must have it installed")
    name = space.fixed.name
    command = ["python", "-m", "tuner.cli", "run", package.space, "--address", "auto", "--out", where]
    env = {"RAY_JOB_STOP_WAIT_TIME_S": STOP_WAIT, **({"HYPERTUNE_RELAY": str(width)} if width else {})}
    again = ["hypertune", "submit", str(space_file), "--out", where]
    again += [word for item in sets for word in ("--set", item)]
    again += [*(["--project", str(project)] if project else []), *([] if code else ["--no-code"])]
    again += ["--pin"] if pin else []
    run = join(where, name) if is_url(where) else str(PurePosixPath(where) / name)
    return Order(
        name=name,
        run=run,
        package=package,
        entrypoint=f"exec {shlex.join([*command, '--resume-if-exists'])}",
        env={"env_vars": env, **({"pip": pins()} if pin else {})},
        metadata={KEY: tuner.__version__, "name": name, "out": where, "run": run, "again": shlex.join(again)},
        notes=tuple(notes),
    )


def check_out(out: str | None) -> str:
    """Where the cluster keeps the runs: an absolute folder, or an address.

    Raises:
        BadInput: it is neither.
    """
    if not out:
        raise BadInput(
            "--out: say where the cluster keeps the run: a folder that all its nodes reach, such as /shared/results, "
            "or s3://BUCKET/PREFIX, or gs://BUCKET/PREFIX"
        )
    if is_url(out):
        check_url(out)
    elif not PurePosixPath(out).is_absolute():
        raise BadInput(f"--out {out}: a folder on the cluster must be written from its root, such as /shared/{out}")
    return out


def pins() -> list[str]:
    """This machine's versions of what hypertune depends on, for pip; Ray is the cluster's own.

    Raises:
        BadInput: hypertune is not installed here, so that nobody knows what it depends on.
    """
    try:
        wanted = metadata.requires("hypertune") or []
        names = [re.split(r"[^\w.-]", item)[0] for item in wanted if "extra ==" not in item]
        return [f"{name}=={metadata.version(name).split('+')[0]}" for name in sorted(names) if name != "ray"]
    except metadata.PackageNotFoundError as error:
        raise BadInput(f"--pin: {error.name} is not installed here, so its version cannot be sent along") from None


def compare_versions(cluster: Cluster) -> list[str]:
    """What differs between the cluster and this machine, and may matter.

    Raises:
        BadInput: they cannot work together.
    """
    import ray

    there = cluster.versions()
    if _minor(there["ray"]) != _minor(ray.__version__):
        raise BadInput(
            f"the cluster has Ray {there['ray']}, here is {ray.__version__}: they must agree in the first two numbers; "
            f"install the cluster's here: pip install 'ray[default,tune]=={there['ray']}'"
        )
    here = {"ray": ray.__version__, "python": platform.python_version()}
    return [f"{name} {here[name]} here, {there[name]} there" for name in there if here[name] != there[name]]


def send(cluster: Cluster, order: Order) -> str:
    """Send a search; its job id.

    Raises:
        Locked: a job of the same run has not ended yet.
        HypertuneError: what `Cluster` raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.zip"
        write_zip(order.package, path)
        refused: list[str] = []
        while True:
            jobs = cluster.jobs()
            if running := find_running(jobs, order.run):
                raise Locked(
                    f"{order.run} is being searched by job {running.id} ({running.status}); "
                    f"follow it: hypertune logs {running.id} --follow --address {cluster.address}\n"
                    f"or end it first: hypertune stop {running.id} --address {cluster.address}"
                )
            job_id = next_id(order.name, [*(job.id for job in jobs), *refused])
            try:
                cluster.submit(job_id, order.entrypoint, package=path, env=order.env, metadata=order.metadata)
            except ClusterLost as error:
                if "already exists" not in str(error):
                    raise
                refused.append(job_id)  # somebody sent it at this very moment: look again
            else:
                return job_id


def next_id(name: str, known: Sequence[str]) -> str:
    """A job id by number, and so not by chance: of two that are sent at the same moment the cluster takes one."""
    word = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    taken = (re.fullmatch(rf"{re.escape(word)}-job(\d+)", id) for id in known)
    return f"{word}-job{max((int(found[1]) for found in taken if found), default=0) + 1}"


def find_running(jobs: Sequence[Job], run: str) -> Job | None:
    """The job of a run that has not ended."""
    return next((job for job in jobs if job.run == run and not job.over), None)


def _images(space: Space) -> tuple[Path | None, list[str]]:
    """Where the images lie here, and what a cluster may not find of them."""
    root = space.fixed.data.root
    if root is None:
        return None, []
    path = expand_home(root)
    rule = "images are not sent; every node must have them at that path"
    if not path.is_absolute():
        return path, [f"data.root {root} is looked for in the job's own folder, which holds no images: {rule}"]
    if path.is_relative_to(Path.home()):
        return path, [f"data.root {root} lies in your home folder: {rule}"]
    return path, []


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
