"""Stores: whole objects by name, on a disk and on a real S3 server; addresses that carry secrets; faults in words."""

from __future__ import annotations

import errno
import io
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.errors import BadInput, Locked, NoSpace
from tuner.records import writer
from tuner.records.bring import STATE, bring, local_log
from tuner.records.claim import Claim
from tuner.records.store import Store, StoreError, check_store, check_url, explain, is_url, join, open_store

NEVER = ()
"""No second try: for faults that are meant."""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server of our own with an empty bucket: the options of its addresses."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "ACCESS_KEY_ID": "test",
            "SECRET_ACCESS_KEY": "test",
            "EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(f"AWS_{name}", value)
        options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        from pyarrow import fs

        fs.FileSystem.from_uri(f"s3://bucket?{options}&allow_bucket_creation=true")[0].create_dir("bucket")
        yield options
        server.stop()


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3: str) -> Store:
    where = f"{tmp_path.as_uri()}/a b" if request.param == "file" else f"s3://bucket/{tmp_path.name}?{s3}"
    return open_store(where, NEVER)


def test_an_object_comes_back_and_the_last_one_written_counts(store: Store) -> None:
    store.put("log/1.jsonl", b"first")
    store.put("log/1.jsonl", b"second\x00")
    assert store.get("log/1.jsonl") == b"second\x00"
    assert store.get("log/2.jsonl") is None


def test_names_are_those_below_a_folder_with_their_sizes(store: Store) -> None:
    for name in ("run.json", "trials/002/a", "trials/001/b/c"):
        store.put(name, b"x" * len(name))
    assert store.names() == {"run.json": 8, "trials/001/b/c": 14, "trials/002/a": 12}
    assert list(store.names("trials/001")) == ["trials/001/b/c"]
    assert list(store.child("trials").names()) == ["001/b/c", "002/a"]
    assert store.names("none") == {}


def test_what_is_deleted_is_gone_and_may_be_deleted_again(store: Store) -> None:
    for name in ("a/1", "a/b/2", "c/3"):
        store.put(name, b"x")
    for _ in range(2):
        store.delete("c/3")
        store.delete_under("a/b")
    assert list(store.names()) == ["a/1"]


def test_files_go_up_and_come_down_in_pieces(store: Store, tmp_path: Path) -> None:
    data = os.urandom(17 * 2**20)
    (tmp_path / "here").write_bytes(data)
    with (tmp_path / "here").open("rb") as file:
        store.upload("weights", file)
    assert store.download("weights", tmp_path / "deep/there")
    assert (tmp_path / "deep/there").read_bytes() == data
    assert not store.download("none", tmp_path / "no") and not (tmp_path / "no").exists()


def test_a_file_that_breaks_off_leaves_no_object(store: Store, tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if piece := super().read(size):
                return piece
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StoreError, match="Input/output error"):
        store.upload("weights", Broken(b"x" * 100))
    assert store.names() == {}


def test_a_copy_within_the_store(store: Store) -> None:
    store.put("a/1", b"x")
    assert store.copy("a/1", "b/2") and store.get("b/2") == b"x"
    assert not store.copy("a/none", "b/3") and store.get("b/3") is None


def test_the_stores_own_clock_says_when_it_was_written(store: Store) -> None:
    store.put("a", b"x")
    then = store.written("a")
    store.put("b", b"x")
    assert then is not None and (store.written("b") or 0) >= then
    assert store.written("none") is None


def test_a_store_that_can_be_used_is_left_as_it_was(store: Store) -> None:
    store.put("mine", b"x")
    check_store(store)
    assert list(store.names()) == ["mine"]


def test_a_run_goes_to_the_store_and_comes_back(store: Store, tmp_path: Path) -> None:
    weights = f"trials/001/checkpoint_best/{STATE}"
    with writer.create(tmp_path, "r") as folder:
        folder.copy_to(store)
        folder.start_trial("001", {"seed": 0})
        folder.write_event("asked", trial="001", parameters={"a": 1})
        folder.write_row("001", {"epoch": 1})
        store.put(weights, b"{}")
        store.put(weights.replace("best", "000001"), b"{}")
        assert folder.copy
        folder.copy.forget("001", "checkpoint_000001".__eq__)
        folder.write_run(name="r", status="finished")
    assert bring(store, tmp_path / "b", weights=True) == ()
    found = sorted(str(path.relative_to(tmp_path / "b")) for path in (tmp_path / "b").rglob("*.json*"))
    assert found == ["events.jsonl", "run.json", weights, "trials/001/params.json", "trials/001/result.json"]
    assert local_log(tmp_path / "b") == local_log(tmp_path / "r")


# ---------------------------------------------------------------- addresses


def test_which_outs_are_addresses() -> None:
    assert all(map(is_url, ("s3://b/x", "gs://b", "file:///a", "ftp://a")))
    assert not any(map(is_url, ("results", "/abs/olute", "a:b", "C:/x", "s3:/b")))


def test_addresses_that_are_as_they_should_be() -> None:
    for url in ("s3://bucket", "s3://my.bucket-1/é 1/x?region=eu-west-1", "gs://anonymous@bucket/x", "file:///a@b/c:d"):
        check_url(url)


def test_names_go_before_the_options() -> None:
    assert join("s3://b/x/?region=eu", "é 1", "trials") == "s3://b/x/%C3%A9%201/trials?region=eu"
    assert join("s3://b", "run") == "s3://b/run"


