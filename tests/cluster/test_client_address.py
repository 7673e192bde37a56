"""Addresses and tokens: what is spoken to, and what stays secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.cluster.address import DEFAULT, check_address
from tuner.cluster.tokens import find_token
from tuner.errors import BadInput


@pytest.fixture(autouse=True)
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, DEFAULT),
        ("127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("http://127.3.2.1:1/", "http://127.3.2.1:1"),
        ("http://[::1]:8265", "http://[::1]:8265"),
        ("localhost:9", "http://localhost:9"),
        ("https://ray.example.org/team/", "https://ray.example.org/team"),
    ],
)
def test_loopback_and_https_are_spoken_to(given: str | None, used: str) -> None:
    assert check_address(given) == used


@pytest.mark.parametrize("host", ["head", "10.0.0.3", "localhost.evil.org", "127.0.0.1.evil.org", "[::2]", "0.0.0.0"])
def test_plain_http_to_another_machine_is_refused_with_the_tunnel(host: str) -> None:
    with pytest.raises(BadInput, match=r"ssh -N -L 8265:127\.0\.0\.1:8265"):
        check_address(f"http://{host}:8265")
    assert check_address(f"http://{host}:8265", insecure=True) == f"http://{host}:8265"


@pytest.mark.parametrize("address", ["head:6379", "http://127.0.0.1:6379"])
def test_the_address_that_ray_itself_goes_by_is_told_apart(address: str) -> None:
    with pytest.raises(BadInput, match="the job server's is 8265"):
        check_address(address)


@pytest.mark.parametrize("address", ["auto", "ray://head:10001", "ftp://head", "http://", "http://head:port", "//"])
def test_what_is_no_job_server_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="--address"):
        check_address(address, insecure=True)


@pytest.mark.parametrize(
    "address",
    ["https://me:hunter2@head", "me:hunter2@head:8265", "https://head/?token=hunter2", "https://head/#hunter2"],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_address(address, insecure=True)
    assert "hunter2" not in str(caught.value)


def test_tokens_are_found_in_the_order_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    assert find_token(notes.append) is None
    for path, token in ((tmp_path / ".ray" / "auth_token", "third"), (tmp_path / "named", "second")):
        path.parent.mkdir(exist_ok=True)
        path.touch(0o600)
        path.write_text(token + "\n")
    assert find_token(notes.append) == "third"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert find_token(notes.append) == "second"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "first")
    assert find_token(notes.append) == "first"
    assert notes == []
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert find_token(notes.append) is None


def test_a_token_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("sesame")
    path.chmod(0o644)
    notes: list[str] = []
    assert find_token(notes.append) == "sesame"
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(path) in notes[0]
    assert "sesame" not in notes[0]


def test_a_token_of_somebody_else_that_others_may_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("sesame")
    path.chmod(0o640)
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(BadInput, match="chmod 600"):
        find_token(print)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", "schlüssel".encode()])
def test_a_file_that_holds_no_token_is_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_bytes(content)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(BadInput, match="token"):
        find_token(print)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(BadInput, match="cannot be read"):
        find_token(print)
