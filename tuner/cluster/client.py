"""Client: the job server of a cluster; every fault of the network or the server is one sentence."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tuner.cluster.address import check_address, is_loopback
from tuner.cluster.jobs import Job, last_line, read_job
from tuner.cluster.tokens import find_token
from tuner.errors import BadInput, ClusterLost, HypertuneError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CONNECT, ANSWER = 10.0, 120.0
"""Seconds to wait for a connection, and for an answer to what was asked."""

TOLD_APART = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""What Ray's client prefers to the address that it is given, unchecked."""


class Cluster:
    """The job server of one cluster; open it with `connect`.

    Raises (every method):
        ClusterLost: it does not answer, or with an error of its own.
        BadInput: it refuses the token, or wants one.
    """

    def __init__(self, address: str, client: JobSubmissionClient) -> None:
        self.address = address
        self._client = client

    def jobs(self) -> list[Job]:
        """The jobs that `hypertune submit` sent, newest first."""
        with telling(self.address):
            found = [read_job(details) for details in self._client.list_jobs()]
        return sorted((job for job in found if job.run), key=lambda job: job.started, reverse=True)

    def find(self, wanted: str) -> Job:
        """A job by its id, or the newest of the run of that name.

        Raises:
            BadInput: there is none.
        """
        found = self.jobs()
        for job in found:
            if wanted == job.id:
                return job
        for job in found:
            if wanted == job.name:
                return job
        if not found:
            raise BadInput(f"{wanted}: there is no search on this cluster")
        known = ", ".join(job.id for job in found[:5])
        raise BadInput(f"{wanted}: no job and no run of this cluster; the newest: {known}; all: hypertune jobs")

    def job(self, job_id: str) -> Job:
        """A job as it is now."""
        with telling(self.address):
            return read_job(self._client.get_job_info(job_id))

    def submit(
        self, job_id: str, entrypoint: str, *, package: Path | None, env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """Start a job; package: zip file that becomes its working directory."""
        runtime = dict(env) if package is None else {**env, "working_dir": str(package)}
        with telling(self.address):
            self._client.submit_job(
                entrypoint=entrypoint, submission_id=job_id, runtime_env=runtime, metadata=dict(metadata)
            )

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False where it has no process that could hear it."""
        with telling(self.address):
            return bool(self._client.stop_job(job_id))

    def forget(self, job_id: str) -> None:
        """Take a job that has ended from the list."""
        with telling(self.address):
            self._client.delete_job(job_id)

    def logs(self, job_id: str) -> str:
        """All that a job has printed."""
        with telling(self.address):
            return str(self._client.get_job_logs(job_id))

    async def tail(self, job_id: str) -> AsyncGenerator[str, None]:
        """What a job has printed and prints, in pieces of whole or broken lines, until it ends."""
        with telling(self.address):
            async for piece in self._client.tail_job_logs(job_id):
                yield piece

    def versions(self) -> dict[str, str]:
        """Versions on the cluster: `ray`, and `python` where it says so."""
        with telling(self.address):
            found = {"ray": self._client._do_request("GET", "/api/version").json()["ray_version"]}
            answer = self._client._do_request("GET", "/api/v0/cluster_metadata")
            if answer.status_code == 200:
                found["python"] = (answer.json().get("data") or {}).get("pythonVersion") or ""
        return {name: str(version) for name, version in found.items() if version}


def connect(address: str | None, note: Callable[[str], None], *, insecure: bool = False) -> Cluster:
    """The cluster at an address, seen to answer; note: hears what was changed on the way.

    Raises:
        ClusterLost: it does not answer.
        BadInput: the address or the token cannot be used, or a package is missing.
    """
    url = check_address(address, insecure=insecure)
    token = find_token(note)
    try:
        import aiohttp  # noqa: F401 (Ray's client fails later, and less clearly, without them)
        import requests  # noqa: F401
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise BadInput("clusters need Ray's job client: pip install 'hypertune[cluster]'") from None
    for name in ("ray.dashboard", "ray._private.runtime_env"):  # they tell of each upload on the terminal
        logging.getLogger(name).propagate = False
        logging.getLogger(name).addHandler(logging.NullHandler())
    asked: dict[str, Any] = {"timeout": (CONNECT, ANSWER), "allow_redirects": False}  # the token is for this host
    if is_loopback(urlsplit(url).hostname or ""):
        asked["proxies"] = {"http": "", "https": ""}  # a proxy of the environment would get the token

    class Client(JobSubmissionClient):
        """Ray's client with an end to its patience, and with errors that say what to do."""

        def _do_request(self, method: str, endpoint: str, **rest: Any) -> Any:
            with telling(url):
                answer = super()._do_request(method, endpoint, **asked, **rest)
                if answer.is_redirect:
                    raise ClusterLost(f"{url} has moved to {answer.headers['Location']}; use that as --address")
                if answer.status_code >= 500:
                    raise ClusterLost(f"{url} answers {answer.status_code}: {last_line(answer.text)}")
                return answer

    headers = {"Authorization": f"Bearer {token}"} if token else None
    with telling(url), without(TOLD_APART):
        return Cluster(url, Client(url, headers=headers))


@contextmanager
def telling(url: str) -> Iterator[None]:
    """What the client raises, as errors of ours."""
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except HypertuneError:
        raise
    except AuthenticationError as error:
        raise _refused(url, "required" in str(error)) from None
    except aiohttp.WSServerHandshakeError as error:
        if error.status in (401, 403):
            raise _refused(url, error.status == 401) from None
        raise ClusterLost(f"{url} answers {error.status} to a request for the log") from None
    except (requests.exceptions.SSLError, aiohttp.ClientSSLError) as error:
        raise ClusterLost(f"{url}: its certificate is not trusted here ({last_line(str(error))})") from None
    except (requests.exceptions.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ClusterLost(f"{url} answers, but not as Ray's job server does ({last_line(str(error))})") from None
    except (OSError, aiohttp.ClientError) as error:  # requests' own are OSErrors
        slow = isinstance(error, requests.exceptions.Timeout | TimeoutError)
        what = "does not answer in time" if slow else "cannot be reached"
        raise ClusterLost(
            f"{url} {what}: is the head up, and the tunnel to it? (ssh -N -L 8265:127.0.0.1:8265 HEAD); "
            "a job that runs goes on without this connection"
        ) from None
    except RuntimeError as error:
        raise ClusterLost(f"{url}: {last_line(str(error))}") from None


def _refused(url: str, missing: bool) -> BadInput:
    if missing:
        return BadInput(
            f"{url} wants a token: put that of the head's ~/.ray/auth_token into the same file here (mode 0600), "
            "or name a file that holds it: RAY_AUTH_TOKEN_PATH=FILE"
        )
    return BadInput(
        f"{url} refuses the token: it is not that of this cluster; compare ~/.ray/auth_token, RAY_AUTH_TOKEN_PATH "
        "and RAY_AUTH_TOKEN here with the head's"
    )


@contextmanager
def without(names: tuple[str, ...]) -> Iterator[None]:
    """The environment without some variables, for a moment."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