@pytest.mark.parametrize(
    "url",
    [
        "s3://hush1:hush2@bucket/x",
        "s3://hush1:hu/hush2@bucket/x",
        "s3://hush1:hu/hush2",
        "s3://hush1@bucket/hush2",
        "gs://hush1:hush2@bucket",
        "s3://bucket/x?access_key=hush1&secret_key=hush2",
        "s3://bucket/x?hush1",
        "s3://bucket/x?region=eu&hush1=hush2",
        "s3://bucket/x?endpoint_override=hush1:hush2@host:9000",
    ],
)
def test_an_address_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        open_store(url)
    said = f"{refused.value} {refused.value.problems}"
    assert "hush" not in said


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/x", "s3://BUCKET/FOLDER"),
        ("file://results", "three slashes"),
        ("file:///a?region=eu", "may carry nothing"),
        ("s3://", "no bucket is named"),
        ("s3:///x", "no bucket is named"),
        ("s3://bucket/a/../b", "no `..`"),
        ("s3://bucket/a#b", "no `#`"),
    ],
)
def test_an_address_that_is_none_says_what_to_write(url: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        check_url(url)


# ---------------------------------------------------------------- faults


def test_a_bucket_that_is_not_there(s3: str) -> None:
    with pytest.raises(StoreError, match="there is no such bucket; make it"):
        check_store(open_store(f"s3://nowhere/x?{s3}"))


@pytest.mark.parametrize(
    ("said", "means", "passing"),
    [
        (
            "AWS Error ACCESS_DENIED during PutObject operation: Access Denied",
            "access denied.*AWS_ACCESS_KEY_ID",
            False,
        ),
        ("AWS Error UNKNOWN (HTTP status 403) during HeadObject operation: No response", "access denied", False),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation", "credentials are not accepted", False),
        ("AWS Error UNKNOWN (HTTP status 301) during ListObjectsV2", "another region; add .region=NAME", False),
        ("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate", "SLOW_DOWN", True),
        (
            "AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7",
            "cannot be reached",
            True,
        ),
    ],
)
def test_what_a_provider_says_becomes_one_sentence(said: str, means: str, passing: bool) -> None:
    failure = explain(OSError(said), "s3://bucket/x")
    assert isinstance(failure, StoreError) and failure.passing == passing
    with pytest.raises(StoreError, match=f"s3://bucket/x: .*{means}"):
        raise failure


def test_google_without_credentials_says_where_they_come_from() -> None:
    said = OSError("google::cloud::Status(UNAVAILABLE: Could not create a OAuth2 access token to authenticate")
    assert "there are no credentials; credentials come from GOOGLE" in str(explain(said, "gs://bucket"))


def test_a_full_disk_is_one() -> None:
    assert isinstance(explain(OSError(errno.ENOSPC, "No space left on device"), "file:///x"), NoSpace)


def test_what_fails_in_passing_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    store = open_store(tmp_path.as_uri(), (1.0, 2.0, 4.0))
    real, faults = store._system, [OSError("AWS Error SLOW_DOWN"), OSError("AWS Error NETWORK_CONNECTION")]

    class Flaky:
        def __getattr__(self, name: str) -> object:
            if faults:
                raise faults.pop()
            return getattr(real, name)

    store._system = Flaky()
    assert store.get("a") is None
    assert waited == [1.0, 2.0]


# ---------------------------------------------------------------- who writes


def as_elsewhere(store: Store) -> None:
    """Let the claim that is there be of a process on another machine."""
    text = (store.get("holder.json") or b"").replace(os.uname().nodename.encode(), b"elsewhere")
    store.put("holder.json", text)


def test_a_second_writer_is_refused_until_the_first_leaves(store: Store) -> None:
    first = Claim(store)
    with pytest.raises(Locked, match=f"process {os.getpid()}") as locked:
        Claim(store)
    assert locked.value.exit_code == 3
    first.leave()
    assert store.names() == {}
    Claim(store).leave()


def test_a_writer_elsewhere_counts_as_dead_a_minute_after_its_last_sign(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    Claim(store)
    as_elsewhere(store)
    now = time.time()
    os.utime(tmp_path / "holder.json", (now - 40, now - 40))
    with pytest.raises(Locked, match=r"on elsewhere, whose last sign of life is 4. seconds old.*no lock"):
        Claim(store)
    os.utime(tmp_path / "holder.json", (now - 61, now - 61))
    Claim(store).leave()


def test_a_writer_gives_a_sign_every_ten_seconds_and_notices_that_another_took_over(tmp_path: Path) -> None:
    now, store = 0.0, open_store(tmp_path.as_uri())
    claim = Claim(store, lambda: now)
    os.utime(tmp_path / "holder.json", (0, 0))
    now = 9.9
    claim.beat()
    assert store.written("holder.json") == 0
    now = 10.0
    claim.beat()
    assert (store.written("holder.json") or 0) > 0
    as_elsewhere(store)
    now = 20.0
    with pytest.raises(Locked, match=r"was taken over by process .* on elsewhere"):
        claim.beat()
    claim.leave()
    assert "holder.json" in store.names()  # it is the other one's


def test_a_writer_of_this_machine_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    Claim(store)
    text = (store.get("holder.json") or b"").replace(b'"pid": %d' % os.getpid(), b'"pid": 4194304')
    store.put("holder.json", text)
    Claim(store).leave()
