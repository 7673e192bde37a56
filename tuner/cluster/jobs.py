"""Jobs: the searches that a cluster was sent, as its job server tells of them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from tuner.cluster.frames import lines_of

KEY = "hypertune"
"""Metadata that only our jobs have: the version that sent them."""

WORDS = {
    "PENDING": "pending",
    "RUNNING": "running",
    "STOPPED": "stopped",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
}


@dataclass(frozen=True)
class Job:
    """A search on a cluster.

    name: of its run; run: folder or address of that, out: what holds it. status: pending, running, stopped, finished
    or failed. started, ended: seconds since 1970; ended is 0 while it runs. code: what its process ended with, None
    where Ray does not tell. reason: why it ended, as Ray says it. again: the command that submits it again, without
    the address.
    """

    id: str
    name: str
    run: str
    out: str
    status: str
    started: float
    ended: float
    code: int | None
    error: str
    reason: str
    again: str

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status not in ("pending", "running")

    @property
    def seconds(self) -> float:
        """How long it has taken, or takes."""
        return max(0.0, (self.ended or time.time()) - self.started)

    def as_dict(self) -> dict[str, Any]:
        """What --json prints of it."""
        return {
            "job": self.id, "name": self.name, "run": self.run, "status": self.status, "started": self.started,
            "ended": self.ended or None, "seconds": round(self.seconds, 1), "exit_code": exit_code(self),
        }  # fmt: skip


def read_job(details: Any) -> Job:
    """A job out of ray.job_submission.JobDetails; `run` is empty where it is no search of ours."""
    metadata = details.metadata or {}
    return Job(
        id=str(details.submission_id),
        name=metadata.get("name", ""),
        run=metadata.get("run", "") if KEY in metadata else "",
        out=metadata.get("out", ""),
        status=WORDS.get(str(details.status), str(details.status).lower()),
        started=(details.start_time or 0) / 1000,
        ended=(details.end_time or 0) / 1000,
        code=details.driver_exit_code,
        error=details.error_type or "",
        reason=details.message or "",
        again=metadata.get("again", ""),
    )


def exit_code(job: Job) -> int | None:
    """What a shell sees of a job that has ended: the exit code of its search; None while it runs."""
    if not job.over:
        return None
    if job.code is not None:
        return 128 - job.code if job.code < 0 else job.code
    return {"finished": 0, "stopped": 143}.get(job.status, 4 if job.error == "JOB_SUPERVISOR_ACTOR_DIED" else 1)


ENDINGS = {
    2: "the space or the data was refused; the lines above say why",
    3: "another process writes this run",
    4: "the search lost its cluster",
    5: "the disk that holds the results is full",
    126: "the head cannot run python",
    127: "the head has no python on its PATH",
}


def ending(job: Job, address: str) -> str:
    """How a job ended and what to type next, in a line or two."""
    code = exit_code(job)
    if code == 0:
        return f"{job.id} has finished; bring it home: hypertune fetch {job.id} --address {address}"
    if job.status == "stopped" or code in (130, 143):
        what = f"{job.id} was stopped"
    elif code in ENDINGS:
        what = f"{job.id} failed (exit {code}): {ENDINGS[code]}"
    elif code is not None and code > 128:
        what = f"{job.id} was killed (exit {code}): by somebody, or by its machine when memory ran out"
    else:
        what = f"{job.id} failed (exit {code}): {last_line(job.reason)}"
    missing = re.findall(r"No module named '(\w+)", job.reason)
    if missing and missing[-1] not in ("tuner", "analysis"):
        what += f"\nthe cluster has no {missing[-1]}: an image with it, or --pin, which installs what hypertune needs"
    way = "when that is mended" if code == 2 else "go on with it"
    return f"{what}\n{way}: {job.again} --address {address}"


HINTS = ("go on with it: ", "next ", "       ")
"""How lines begin with which a search says what to type next; none of them says why it ended."""


def last_line(text: str) -> str:
    """The last line of what Ray says, which may be a whole stack trace, but for what a search suggests at its end."""
    lines = [line.strip() for line in lines_of(text) if line.strip(" .") and not line.startswith(HINTS)]
    return lines[-1][:200] if lines else "no reason given"
