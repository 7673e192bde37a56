"""What a person reads who joins a cluster from one of its nodes and cannot; and where relative paths lead then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.errors import BadInput
from tuner.runner import joined


def test_paths_of_the_space_are_looked_for_where_the_search_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_connect", lambda *given: None)
    monkeypatch.setattr(joined.Joined, "get_to_know", lambda self: None)
    home = Path.cwd()
    with joined.join("auto", print):
        assert Path.cwd() == home


@pytest.mark.parametrize("address", ["nonsense", "ray://head:10001", "http://head:8265"])
def test_what_is_no_address_of_a_head_is_bad_input(address: str) -> None:
    with pytest.raises(BadInput, match=f"--address {address}"), joined.join(address, print):
        pass


@pytest.mark.slow
def test_a_token_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: one\ndata: {dataset: digits}\n")
    with socket.create_server(("", 0)) as head:  # Ray writes 127.0.0.1 as this machine's own address
        address = f"127.0.0.1:{head.getsockname()[1]}"
        command = [sys.executable, "-m", "tuner.cli", "run", "one.yaml", "--address", address]
        env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
        env["PYTHONPATH"] = str(Path(joined.__file__).parents[2])
        env.pop("RAY_AUTH_TOKEN", None)
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"--address {address}: there is no token here") and done.stderr.count("\n") == 1
