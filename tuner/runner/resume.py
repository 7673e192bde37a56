"""Resume: what a run folder goes on with: its space as it was or as it is wanted now, and what differs since then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.errors import BadInput
from tuner.records.reader import Record
from tuner.runner.about import versions
from tuner.runner.plan import Plan
from tuner.spec.space import Space, parse_space
from tuner.spec.space_file import read_text
from tuner.spec.trial_config import TrialConfig
from tuner.spec.wish import Wish


def reopen(record: Record, wish: Wish, spent: float) -> tuple[Space, bool]:
    """The space to go on with, and whether what it searches is not what the run began with.

    `spent`: seconds that the run has taken so far.

    Raises:
        BadInput: the wish, or the space, breaks a rule.
    """
    before = parse_space(record.space_text, str(record.path / "space.yaml"))
    sets = [*wish.sets, *wish.extensions(int(record.run.get("trials") or 0), spent)]
    root = wish.data or _root(record)
    if root is not None and before.fixed.data.root is not None:
        sets.append(f"data.root={json.dumps(str(root))}")
    if wish.space is None:
        space = parse_space(record.space_text, before.source, sets)
    else:
        space = parse_space(read_text(wish.space), str(wish.space), sets)
    return space, _searched(space) != _searched(before)


def check_data(record: Record, plan: Plan) -> None:
    """See that the images are still the ones that the run began with.

    Raises:
        BadInput: they are not.
    """
    before, now = (record.run.get("data") or {}).get("fingerprint"), plan.facts.fingerprint
    seed, was = plan.space.fixed.seed, (record.run.get("seeds") or {}).get("split")
    if before is not None and before != now and was is not None and was != seed:
        raise BadInput(
            f"seed was {was} and is {seed} now, which sets other images apart for the test: old and new trials could "
            f"not be compared; keep seed: {was}, or start a new run with --warm-start"
        )
    if before is not None and before != now:
        raise BadInput(
            f"the images are not those that {record.path.name} was started with (fingerprint {before}, now {now}): "
            "old and new trials could not be compared; start a new run with --warm-start, or say --changed-data"
        )


def compare_versions(record: Record) -> list[str]:
    """What is installed in another version than the run was written with, in words."""
    before: Mapping[str, Any] = record.run.get("versions") or {}
    pairs = ((name, before.get(name), version) for name, version in versions().items())
    return [f"{name} {old}, now {new}" for name, old, new in pairs if old is not None and old != new]


def _root(record: Record) -> Path | None:
    """Where the images were: the space's own path may be relative to a directory that is not this one."""
    said = (record.run.get("data") or {}).get("root")
    return Path(said) if said is not None and Path(said).exists() else None


def _searched(space: Space) -> Any:
    """What decides a trial, without where the images lie."""
    tree = {key: space.tree[key] for key in TrialConfig.model_fields if key in space.tree}
    data = {key: value for key, value in tree.get("data", {}).items() if key != "root"}
    return {**tree, "data": data}
