"""Store: a folder in an object store (s3://, gs://), or on a disk (file:///): whole objects by name, no appending.

Around pyarrow.fs. Credentials come from where the provider's own tools look: the environment, its files, the machine's
role. An address that carries any is refused and never repeated.
"""

from __future__ import annotations

import contextlib
import errno
import io
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from tuner.errors import BadInput, HypertuneError, NoSpace

OPTIONS: dict[str, tuple[str, ...]] = {
    "s3": ("region", "scheme", "endpoint_override", "allow_bucket_creation", "tls_ca_file_path"),
    "gs": ("scheme", "endpoint_override", "retry_limit_seconds"),
    "file": (),
}
"""What an address may say after its `?`: pyarrow's own names."""

ADDED: dict[str, dict[str, str]] = {
    "s3": {"allow_delayed_open": "true"},  # one request for a small object instead of the three of a multipart upload
    "gs": {"retry_limit_seconds": "15"},  # else Google's client tries for 15 minutes
    "file": {},
}

WAITS = (0.5, 2.0, 8.0)
"""Seconds before a request that failed in passing is made again; the providers' clients have tried three times."""

PIECE = 16 * 2**20
"""Bytes that are held in memory of a file on its way."""

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login` or the machine's account",
    "file": "the user that this process runs as",
}
"""Where credentials come from."""

T = TypeVar("T")


class StoreError(HypertuneError):
    """A store refused or cannot be reached; `passing`: it may do later what it did not now."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class Store:
    """A folder of a store; names are relative to it, with `/`. Threads may use it at the same time.

    An object is there whole or not at all, whenever the process that writes it dies. Every method raises StoreError,
    and NoSpace for a full disk.
    """

    def __init__(self, url: str, system: Any, root: str, waits: Sequence[float] = WAITS) -> None:
        self.url = url
        self._system = system
        self._root = root.rstrip("/")
        self._waits = waits
        self._scheme = _scheme(url)

    def child(self, name: str) -> Store:
        """The folder of this name in it."""
        return Store(join(self.url, name), self._system, self._at(name), self._waits)

    def put(self, name: str, data: bytes) -> None:
        """Write an object, in place of one that is there."""
        self.upload(name, io.BytesIO(data))

    def upload(self, name: str, file: BinaryIO) -> None:
        """Write an object of all that an open file holds."""

        def write() -> None:
            file.seek(0)
            if self._scheme == "file":
                _write_file(Path(self._at(name)), file)
                return
            broken: list[OSError] = []
            with self._system.open_output_stream(self._at(name)) as stream:
                for piece in _pieces(file, broken):
                    stream.write(piece)
            if broken:  # pyarrow completed the object all the same
                self._system.delete_file(self._at(name))
                raise broken[0]

        self._try(write)

    def get(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none."""

        def read() -> bytes:
            with self._system.open_input_stream(self._at(name)) as stream:
                return bytes(stream.read())

        return self._find(read)

    def download(self, name: str, path: Path) -> bool:
        """Write an object to a file, whole or not at all, and make its folder; whether there is one."""
        temporary = path.with_name(path.name + ".tmp")

        def read() -> bool:
            with self._system.open_input_stream(self._at(name)) as stream:
                path.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    while piece := stream.read(PIECE):
                        file.write(piece)
            temporary.replace(path)
            return True

        try:
            return bool(self._find(read))
        finally:
            temporary.unlink(missing_ok=True)

    def names(self, under: str = "") -> dict[str, int]:
        """The objects below a folder: name -> bytes, sorted."""
        from pyarrow import fs

        def look() -> dict[str, int]:
            found = self._system.get_file_info(fs.FileSelector(self._at(under), allow_not_found=True, recursive=True))
            files = {entry.path: entry.size for entry in found if entry.type == fs.FileType.File}
            start = len(self._root) + 1
            return {path[start:]: files[path] for path in sorted(files) if not path.endswith(".tmp")}

        return self._try(look)

    def written(self, name: str) -> float | None:
        """When an object was written, by the store's own clock, in seconds; None where there is none."""

        def look() -> float | None:
            (entry,) = self._system.get_file_info([self._at(name)])
            return float(entry.mtime_ns) / 1e9 if entry.mtime_ns is not None else None

        return self._try(look)

    def copy(self, source: str, target: str) -> bool:
        """Copy an object, without bringing it here; whether there was one."""

        def copy() -> bool:
            if self._scheme == "file":
                with Path(self._at(source)).open("rb") as file:
                    _write_file(Path(self._at(target)), file)
            else:
                self._system.copy_file(self._at(source), self._at(target))
            return True

        return bool(self._find(copy))

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        self._find(lambda: self._system.delete_file(self._at(name)))

    def delete_under(self, folder: str) -> None:
        """Delete all objects below a folder."""
        self._find(lambda: self._system.delete_dir(self._at(folder)))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _find(self, act: Callable[[], T]) -> T | None:
        try:
            return self._try(act)
        except FileNotFoundError:
            return None

    def _try(self, act: Callable[[], T]) -> T:
        from pyarrow import ArrowException

        for wait in (*self._waits, None):
            try:
                return act()
            except (OSError, ArrowException) as error:
                if "AWS Error NO_SUCH_KEY" in str(error):  # a copy says it in other words than a read
                    raise FileNotFoundError(errno.ENOENT, "no such object") from None
                if isinstance(error, FileNotFoundError):
                    raise
                failure = explain(error, self.url)
                if wait is None or not getattr(failure, "passing", False):
                    raise failure from None
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")


def is_url(out: str) -> bool:
    """Whether this names a store, or means to, and no folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", out) is not None


def join(url: str, *names: str) -> str:
    """The address of what is below: the names go before the `?`."""
    before, mark, options = url.partition("?")
    return "/".join([before.rstrip("/"), *(quote(name) for name in names)]) + mark + options


def open_store(url: str, waits: Sequence[float] = WAITS) -> Store:
    """Open a store; for s3:// without a region it is asked for the bucket's.

    Raises:
        BadInput: the address is none that can be used; one that carries credentials is not repeated.
        StoreError: the store refused, or cannot be reached.
    """
    from pyarrow import ArrowException, fs

    check_url(url)
    parts = urlsplit(url)
    scheme = _scheme(url)
    options = {**ADDED[scheme], **dict(parse_qsl(parts.query))}
    place = f"{scheme}://{parts.netloc}{quote(parts.path, safe='/%')}"
    try:
        system, root = fs.FileSystem.from_uri(place + (f"?{urlencode(options)}" if options else ""))
    except (OSError, ArrowException) as error:
        raise explain(error, url) from None
    return Store(join(url), system, root, waits)


def check_url(url: str) -> None:
    """See that an address can be used, without asking anybody.

    Raises:
        BadInput: it cannot; what may be a secret is not repeated.
    """
    scheme = _scheme(url)
    before, _, query = url.partition("?")
    place = before.partition("://")[2]
    if scheme not in OPTIONS:
        raise BadInput(f"{scheme[:20]}:// is no store that is known; write s3://BUCKET/FOLDER, gs:// or file:///FOLDER")
    anonymous = scheme == "gs" and place.startswith("anonymous@")
    bucket, _, folder = place.removeprefix("anonymous@" if anonymous else "").partition("/")
    if scheme != "file" and ("@" in bucket + folder or ":" in bucket):
        raise BadInput(f"the {scheme}:// address carries a user or a password; leave it out: {_where_from(scheme)}")
    pairs = parse_qsl(query, keep_blank_values=True)
    if any(key not in OPTIONS[scheme] or "@" in value for key, value in pairs) or (query and not pairs):
        may = ", ".join(OPTIONS[scheme]) or "nothing"
        raise BadInput(f"the {scheme}:// address may carry {may} after its `?`, and no keys: {_where_from(scheme)}")
    if "#" in url:
        raise BadInput(f"{url}: a store's address has no `#`")
    if scheme == "file" and (bucket or not folder):
        raise BadInput(f"{url}: write file:///FOLDER, with three slashes")
    if scheme != "file" and not re.fullmatch(r"[A-Za-z0-9][\w.-]{1,220}", bucket):
        raise BadInput(f"{url}: no bucket is named; write {scheme}://BUCKET/FOLDER")
    if any(part in (".", "..") for part in folder.split("/")):
        raise BadInput(f"{url}: a folder in a store has no `.` and no `..`")


