"""The commands for Ray clusters: submit, jobs, logs, stop, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.terminal import OUT, Json, Sets, open_console, plain, print_json, print_table, progress, show

if TYPE_CHECKING:
    from tuner.cluster.client import Cluster
    from tuner.cluster.jobs import Job as Known
    from tuner.cluster.submitting import Order

Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        metavar="URL",
        help="of the cluster's job server, such as http://127.0.0.1:8265",
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="speak plain http to another machine all the same")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="job id, or the name of its run: then its newest job")]


def submit(
    space_file: Annotated[Path, typer.Argument(help="space file, such as my.yaml")],
    address: Address = None,
    out: Annotated[
        str | None,
        typer.Option(
            envvar="HYPERTUNE_RESULTS", help="folder that all nodes reach, or s3:// or gs:// address, for the runs"
        ),
    ] = None,
    sets: Sets = None,
    project: Annotated[
        Path | None, typer.Option(help="folder of your own code; default: that of the space file")
    ] = None,
    no_code: Annotated[
        bool, typer.Option("--no-code", help="send the space file alone: the image has hypertune and your code")
    ] = False,
    pin: Annotated[
        bool,
        typer.Option("--pin", help="install this machine's versions on the cluster, instead of trusting its image"),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="do not follow the job")] = False,
    insecure: Insecure = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be sent and stop")] = False,
    as_json: Json = False,
) -> None:
    """Send a search to a Ray cluster and follow it; a run of its name that is unfinished goes on."""
    from tuner.cluster.submitting import compare_versions, make_order, send

    console = open_console(stderr=as_json)
    order = make_order(
        space_file,
        out,
        sets=sets or (),
        project=project,
        code=not no_code,
        pin=pin,
        width=console.width if console.is_terminal else None,
    )
    if dry_run and as_json:
        print_json(sent(order))
        return
    cluster = None if dry_run else reach(address, insecure)
    for line in about(order, everything=dry_run):
        console.print(line, soft_wrap=True)
    if cluster is None:
        return
    for difference in compare_versions(cluster):
        console.print(f"note   {difference}", soft_wrap=True)
    with console.status("sending"):
        job_id = send(cluster, order)
    console.print(f"job    {job_id}", soft_wrap=True)
    if not detach:
        watch(cluster, job_id, as_json=as_json)
        return
    if as_json:
        print_json({**sent(order), "job": job_id})
        return
    console.print(f"follow it: hypertune logs {job_id} --follow --address {cluster.address}", soft_wrap=True)


def jobs(address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    """List the searches of a cluster."""
    from datetime import datetime

    from tuner.spec.text import show_time

    found = reach(address, insecure).jobs()
    if as_json:
        print_json([job.as_dict() for job in found])
        return
    if not found:
        typer.echo("no searches on this cluster; send one: hypertune submit SPACE --out WHERE")
        return
    rows = [
        (
            *(job.id, job.name, job.status),
            datetime.fromtimestamp(job.started).strftime("%Y-%m-%d %H:%M"),
            *(show_time(job.seconds), job.run),
        )
        for job in found
    ]
    print_table(("job", "run", "status", "since", "took", "results"), rows)


def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="until the job ends, with the live table")] = False,
    address: Address = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Show what a job has printed."""
    from tuner.cluster.frames import lines_of

    cluster = reach(address, insecure)
    known = cluster.find(job)
    if follow:
        watch(cluster, known.id, as_json=as_json)
        return
    lines = lines_of(cluster.logs(known.id))
    if as_json:
        print_json({**known.as_dict(), "lines": lines})
        return
    for line in lines:
        typer.echo(plain(line))


