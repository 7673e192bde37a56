"""Node: what runs on each machine of a cluster before the search and beside its trials: who it is, what it can see."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuner.errors import BadInput, HypertuneError
from tuner.spec.data import Data
from tuner.training.cache import cache_root

MARKS = ".nodes"
"""Folder in the run folder in which each node leaves a mark, to see whether all look at the same folder."""


def describe() -> dict[str, Any]:
    """This machine: what a trial can have of it, and the versions that a search depends on."""
    from dataclasses import asdict

    from tuner.packing.machine import this_machine
    from tuner.runner.about import versions

    return {"host": platform.node(), "machine": asdict(this_machine()), "versions": versions()}


def leave_mark(run: str, store: str, said: str, mark: str) -> str:
    """See the driver's mark in the run folder and leave one beside it; why that does not work, empty where it does.

    said: the driver's mark, a file name and its content; mark: the name of this node's.
    """
    if store:  # each node writes there by itself
        from tuner.records.store import check_store, open_store

        try:
            check_store(open_store(store))
        except HypertuneError as error:
            return str(error)
        return ""
    folder = Path(run) / MARKS
    try:
        if (folder / said).read_text() != said:
            return "there is another folder of that name"
        (folder / mark).write_text(mark)
    except FileNotFoundError:
        return "it has no such folder, or another one of that name"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def find_images(data: str, seed: int, fingerprint: str) -> str:
    """The folder of the decoded images on this machine, prepared now if need be: once a machine, whoever asks first.

    data: a Data as JSON; fingerprint: of the images that the driver has.

    Raises:
        BadInput: they are not there, or are others.
    """
    return str(_find_images(data, seed, fingerprint))


@lru_cache(maxsize=64)
def _find_images(data: str, seed: int, fingerprint: str) -> Path:
    from tuner.training.datasets import prepare

    prepared = prepare(Data.model_validate_json(data), seed)
    if prepared.facts.fingerprint != fingerprint:
        raise BadInput(
            f"data: the images on {platform.node()} are not those of the driver (fingerprint "
            f"{prepared.facts.fingerprint}, there {fingerprint}); put the same ones at data.root on every node"
        )
    return prepared.folder


def settle(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job as this machine sees it: with its own folder of decoded images, and the user's code in reach.

    Where the results go to an object store, checkpoints lie on this machine's own disk meanwhile.

    Raises:
        BadInput: the images are not there.
    """
    if job["user_path"] not in sys.path:
        sys.path.append(job["user_path"])  # last: a user's own tuner/ must not hide ours
    if not job["fingerprint"]:
        return dict(job)
    own = {"data": find_images(job["images"], job["split_seed"], job["fingerprint"])}
    return {**job, **own, **({"folder": str(scratch(job["store"]) / job["id"])} if job["store"] else {})}


def scratch(store: str) -> Path:
    """Where this machine keeps checkpoints that are on their way to or from a store."""
    return cache_root(None) / "runs" / hashlib.blake2b(store.encode(), digest_size=8).hexdigest()


def check(job: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a node must have before trials run there: `problem` says what is missing, empty where nothing is.

    job: run, store, said, mark, user_path, split_seed and sizes (for each: images, a Data as JSON, and fingerprint).
    """
    if job["user_path"] not in sys.path:
        sys.path.append(job["user_path"])
    if problem := leave_mark(job["run"], job["store"], job["said"], job["mark"]):
        return {"problem": problem, "about": "results"}
    try:
        for size in job["sizes"]:
            find_images(size["images"], job["split_seed"], size["fingerprint"])
    except HypertuneError as error:
        return {"problem": str(error), "about": "images"}
    return {"problem": "", "about": ""}
