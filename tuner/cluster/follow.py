"""Following: a job's log as it grows, until the job ends; a connection that breaks is made again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable

from tuner.cluster.client import Cluster
from tuner.cluster.frames import Frame, Splitter
from tuner.cluster.jobs import Job
from tuner.errors import ClusterLost

QUIET = 30.0
"""Seconds of silence after which the job server is asked whether it and the job are still there."""

PATIENCE = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds between attempts to reach it again, about a minute in all."""


def follow(cluster: Cluster, job_id: str, hear: Callable[[str | Frame], None]) -> Job:
    """Hear a job's lines and frames until it has ended; the job then.

    Raises:
        ClusterLost: the job server was not reached again; the job may go on.
    """
    splitter = Splitter()

    def take(piece: str) -> None:
        for part in splitter.feed(piece):
            hear(part)

    job = asyncio.run(_follow(cluster, job_id, take))
    for part in splitter.close():
        hear(part)
    return job


async def _follow(cluster: Cluster, job_id: str, take: Callable[[str], None]) -> Job:
    seen, failed = 0, 0
    while True:
        skip = seen  # a log is told from its beginning each time
        async with contextlib.aclosing(_pieces(cluster, job_id)) as pieces:
            while True:
                try:
                    piece = await anext(pieces, None)
                    if piece is None and (job := await asyncio.to_thread(cluster.job, job_id)).over:
                        return job
                except ClusterLost:
                    if failed == len(PATIENCE):
                        raise
                    piece = None
                if piece is None:
                    break
                failed = 0
                new, skip = piece[skip:], max(0, skip - len(piece))
                seen += len(new)
                take(new)
        await asyncio.sleep(PATIENCE[min(failed, len(PATIENCE) - 1)])
        failed += 1


async def _pieces(cluster: Cluster, job_id: str) -> AsyncGenerator[str, None]:
    """The pieces of a log; ends too where the connection is silent and the job has ended.

    Raises:
        ClusterLost: the connection broke, or is silent and the job server does not answer.
    """
    over = False
    async with contextlib.aclosing(cluster.tail(job_id)) as pieces:
        while True:
            coming = asyncio.ensure_future(anext(pieces, None))
            try:
                while not (await asyncio.wait({coming}, timeout=QUIET))[0]:
                    if over:
                        return
                    over = (await asyncio.to_thread(cluster.job, job_id)).over
            finally:
                coming.cancel()  # does nothing to one that is done
                with contextlib.suppress(asyncio.CancelledError, ClusterLost):
                    await coming
            if (piece := coming.result()) is None:
                return
            yield piece


def stop(cluster: Cluster, job: Job, tell: Callable[[str, int, int], None], seconds: int = 300) -> Job:
    """Ask a job to end and wait until it has; tell: hears (what is awaited, seconds so far, of at most).

    Raises:
        ClusterLost: it had not ended after `seconds`.
    """
    began = time.monotonic()
    heard = False
    while not job.over:
        spent = int(time.monotonic() - began)
        if spent > seconds:
            raise ClusterLost(
                f"{job.id} is still {job.status} after {seconds} s; look at it: "
                f"hypertune logs {job.id} --address {cluster.address}"
            )
        heard = heard or cluster.stop(job.id)  # one that is pending has no process yet that could hear it
        tell(f"{job.id} is ending its running epochs", spent, seconds)
        time.sleep(LOOK)
        job = cluster.job(job.id)
    return job


LOOK = 0.5
"""Seconds between two looks at a job that is ending."""
