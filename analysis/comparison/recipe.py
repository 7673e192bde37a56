"""A trial's configuration in words, as people write it in a table: network, schedule, augmentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from analysis import style
from analysis.folders.folder import Folder
from analysis.folders.parameters import flatten, plain
from analysis.results import Results

UNKNOWN = "–"
# Last parts of a foreign setting's name that say how the network is built.
_BUILT = re.compile(
    r"(arch|model|backbone|network|(num_|n_)?layers|depth|blocks|width|hidden.*|units|filters|channels|kernel.*|dropout)"
    r"(\.name)?$",
    re.IGNORECASE,
)


def configuration(results: Results, trial: str | None) -> dict[str, Any]:
    """The trial's params.json as it lies in its folder; empty where it cannot be read."""
    if trial is None:
        return {}
    folder = Folder(results.path)
    if results.kind == "hypertune":
        place: tuple[str, ...] = ("trials", trial)
    else:  # Ray: function_trial_settings_date, cut where the file system ends
        found = [name for name in folder.folders() if trial in name]
        if len(found) != 1:
            return {}
        place = (found[0],)
    read = folder.json(*place, "params.json")
    return read if isinstance(read, dict) else {}


def network(config: Mapping[str, Any]) -> str:
    """How the network is built: `cnn, 3 blocks, width 32, residual`; of a foreign configuration what sounds like it."""
    model = config.get("model")
    if not isinstance(model, Mapping):
        flat = flatten(config)
        return _listed(f"{_called(name)} {value(flat[name])}" for name in flat if _BUILT.search(name.split("/")[-1]))
    name = str(model.get("name", "cnn"))
    if name == "cnn":
        return _listed(_cnn(model))
    if name == "backbone":
        weights = str(model.get("weights", "none"))
        return _listed([str(model.get("arch", name)), "" if weights == "none" else f"weights {weights}"])
    rest = [f"{style.words(str(k))} {value(v)}" for k, v in model.items() if k in ("depth", "width", "growth")]
    if ":" in name:  # the user's own network: its arguments
        rest = [f"{style.words(str(k))} {value(v)}" for k, v in model.items() if k != "name"]
    return _listed([name, *rest])


def _cnn(model: Mapping[str, Any]) -> list[str]:
    blocks, convs = model.get("blocks"), model.get("convs")
    if isinstance(blocks, list):
        widths = "-".join(str(b.get("width", "?")) if isinstance(b, Mapping) else "?" for b in blocks)
        words = [_count(len(blocks), "block"), f"widths {widths}"]
    else:
        words = [_count(model.get("depth", "?"), "block"), f"width {value(model.get('width', '?'))}"]
        if isinstance(model.get("width"), int) and model.get("growth") not in (None, 2):
            words.append(f"growth {value(model['growth'])}")
        if isinstance(convs, int) and convs > 1:
            words.append(f"{convs} convolutions each")
        if model.get("kind") == "separable":
            words.append("separable")
    return ["cnn", *words, *(["residual"] if model.get("residual") is True else [])]


def schedule(config: Mapping[str, Any]) -> str:
    """The rate's course: `onecycle, warmup 0.25`."""
    train = config.get("train")
    if not isinstance(train, Mapping):
        return _foreign(config, "sched")
    found = train.get("schedule")
    if not isinstance(found, Mapping):
        return UNKNOWN if found is None else _listed([str(found)])
    warmup = found.get("warmup")
    return _listed([str(found.get("name", "?")), f"warmup {value(warmup)}" if warmup else ""])


def augmentation(config: Mapping[str, Any]) -> str:
    """What is done to training images: `horizontal flip, random crop, cutmix 1`."""
    data, train = config.get("data"), config.get("train")
    if not isinstance(data, Mapping):
        return _foreign(config, "augment")
    found = data.get("augment")
    names = (
        [k for k, v in found.items() if v is not None]
        if isinstance(found, Mapping)
        else []
        if found is None
        else [str(found)]
    )
    spaced = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(name)).replace("_", " ").lower() for name in names]
    mixes = train if isinstance(train, Mapping) else {}
    spaced += [f"{mix} {value(mixes[mix])}" for mix in ("mixup", "cutmix") if mixes.get(mix)]
    return _listed(spaced) if spaced else "none"


def value(found: Any) -> str:
    """One setting's value, short: numbers to three digits, a list of mappings as their number."""
    if isinstance(found, list) and any(isinstance(item, Mapping) for item in found):
        return _count(len(found), "item")
    text = one_line(style.number(plain(found))) or "none"
    return text if len(text) <= 60 else f"{text[:59]}…"


def one_line(text: str) -> str:
    """Text of others without line breaks and control characters, which a terminal would obey."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).split())


def _foreign(config: Mapping[str, Any], part: str) -> str:
    flat = flatten(config)
    return _listed(value(flat[name]) for name in flat if part in name.lower())


def _called(name: str) -> str:
    return style.labels([name])[name]


def _count(n: Any, one: str) -> str:
    return f"{n} {one if n == 1 else one + 's'}"


def _listed(words: Any) -> str:
    return ", ".join(one_line(word) for word in words if word) or UNKNOWN
