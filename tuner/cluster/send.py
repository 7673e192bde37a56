"""Send: runs on the cluster, as a job: prints a run folder as text, for `hypertune fetch`, which reads the job's log.

Python's own library alone: `python send.py FOLDER [--no-weights] [--unless SHA256]`, sent as one file.
Prints MARK and JSON, {"start": ...} first, {"end": sha256, "lines": number} last; between them the lines of a gzipped
tar in base64. Or one such line: {"same": true} where run.json has the checksum after --unless, or {"refused": reason}.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

MARK = "\x1ehypertune-run "
LINE = 14_400
"""Bytes a line: 19,200 characters of base64, just below the 20,000 that Ray sends at a time."""

MOST = 500 * 2**20
"""Bytes of a run that a job's log carries: the log stays on the head until Ray cleans it."""

WEIGHTS = ("checkpoint_", "given_")
"""How folders of weights begin."""


class Lines(io.RawIOBase):
    """A file whose bytes are printed as lines of base64."""

    def __init__(self) -> None:
        self.sum = hashlib.sha256()
        self.count = 0
        self._rest = b""

    def writable(self) -> bool:
        """That it is."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Print what fills whole lines."""
        self.sum.update(data)
        self._rest += data
        while len(self._rest) >= LINE:
            self._print(self._rest[:LINE])
            self._rest = self._rest[LINE:]
        return len(data)

    def finish(self) -> None:
        """Print the last line."""
        if self._rest:
            self._print(self._rest)
        say(end=self.sum.hexdigest(), lines=self.count)

    def _print(self, data: bytes) -> None:
        self.count += 1
        sys.stdout.write(base64.b64encode(data).decode() + "\n")


def say(**told: object) -> None:
    """Print one line for the program that reads."""
    sys.stdout.write(MARK + json.dumps(told) + "\n")
    sys.stdout.flush()


def main(words: list[str]) -> int:
    """Print the folder, or why not; 0 either way, so that the log is read."""
    folder = Path(words[0])
    known = words[words.index("--unless") + 1] if "--unless" in words else ""
    try:
        run = (folder / "run.json").read_bytes()
    except OSError as error:
        say(refused=f"{folder} holds no run on the head: {error.strerror}")
        return 0
    if known and hashlib.sha256(run).hexdigest() == known:
        say(same=True)
        return 0
    found = list(files(folder, weights="--no-weights" not in words))
    size = sum(size for _, size in found)
    if size > MOST:
        rest = "" if "--no-weights" in words else "fetch it with --no-weights, or "
        say(
            refused=f"{folder} has {size / 2**20:,.0f} MB, at most {MOST // 2**20} go through a log; {rest}"
            f"copy it: rsync -a HEAD:{folder} results/"
        )
        return 0
    say(start=folder.name, bytes=size, files=len(found))
    lines = Lines()
    with (
        gzip.GzipFile(fileobj=lines, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for path, _ in found:
            add(archive, folder, path)
    lines.finish()
    return 0


def files(folder: Path, *, weights: bool) -> list[tuple[Path, int]]:
    """The plain files of a run and their sizes, run.json first."""
    found = []
    for place, names, inside in os.walk(folder):
        names[:] = sorted(n for n in names if weights or not n.startswith(WEIGHTS))
        for name in sorted(inside):
            path = Path(place) / name
            if path.is_file() and not path.is_symlink() and not name.endswith((".tmp", ".lock")):
                found.append((path, path.stat().st_size))
    return sorted(found, key=lambda item: item[0] != folder / "run.json")


def add(archive: tarfile.TarFile, folder: Path, path: Path) -> None:
    """Add a file as it is now: a run that goes on may write to it, or delete it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
    entry.size, entry.mtime = len(content), int(path.stat().st_mtime) if path.exists() else 0
    archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