def stop(job: Job, address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    """End a job well: its running epochs finish, and the run can go on later."""
    from tuner.cluster.follow import stop as end

    cluster = reach(address, insecure)
    known = cluster.find(job)
    if known.over and not as_json:
        typer.echo(f"{known.id} has ended already ({known.status})")
    elif not known.over:
        with open_console(stderr=True).status(f"{known.id} is ending its running epochs") as status:
            known = end(cluster, known, lambda what, spent, _: status.update(f"{what} ({spent} s)"))
    if as_json:
        print_json({**known.as_dict(), "again": f"{known.again} --address {cluster.address}"})
    else:
        tell_end(open_console(), known, cluster.address)


def fetch(
    job: Job,
    out: Annotated[Path, typer.Option(help="folder that holds the runs")] = OUT,
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="with the weights that were kept")] = True,
    address: Address = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Bring the run of a job home, to analyze and deliver it here."""
    from tuner.cluster.fetch import fetch as bring

    cluster = reach(address, insecure)
    known = cluster.find(job)
    with progress() as tell:
        found = bring(cluster, known, out, tell, weights=weights)
    if as_json:
        print_json({"path": str(found.path), "copied": found.copied, "notes": list(found.notes)})
        return
    place = show(found.path)
    for text in found.notes:
        typer.echo(f"note   {plain(text)}")
    typer.echo(place if found.copied else f"{place} is that very run, on a disk that this machine shares: left there")
    if not known.over:
        typer.echo("it is not over" + ("; fetch it again to bring it up to date" if found.copied else ""))
    typer.echo(f"look at it: hypertune analyze {place}")


def reach(address: str | None, insecure: bool) -> Cluster:
    """The cluster, seen to answer."""
    from tuner.cluster.client import connect

    console = open_console(stderr=True)
    with console.status("reaching the cluster"):
        return connect(address, lambda text: console.print(f"note   {text}", soft_wrap=True), insecure=insecure)


def watch(cluster: Cluster, job_id: str, *, as_json: bool) -> None:
    """Follow a job until it ends, and leave with the exit code of its search; Ctrl-C leaves the job alone."""
    from tuner.cluster.follow import follow
    from tuner.cluster.jobs import exit_code
    from tuner.cluster.screen import Screen
    from tuner.errors import ClusterLost

    console = open_console(stderr=as_json)
    try:
        with Screen(console, f"{job_id} is starting on the cluster") as screen:
            job = follow(cluster, job_id, screen.hear)
    except KeyboardInterrupt:
        console.print(f"{job_id} goes on without this terminal", soft_wrap=True)
        for what, command in (("follow it", f"logs {job_id} --follow"), ("end it", f"stop {job_id}")):
            console.print(f"{what}: hypertune {command} --address {cluster.address}", style="dim", soft_wrap=True)
        raise typer.Exit(130) from None
    except ClusterLost as error:
        error.add_note(f"come back to it: hypertune logs {job_id} --follow --address {cluster.address}")
        error.add_note("on a new head, which knows no earlier job: the same submit again")
        raise
    if as_json:
        print_json(job.as_dict())
    else:
        tell_end(console, job, cluster.address)
    if code := exit_code(job):
        raise typer.Exit(code)


def tell_end(console: Any, job: Known, address: str) -> None:
    """How a job ended, and what to type next."""
    from tuner.cluster.jobs import ending

    console.print(plain(ending(job, address)), soft_wrap=True)


def about(order: Order, *, everything: bool) -> list[str]:
    """What is sent where, in lines."""
    from tuner.cluster.package import MB, shown

    files = order.package.files
    return [
        f"{order.name}   to {order.run}",
        *(f"       {plain(line)}" for line in shown(order.package, None if everything else 12)),
        f"sends  {len(files):,} files, {order.package.size / MB:,.1f} MB; no images",
        *([f"pins   {', '.join(order.env['pip'])}"] if "pip" in order.env else []),
        *(f"note   {plain(text)}" for text in order.notes),
    ]


def sent(order: Order) -> dict[str, Any]:
    """The same for programs."""
    package = order.package
    return {
        "name": order.name,
        "run": order.run,
        "entrypoint": order.entrypoint,
        "files": [{"name": file.name, "bytes": file.size} for file in package.files],
        "left_out": [{"name": name, "reason": reason} for name, reason in package.left_out],
        "bytes": package.size,
        "pins": order.env.get("pip", []),
        "notes": list(order.notes),
    }
