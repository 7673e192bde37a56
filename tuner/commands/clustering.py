"""The commands for Ray clusters: submit, jobs, logs, stop, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.terminal import OUT, Json, Sets

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


def jobs(address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    """List the searches of a cluster."""


def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="until the job ends, with the live table")] = False,
    address: Address = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Show what a job has printed."""


def stop(job: Job, address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    """End a job well: its running epochs finish, and the run can go on later."""


def fetch(
    job: Job,
    out: Annotated[Path, typer.Option(help="folder that holds the runs")] = OUT,
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="with the weights that were kept")] = True,
    address: Address = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Bring the run of a job home, to analyze and deliver it here."""
