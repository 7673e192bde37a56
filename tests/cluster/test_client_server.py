"""What a job server may answer, and what a person reads then: one sentence, no stack trace, no token."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from tuner.cluster.client import Cluster, connect
from tuner.cluster.jobs import Job, ending, exit_code
from tuner.cluster.package import Package
from tuner.cluster.submitting import Order, compare_versions, next_id, send
from tuner.errors import BadInput, ClusterLost, Locked

TOKEN = "sesame-open"
Call = Callable[..., tuple[int, str, str]]


class Server(ThreadingHTTPServer):
    """A job server that answers what it is told: path -> (status, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, Any]] = {"/api/version": (200, {"ray_version": ray_version()})}
        self.asked: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        status, body = self.server.answers.get(self.path, (404, "nothing here"))
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 302:
            self.send_header("Location", body)
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *words: Any) -> None:
        pass


def ray_version() -> str:
    import ray

    return ray.__version__


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with Server() as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


def details(**changes: Any) -> dict[str, Any]:
    metadata = {"hypertune": "1", "name": "one", "run": "/x/one", "out": "/x", "again": "hypertune submit one.yaml"}
    job = {"type": "SUBMISSION", "submission_id": "one-1", "status": "RUNNING", "entrypoint": "x", "start_time": 1000}
    return {**job, "metadata": metadata, **changes}


def test_jobs_are_only_those_of_hypertune_newest_first(server: Server, call: Call) -> None:
    server.answers["/api/jobs/"] = (
        200,
        [
            details(),
            details(submission_id="other", metadata={"job": "x"}),
            details(submission_id="none", metadata=None),
            details(submission_id="one-2", start_time=2000, status="SUCCEEDED", end_time=5000, driver_exit_code=0),
        ],
    )
    code, out, _ = call("jobs", "--address", server.url, "--json")
    assert code == 0
    assert [(job["job"], job["status"], job["exit_code"]) for job in json.loads(out)] == [
        ("one-2", "finished", 0),
        ("one-1", "running", None),
    ]
    assert connect(server.url, print).find("one").id == "one-2"
    assert connect(server.url, print).find("one-1").id == "one-1"
    with pytest.raises(BadInput, match="one-2, one-1"):
        connect(server.url, print).find("two")
    code, out, _ = call("jobs", "--address", server.url)
    assert out.splitlines()[1].split()[:3] == ["one-2", "one", "finished"]


def test_a_second_job_of_a_run_is_refused_naming_the_first(server: Server, call: Call, tmp_path: Path) -> None:
    server.answers["/api/jobs/"] = (200, [details()])
    (tmp_path / "p").mkdir()
    space = tmp_path / "p" / "one.yaml"
    space.write_text("name: one\ndata: {dataset: digits}\n")
    code, _, err = call("submit", space, "--address", server.url, "--out", "/x")
    assert code == 3
    assert "hypertune logs one-1 --follow" in err
    assert "hypertune stop one-1" in err
    assert not [path for path, _ in server.asked if "packages" in path]  # nothing was sent


def test_two_that_are_sent_at_the_same_moment_are_one_job() -> None:
    class Busy:
        """A job server to which somebody else sends first, once."""

        address = "http://x"

        def __init__(self, run: str) -> None:
            self.known: list[Job] = []
            self.first = Job("one-job1", "one", run, "/x", "running", 1, 0, None, "", "", "")
            self.sent: list[str] = []

        def jobs(self) -> list[Job]:
            return list(self.known)

        def submit(self, job_id: str, entrypoint: str, **rest: Any) -> None:
            self.sent.append(job_id)
            if not self.known:
                self.known.append(self.first)
                raise ClusterLost("answers 500: ValueError: Job with submission_id one-job1 already exists.")

    order = Order("one", "/x/one", Package("one.yaml", (), ()), "true", {}, {}, ())
    same, other = Busy("/x/one"), Busy("/y/one")
    with pytest.raises(Locked, match="one-job1"):
        send(cast(Cluster, same), order)
    assert send(cast(Cluster, other), order) == "one-job2"
    assert (same.sent, other.sent) == (["one-job1"], ["one-job1", "one-job2"])


def test_jobs_of_a_name_are_numbered() -> None:
    assert next_id("my ü run", ["my-run-job1"]) == "my-run-job2"
    assert next_id("one", ["one-job9", "one-job10", "one-two-job11", "one-x"]) == "one-job11"


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (401, "Unauthorized", 2, "wants a token"),
        (403, "Forbidden", 2, "refuses the token"),
        (500, "Traceback (most recent call last):\n  File x\nOSError: gone", 4, "answers 500: OSError: gone"),
        (500, "Traceback (most recent call last):\n  File x\nOSError: gone\n.\n", 4, "answers 500: OSError: gone"),
        (302, "https://elsewhere", 4, "has moved to https://elsewhere"),
        (200, "<html>hello</html>", 4, "not as Ray's job server"),
        (200, {"what": "json"}, 4, "not as Ray's job server"),
        (200, [7], 4, "not as Ray's job server"),
        (404, "no", 4, "404"),
    ],
)
@pytest.mark.parametrize("path", ["/api/version", "/api/jobs/"])
def test_every_fault_is_one_sentence(
    path: str, status: int, body: Any, code: int, said: str, server: Server, call: Call
) -> None:
    server.answers[path] = (status, body)
    found, out, err = call("jobs", "--address", server.url)
    assert (found, said in err) == (code, True), err
    assert "Traceback" not in out + err
    assert TOKEN not in out + err
    assert len(err.strip().splitlines()) == 1


