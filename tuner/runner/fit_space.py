"""A space file for images that come without one, meant to be read and changed: each choice stands beside its reason."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

from tuner.errors import BadInput
from tuner.runner.fit import (
    BACKBONES,
    BATCHES,
    EPOCHS,
    TEST,
    Fit,
    Machine,
    Measure,
    Seen,
    batches,
    choose,
    deepest,
    look,
    measure_image_seconds,
)
from tuner.spec.data import ROOTS, Data, Dataset, expand_home
from tuner.spec.section import USER_CODE
from tuner.spec.space import parse_space
from tuner.training.health import UNBALANCED

REASONS = 38
"""Column of the reasons, where a line leaves room for it."""


def fit_space(
    data: Data, seconds: float, machine: Machine, *, measure: Measure = measure_image_seconds, seed: int = 0
) -> str:
    """A space file, YAML with its reasons as comments, for these images, this machine and so many seconds.

    `measure` times a middle network; by default it is trained for about a second, here.

    Raises:
        BadInput: with everything that is wrong with the images.
    """
    seen = look(data, seed)
    fit = choose(seen, seconds, machine, measure)
    seen = replace(seen, subset=fit.subset)
    parts = (
        _head(data, seen, seconds, machine),
        _data(data, seen, fit),
        _model(seen, fit, machine),
        _train(seen, fit, machine),
        _search(seen, fit, seconds, machine),
    )
    text = "\n\n".join("\n".join(part) for part in parts) + "\n"
    parse_space(text, "the written space")  # what we write must pass what we check
    return text


def data_at(text: str) -> Data:
    """What `--data` names: a folder of class folders, an .npz or .csv file, a published dataset or module:function.

    Raises:
        BadInput: it is none of these.
    """
    path = expand_home(text)
    if path.suffix.lower() in (".npz", ".csv") and path.is_file():
        return Data.model_validate({"dataset": path.suffix.lower()[1:], "root": text})
    if path.is_dir():
        return Data(dataset="image_folder", root=text)
    published = [name for name in get_args(Dataset) if name not in ROOTS]
    if text in published or re.fullmatch(USER_CODE, text):
        return Data.model_validate({"dataset": text})
    names = ", ".join(published)
    raise BadInput(f"--data {text}: no such folder, no .npz or .csv file, and no known dataset; those are {names}")


def _head(data: Data, seen: Seen, seconds: float, machine: Machine) -> list[str]:
    place = _many(machine.gpus, "GPU") if machine.gpus else _many(machine.cores, "core")
    kind = "colour" if seen.channels == 3 else "grey"
    return [
        f"# Written for {seen.images:,} {kind} images of {len(seen.counts)} classes, {place} and {_duration(seconds)}",
        f"name: {_name(data)}",
        _line("seed: 0", "of splits, weights, order and sampler"),
    ]


def _data(data: Data, seen: Seen, fit: Fit) -> list[str]:
    lines = ["data:", f"  dataset: {data.dataset}"]
    if data.root:
        lines.append(f"  root: {json.dumps(data.root, ensure_ascii=False)}")
    lines.append(_line(f"  image_size: {fit.size}", _why_size(seen, fit)))
    if max(seen.width, seen.height) > 1.2 * min(seen.width, seen.height):
        lines.append(_line("  resize: crop", "the square in the middle: stretched, shapes would be distorted"))
    if fit.subset:
        lines.append(_line(f"  subset: {fit.subset}", f"of {seen.images:,}; with more, a dozen trials take too long"))
    if not seen.own_validation:
        lines.append(_line(f"  val_fraction: {seen.val_fraction}", "kept back, to compare the trials by"))
    if not seen.own_test:
        lines.append(_line(f"  test_fraction: {TEST}", "set apart, for the very last look"))
    shift = f"{{choice: {{without: null, with: {{padding: {max(1, fit.size // 8)}}}}}}}"
    return [
        *lines,
        _line("  augment:", "of training images; whether it helps is part of the search"),
        "    # letters and digits do not bear a mirror, most photographs do",
        "    HorizontalFlip: {choice: {without: null, with: {p: 0.5}}}",
        _line(f"    RandomCrop: {shift}", "moved by up to an eighth"),
    ]


def _why_size(seen: Seen, fit: Fit) -> str:
    if seen.alike and fit.size == seen.width:
        return "their own"
    found = f"they are {seen.width} x {seen.height} in the middle"
    if fit.size == min(seen.width, seen.height):
        return found
    return f"{found}; twice the side takes four times the time and memory"


def _model(seen: Seen, fit: Fit, machine: Machine) -> list[str]:
    most = deepest(fit.size)
    depth = f"{{int: [2, {most}]}}" if most > 2 else str(most)
    lines = [
        "model:",
        "  choice:",
        f"    # each block halves the map: {most} of them leave {fit.size // 2**most} of {fit.size} pixels",
        f"    cnn: {{depth: {depth}, width: {{choice: [16, 32, 64]}}, dropout: {{uniform: [0, 0.4]}}}}",
    ]
    if fit.size >= 16 and seen.learned >= EPOCHS[0][0]:
        lines.append("    # deeper, with ways around; it needs more images")
        lines.append("    resnet: {depth: {choice: [8, 14, 20]}, width: {choice: [16, 32]}}")
    if seen.channels == 3 and fit.size >= 64:
        here = [arch for arch in BACKBONES if arch in machine.pretrained]
        line = f"backbone: {{arch: {(*here, *BACKBONES)[0]}, weights: imagenet}}"
        if here and machine.gpus:
            lines.append("    # its weights are here; what it has seen helps with photographs of any kind")
            lines.append(f"    {line}")
        else:
            lines.append("    # for photographs the best by far, but slow on a CPU; its weights must be fetched once:")
            lines.append(f"    # {line}")
    return lines


def _train(seen: Seen, fit: Fit, machine: Machine) -> list[str]:
    few = seen.learned < EPOCHS[1][0]
    why = "so few images are each needed often" if few else "so many images say much in one epoch"
    sizes = batches(seen, machine)
    batch = f"{{choice: [{', '.join(map(str, sizes))}]}}" if len(sizes) > 1 else str(sizes[0])
    busy = machine.gpus and seen.learned >= BATCHES[0][0]
    lines = [
        "train:",
        _line(f"  epochs: {fit.epochs}", f"of a trial that is not stopped; {why}"),
        _line(f"  batch_size: {batch}", "less leaves a GPU idle" if busy else "many small steps learn more than few"),
        "  optimizer:",
        _line("    choice:", "each has a range of its own: the same rate means something else to each"),
        "      adamw: {lr: {loguniform: [3.0e-4, 1.0e-2]}, weight_decay: {loguniform: [1.0e-4, 0.1]}}",
        "      sgd: {lr: {loguniform: [5.0e-3, 0.3]}, nesterov: true, weight_decay: {loguniform: [1.0e-5, 1.0e-3]}}",
        _line("  schedule: onecycle", "up, then down to nothing: the most from a known number of epochs"),
    ]
    if _unbalanced(seen):
        weighing = "  class_weights: {choice: [none, balanced]}"
        lines.append(_line(weighing, "balanced: rare classes count as much as common ones"))
    return lines


def _search(seen: Seen, fit: Fit, seconds: float, machine: Machine) -> list[str]:
    at_once = machine.gpus or machine.cores
    epoch = f"{fit.epoch_seconds:.{int(fit.epoch_seconds < 10)}f} s"
    metric = _line("  metric: val_accuracy", "the classes are about equally large")
    if _unbalanced(seen):
        counts = f"{max(seen.counts):,} of {_plain(seen.commonest)}, {min(seen.counts):,} of {_plain(seen.rarest)}"
        metric = _line("  metric: val_macro_f1", f"{counts}: accuracy would hardly count the rare ones")
    fits = f"about as many fit: an epoch takes some {epoch}, {_many(at_once, 'trial')} at once"
    asha = f"  scheduler: {{name: asha, grace: {fit.grace}}}"
    lines = [
        "search:",
        _line(f"  time: {_duration(seconds)}", "the whole budget; what is running then is ended"),
        _line(f"  trials: {fit.trials}", fits),
        metric,
        _line(asha, f"of three trials the weaker two stop, first after epoch {fit.grace}"),
        "",
        "resources:",
    ]
    if machine.gpus:
        share = _line("  gpu: auto", "how many trials share a GPU is measured before the search")
        return [*lines, _line("  cpu: auto", "and each gets its part of the cores"), share]
    return [*lines, _line("  cpu: 1", "a trial a core: more in all than several cores for each")]


def _line(text: str, reason: str) -> str:
    return f"{text:<{REASONS - 1}} # {reason}"


def _unbalanced(seen: Seen) -> bool:
    return seen.balance >= UNBALANCED


def _plain(name: str) -> str:
    return " ".join(name.split())[:40]  # a class may be called anything, but a comment ends with its line


def _name(data: Data) -> str:
    path = expand_home(data.root).resolve() if data.root else Path(data.dataset.replace(":", "-"))
    stem = path.parent.name if path.name == "train" else path.stem  # photos/train are photos
    return json.dumps(re.sub(r"[^\w.-]+", "-", stem).strip("-._")[:60] or "images", ensure_ascii=False)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count > 1)}"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(1, round(seconds))}s"