def check_store(store: Store) -> None:
    """See that it can be written, read, listed and deleted in.

    Raises:
        StoreError, NoSpace: it cannot; the text says what fails.
    """
    folder, data = f"check-{uuid.uuid4().hex[:12]}", b"hypertune"
    store.put(f"{folder}/object", data)
    if store.get(f"{folder}/object") != data or list(store.names(folder)) != [f"{folder}/object"]:
        raise StoreError(f"{store.url}: what was written there was not found again; another store is needed")
    store.delete_under(folder)
    if store.names(folder):
        raise StoreError(f"{store.url}: what was deleted there is still listed; another store is needed")


FAULTS: tuple[tuple[str, str, bool], ...] = (
    (
        r"NO_SUCH_BUCKET|Bucket '.*' not found|bucket does not exist",
        "there is no such bucket; make it with the provider's tools, or see that the name and the endpoint are right",
        False,
    ),
    (
        r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|EXPIRED_?TOKEN"
        r"|INVALID_SIGNATURE|UNAUTHENTICATED",
        "the credentials are not accepted, or have expired; {keys}",
        False,
    ),
    (r"MISSING_AUTHENTICATION_TOKEN|OAuth2 access token|NoCredentials", "there are no credentials; {keys}", False),
    (
        r"ACCESS_DENIED|PERMISSION_DENIED|HTTP status 403|Permission denied",
        "access denied: without credentials, or with ones that may not read, write, list and delete here; {keys}",
        False,
    ),
    (
        r"PERMANENT_REDIRECT|HTTP status 301|AUTHORIZATION_HEADER_MALFORMED",
        "the bucket is in another region; add ?region=NAME to the address",
        False,
    ),
    (
        r"NETWORK_CONNECTION|UNAVAILABLE|CURL|curl|timed? ?out|TIMEOUT|resolve",
        "it cannot be reached; see that this machine has a way to it, and that the endpoint is right",
        True,
    ),
)
"""What a provider says, what it means, and whether it may pass."""


def explain(error: Exception, url: str) -> HypertuneError:
    """What a provider's error means, in one sentence."""
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{url}: the disk is full; what was written before is kept")
    for pattern, sentence, passing in FAULTS:
        if re.search(pattern, said, re.IGNORECASE if pattern.startswith("NETWORK") else 0):
            return StoreError(f"{url}: {sentence.format(keys=_where_from(_scheme(url)))}", passing=passing)
    return StoreError(f"{url}: {said[:300]}", passing=True)


def _where_from(scheme: str) -> str:
    return f"credentials come from {KEYS[scheme]}"


def _scheme(url: str) -> str:
    scheme = url.partition("://")[0].lower()
    return "gs" if scheme == "gcs" else scheme


def _pieces(file: BinaryIO, broken: list[OSError]) -> Iterator[bytes]:
    try:
        while piece := file.read(PIECE):
            yield piece
    except OSError as error:
        broken.append(error)


def _write_file(path: Path, file: BinaryIO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as target:
            shutil.copyfileobj(file, target, PIECE)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