def test_nobody_there_is_one_sentence_with_the_tunnel(server: Server, call: Call) -> None:
    server.shutdown()
    server.server_close()
    code, out, err = call("jobs", "--address", server.url, "--json")
    assert code == 4
    assert "ssh -N -L" in json.loads(out)["error"]
    assert err == ""


def test_the_token_goes_to_the_address_that_was_given_and_to_nobody_else(
    server: Server, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as other:
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        server.answers["/api/jobs/"] = (200, [])
        assert call("jobs", "--address", server.url)[0] == 0
        assert other.asked == []
    assert {token for _, token in server.asked} == {f"Bearer {TOKEN}"}


def test_without_ray_default_it_says_what_to_install(
    server: Server, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    code, _, err = call("jobs", "--address", server.url)
    assert (code, "pip install 'hypertune[cluster]'" in err) == (2, True)


def test_another_ray_is_refused_and_another_python_is_said(server: Server) -> None:
    cluster = connect(server.url, print)
    server.answers["/api/v0/cluster_metadata"] = (200, {"data": {"pythonVersion": "3.10.1"}})
    (said,) = compare_versions(cluster)
    assert said.startswith("python ")
    server.answers["/api/version"] = (200, {"ray_version": "2.9.1"})
    with pytest.raises(BadInput, match=r"pip install 'ray\[default,tune\]==2.9.1'"):
        compare_versions(cluster)


def test_stop_asks_until_the_job_has_ended(server: Server, call: Call) -> None:
    server.answers["/api/jobs/"] = (200, [details()])
    server.answers["/api/jobs/one-1/stop"] = (200, {"stopped": True})
    server.answers["/api/jobs/one-1"] = (200, details(status="STOPPED", end_time=3000))
    code, out, _ = call("stop", "one", "--address", server.url)
    assert code == 0
    assert f"go on with it: hypertune submit one.yaml --address {server.url}" in out
    assert [path for path, _ in server.asked].count("/api/jobs/one-1/stop") == 1


def test_logs_leave_the_frames_out(server: Server, call: Call) -> None:
    server.answers["/api/jobs/"] = (200, [details()])
    server.answers["/api/jobs/one-1/logs"] = (200, {"logs": 'a\n\x1ehypertune {"frame": "x"}\n\x1b[31mb\x1b[0m\n'})
    assert call("logs", "one", "--address", server.url)[1].splitlines() == ["a", "b"]
    assert json.loads(call("logs", "one", "--address", server.url, "--json")[1])["lines"] == ["a", "b"]


def job(status: str, code: int | None = None, reason: str = "", error: str = "") -> Job:
    return Job("one-1", "one", "/x/one", "/x", status, 1, 2, code, error, reason, "hypertune submit one.yaml")


@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [
        (job("finished", 0), 0, "hypertune fetch one-1"),
        (job("failed", 5), 5, "disk"),
        (job("failed", 130), 130, "was stopped"),
        (job("failed", -9), 137, "was killed (exit 137)"),
        (job("failed", 2), 2, "when that is mended: hypertune submit"),
        (
            job("failed", 1, "no disk\n       x\nnext   hypertune analyze\ngo on with it: hypertune resume"),
            1,
            "no disk\n",
        ),
        (job("stopped"), 143, "was stopped"),
        (job("failed", error="JOB_SUPERVISOR_ACTOR_DIED"), 4, "lost its cluster"),
        (job("failed", reason="runtime_env setup failed\nno space"), 1, "no space"),
        (job("failed", 127), 127, "no python"),
        (job("failed", 1, "ModuleNotFoundError: No module named 'torch'"), 1, "no torch: an image with it, or --pin"),
        (job("running"), None, ""),
    ],
)
def test_the_end_of_a_job_has_the_exit_code_of_its_search_and_the_way_on(ended: Job, code: int, said: str) -> None:
    assert exit_code(ended) == code
    if ended.over:
        text = ending(ended, "http://x")
        assert said in text
        assert ("hypertune submit one.yaml --address http://x" in text) is (code != 0)


def test_who_loses_the_head_while_following_reads_how_to_come_back(
    server: Server, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(*given: Any) -> Job:
        raise ClusterLost("cannot be reached")

    monkeypatch.setattr("tuner.cluster.follow.follow", follow)
    server.answers["/api/jobs/"] = (200, [details()])
    code, _, err = call("logs", "one-1", "--follow", "--address", server.url)
    assert code == 4
    assert f"hypertune logs one-1 --follow --address {server.url}" in err
    assert "the same submit again" in err
