"""The contract of all options: each trains, and changes what it says and nothing else.

The options are read from the classes of the space file: a new one fails here until a row says another value for it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tuner.spec.augment import Augment
from tuner.spec.model import Backbone
from tuner.spec.section import UNIONS, Section, kinds_of, listed_sections_of, sections_of
from tuner.spec.train import Train
from tuner.spec.transforms import ALIASES, OURS, PRESETS, library
from tuner.spec.trial_config import KINDS, TrialConfig
from tuner.training import augment, checkpoint
from tuner.training.augment import Augmenter
from tuner.training.dataset import Dataset
from tuner.training.images import Images
from tuner.training.networks import MODELS, make_network
from tuner.training.optimizers import OPTIMIZERS
from tuner.training.stream import Streamed
from tuner.training.trainer import Trainer

pytestmark = pytest.mark.slow

MakeImages = Callable[..., Dataset]
Tree = dict[str, Any]

LONG = ("schedule", "unfreeze", "early_stopping")  # seen to change in three epochs; all else in one
SMALL: Tree = {"name": "cnn", "depth": 2, "width": 4}
BLOCKS: Tree = {"name": "cnn", "blocks": [{"width": 4}]}
BASE: Tree = {
    "data": {"dataset": "digits", "augment": {}},
    "model": SMALL,
    "train": {"precision": "fp32", "batch_size": 16, "epochs": 4, "optimizer": {"name": "adam", "lr": 0.01}},
}

# Transforms of the library that have tensor code here, with what lets them have it and makes them do something.
BATCHED: dict[str, Tree] = {
    **{name: {} for name in ("VerticalFlip", "ShiftScaleRotate", "Rotate", "CoarseDropout", "Erasing")},
    "RandomBrightnessContrast": {},
    "Affine": {"rotate": 30},
    "ColorJitter": {"saturation": [1, 1], "hue": [0, 0]},
}

NETS_OF_A_USER = """
from torch import nn

def plain(classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, classes))
"""

# fmt: off
# What is seen to change (`look`) -> option -> another value. A row is for all options whose path ends so, but for those
# that a longer one names. `...`: a kind, a word or a switch, of which all values are tried.
CHANGES: dict[str, Tree] = {
    "": {"compile=off": ..., "data.augment.Normalize": ...},  # as auto on a CPU; every batch is normalised anyway
    "notes": {"compile=graph": ...},
    "ends": {"gap": 0.9, "early_stopping.epochs": 50},
    "ends notes": {"early_stopping.patience": 50},  # more than there are epochs: that is said
    "lr curve": {
        "epochs": 8, "lr": 0.2, "schedule": ..., "warmup": 0.5, "factor": 0.3, "final_lr": 0.005, "every": 2, "at": [2],
        "power": 2.0, "patience": 1, "threshold": 0.0, "least": 0.008, "shape": ...,
    },
    "groups curve": {
        "weight_decay": 0.1, "decay_all": ..., "head_lr": 3.0, "lr_decay_per_stage": 0.5, "adam_lr": 0.1,
        "trainable": 1, "stages": 2, "freeze_norm": ...,
    },
    "groups curve notes": {"trainable=head": ...},  # of a random body: that is said
    "groups lr curve": {"optimizer:muon.lr": 0.2},  # adam_lr is a share of it
    "optimizer curve": {"optimizer": ...},
    "optimizer groups curve": {"optimizer:adamw": ..., "optimizer:muon": ...},
    "curve": {
        "batch_size": 8, "accumulate": 2, "clip_norm": 0.1, "clip_value": 0.01, "label_smoothing": 0.2, "mixup": 0.4,
        "cutmix": 1.0, "mix_p": 0.3, "class_weights": ..., "sampling": ..., "ema": 0.5, "unfreeze.every": 2,
        "unfreeze.at": [2], "precision": ..., "init": ..., "betas": [0.5, 0.9], "momentum": 0.5, "nesterov": ...,
        "alpha": 0.5, "lr_decay": 0.5,
        **{f"augment.{name}": ... for name in {*OURS, *PRESETS, *ALIASES, *BATCHED} - {"Normalize"}},
        "p": 0.2, "alternate": ..., "padding": 2, "interpolation": ..., "num_magnitude_bins": 12, "num_ops": 1,
        "magnitude": 3, "flip": 0.2, "shift_limit": 0.4, "scale_limit": 0.4, "rotate_limit": 80, "hole": 0.8,
        "hole_p": 0.2,
    },
    "network curve": {
        "activation": ..., "dropout": 0.5, "rate": 0.5, "dropout.at": ["conv"], "stochastic_depth": 0.5, "down": ...,
        "dilation": 2, "down:dilated.dilation": 3, "padding=valid": ..., "norm=group": ..., "pool_first": ...,
        "pool=max": ...,
    },
    "network groups curve": {
        "model": ..., "depth": 1, "model:resnet.depth": 14, "model:densenet.depth": 16, "model:inception.depth": 5,
        "convs": 2, "width": 6, "growth": 3.0, "model:densenet.growth": 6, "compression": 0.9, "kernel": 5, "kind": ...,
        "blocks[].convs": ["separable"], "down:strided": ..., "down:dilated": ..., "norm=none": ..., "residual": ...,
        "squeeze": 2, "whiten": ..., "project": 3, "pool=flatten": ..., "hidden": [5],
    },
}
# fmt: on

# What else stands in the section of an option, so that it has something to change.
GIVEN: dict[str, Tree] = {
    "model:resnet": {"depth": 8, "width": 4},
    "model:densenet": {"depth": 10, "growth": 4},
    "model:inception": {"depth": 4, "width": 4},
    "model:backbone": {"arch": "squeezenet1_1"},
    "model:user": {"name": "nets_of_a_user:plain"},
    "model:cnn.stochastic_depth": {"residual": True},
    "down:dilated": {"dilation": 2},
    "dropout.rate": {"at": ["conv"]},
    "dropout.at": {"rate": 0.5},
    "train.epochs": {"schedule": {"name": "cosine"}},
    "clip_norm": {"optimizer": {"name": "sgd"}},
    "clip_value": {"optimizer": {"name": "sgd"}},
    "mix_p": {"mixup": 1.0},
    "unfreeze": {"every": 1},
    "unfreeze.at": {"at": [1]},
    "early_stopping": {"gap": 0.01, "epochs": 1},
    "early_stopping.patience": {"patience": 1},
    "optimizer": {"lr": 0.01},
    "decay_all": {"weight_decay": 0.5},
    "schedule:step": {"every": 1},
    "schedule:multistep": {"at": [1]},
    "schedule:plateau": {"patience": 0, "threshold": 0.9},
}

ELSEWHERE = {
    "train.precision=fp32": "which all trials here have; auto goes by the processor: test_precision.py",
    "train.precision=fp16": "needs a GPU: test_graph.py",
    "train.compile=inductor": "calls a compiler, which takes seconds: test_graph.py",
}

# ---------------------------------------------------------------- the options there are


def walk(section: type[Section], path: str) -> Iterator[tuple[str, Any]]:
    """Options and values: `a:kind` of what comes in kinds, `a=word` of words, `a[].b` in a list; `...`: see CHANGES."""
    for name, info in section.model_fields.items():
        here, annotation = f"{path}.{name}", info.annotation
        default = info.get_default(call_default_factory=True)
        kinds, listed = kinds_of(annotation), listed_sections_of(annotation)
        for kind, cls in kinds.items():
            yield from walk(cls, f"{here}:{kind}")
            if getattr(default, "name", None) != kind:
                yield f"{here}:{kind}", {}
        for cls in {*sections_of(annotation)} - {*kinds.values()}:
            yield from walk(cls, here)
        for cls in listed:
            yield from walk(cls, f"{here}[]")
        parts = {*get_args(annotation)} if get_origin(annotation) in UNIONS else {annotation}
        words = {part for part in parts if get_origin(part) is Literal}
        for word in sorted({word for part in words for word in get_args(part)} - {default}):
            if name != "name":
                yield f"{here}={word}", word
        if parts - words - {NoneType, *sections_of(annotation)} and not listed:
            yield here, not default if annotation is bool else ...


OPTIONS: Tree = {
    **dict(walk(Train, "train")),
    **{f"model:{name}": {} for name in MODELS if name != SMALL["name"]},
    **{
        path: value
        for name in ("cnn", "resnet", "densenet", "inception")
        for path, value in walk(KINDS["model"][name], f"model:{name}")
    },
    **{f"data.augment.{name}": {} for name in (*OURS, *PRESETS, *ALIASES)},
    **{f"data.augment.{name}": arguments for name, arguments in BATCHED.items()},
    **{path: value for name, cls in (OURS | PRESETS).items() for path, value in walk(cls, f"data.augment.{name}")},
}


def find(path: str, rows: Mapping[str, Any]) -> str | None:
    """The row for a path: its longest end that is one, with its last word or kind or without."""
    bare = path.rpartition("=")[0] or (path.rpartition(":")[0] if ":" in path.rpartition(".")[2] else path)
    ends = (".".join(whole.split(".")[i:]) for whole in (path, bare) for i in range(whole.count(".") + 1))
    return next((end for end in ends if end in rows), None)


# ---------------------------------------------------------------- the contract


def tree(path: str, value: Any) -> Any:
    """The part of a space file that holds a value at a path; a dictionary's, or that of a kind, is a section's."""
    for part in reversed(path.partition("=")[0].split(".") if path else []):
        name, _, kind = part.partition(":")
        value = {"name": kind, **value} if kind else value
        value = {name.removesuffix("[]"): [value] if name.endswith("[]") else value}
    return value


def merge(old: Any, new: Any) -> Any:
    """Trees together; of two kinds of a section the new one."""
    if isinstance(old, list) and isinstance(new, list) and isinstance(new[0], dict):
        return [merge(*pair) for pair in zip(old, new, strict=True)]
    if not isinstance(old, dict) or not isinstance(new, dict) or old.get("name") != new.get("name", old.get("name")):
        return new
    return old | {name: merge(old.get(name), value) for name, value in new.items()}


def configure(path: str) -> tuple[str, TrialConfig, TrialConfig]:
    """What an option changes, and configurations without and with it."""
    changes = {option: what for what, row in CHANGES.items() for option in row}
    row = find(path, changes)
    assert row is not None, f"{path}: another value of it is missing in CHANGES"
    value, parent = OPTIONS[path], path.rpartition(".")[0]
    if value is ...:
        value = CHANGES[changes[row]][row]
    given = GIVEN.get(find(path, GIVEN) or find(parent, GIVEN) or "", {})
    base = BASE | {"model": BLOCKS} if "blocks[]" in path else BASE
    if value == {}:  # a kind: what is given is its own
        plain, changed = base, merge(base, tree(path, given))
    else:
        plain = merge(base, tree(parent, given))
        changed = merge(plain, tree(path, value))
    return changes[row], TrialConfig.model_validate(plain), TrialConfig.model_validate(changed)


def look(config: TrialConfig, images: Dataset, epochs: int) -> Tree:
    """All that an option can change, after so many epochs of sound numbers."""
    trainer, ends = Trainer(config, images), []
    rows = []
    for _ in range(epochs):
        rows.append(trainer.run_epoch().as_dict())
        ends.append(trainer.ends)
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float | int))
    assert all(0 <= row["val_accuracy"] <= 1 for row in rows)
    apart = {"lr", "params", "epoch_seconds", "images_per_second", "peak_memory_mb"}
    groups = trainer.optimizer.param_groups
    return {
        "network": repr(trainer.model),
        "optimizer": type(trainer.optimizer).__name__,
        "groups": [(g["factor"], g["weight_decay"], sum(p.numel() for p in g["params"])) for g in groups],
        "lr": [row["lr"] for row in rows],
        "curve": [{name: value for name, value in row.items() if name not in apart} for row in rows],
        "ends": ends,
        "notes": trainer.notes,
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Any, Tree]]:
    """What was looked at before; there is a module of the user's own meanwhile."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "nets_of_a_user.py").write_text(NETS_OF_A_USER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield {}


@pytest.mark.parametrize("path", [path for path in OPTIONS if path not in ELSEWHERE])
def test_an_option_trains_and_changes_what_it_says(path: str, make_images: MakeImages, seen: dict[Any, Tree]) -> None:
    changes, *configs = configure(path)
    images = make_images(train=50, size=32 if path == "model:backbone" else 10)
    if "early_stopping" in path:
        images.labels[50:] = 0  # so that there is a gap
    epochs = 3 if any(word in path for word in LONG) else 1
    found = []
    for config in configs:
        key = (config.model_dump_json(), images.image_size, epochs)
        seen[key] = seen.get(key) or look(config, images, epochs)
        found.append(seen[key])
    without, with_it = found
    assert {name for name in without if without[name] != with_it[name]} == {*changes.split()}


def test_every_row_is_used() -> None:
    rows = {row: ... for table in CHANGES.values() for row in table}
    used = {find(path, rows) for path in OPTIONS if path not in ELSEWHERE}
    given = {find(path, GIVEN) for path in OPTIONS} | {find(path.rpartition(".")[0], GIVEN) for path in OPTIONS}
    assert (rows.keys() - used, GIVEN.keys() - given, ELSEWHERE.keys() - OPTIONS.keys()) == (set(), set(), set())


def test_all_transforms_with_tensor_code_are_tried(make_images: MakeImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "PerImage", lambda *_: None)
    images, found = Images(make_images(), torch.device("cpu"), torch.float32), set()
    for name, arguments in library().items():
        if all(len(default) for _, *default in arguments.values()):  # else it needs arguments, and the library
            steps = Augmenter(Augment.model_validate({name: BATCHED.get(name, {})}), images).steps
            found |= {name for step in steps if step is not None}
    assert found - OURS.keys() == BATCHED.keys()


# ---------------------------------------------------------------- all of them at once

# fmt: off
EVERYTHING: Tree = {
    "data": {
        "dataset": "digits",
        "augment": {
            "HorizontalFlip": {"alternate": True}, "RandomCrop": {"padding": 1}, "Affine": {"rotate": 20},
            "VerticalFlip": {}, "Erasing": {}, "TrivialAugment": {},
        },
    },
    "model": SMALL | {"residual": True, "stochastic_depth": 0.4, "dropout": 0.3, "squeeze": 2, "whiten": True},
    "train": {
        "precision": "fp32", "epochs": 4, "batch_size": 16, "accumulate": 2, "clip_norm": 0.5, "clip_value": 0.2,
        "ema": 0.6, "label_smoothing": 0.1, "mixup": 0.4, "cutmix": 1.0, "mix_p": 0.7,
        "sampling": "balanced", "class_weights": "balanced", "unfreeze": {"every": 1, "stages": 3},
        "schedule": {"name": "plateau", "patience": 0, "threshold": 0.9, "factor": 0.5, "warmup": 0.3},
        "early_stopping": {"patience": 9, "gap": 0.01, "epochs": 9},
    },
}
# fmt: on
# Features are kept in the place of images where nothing changes them.
FEATURES: Tree = {
    "data": BASE["data"],
    "model": {"name": "backbone", "arch": "squeezenet1_1", "hidden": [6], "dropout": 0.3},
    "train": EVERYTHING["train"] | {"trainable": "head", "unfreeze": None, "mixup": 0.0, "cutmix": 0.0},
}


def run(trainer: Trainer, epochs: int) -> list[Tree]:
    """The curve, without times."""
    apart = {"epoch_seconds", "images_per_second", "peak_memory_mb"}
    rows = [trainer.run_epoch().as_dict() for _ in range(epochs)]
    return [{name: value for name, value in row.items() if name not in apart} for row in rows]


def check_resuming(config: TrialConfig, images: Dataset, folder: Path) -> tuple[Trainer, list[Tree]]:
    """Two epochs, a checkpoint and two more are four, to the last bit; returns the four and their curve."""
    whole, first, second = (Trainer(config, images) for _ in range(3))
    expected = run(whole, 4)
    found = run(first, 2)
    checkpoint.save(folder, *first.state_dict())
    second.load_state_dict(*checkpoint.load(folder))
    assert second.plateau.factor < 1 and second.stopping.best is not None  # there is something to remember
    assert found + run(second, 2) == expected
    (tensors, state), (others, other) = whole.state_dict(), second.state_dict()
    assert tensors.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in tensors.items())
    assert state == other
    return whole, expected


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_trial_equals_one_that_never_stopped(name: str, make_images: MakeImages, tmp_path: Path) -> None:
    optimizer = {"name": name, "lr": 0.01, "weight_decay": 0.01, "lr_decay_per_stage": 0.5, "decay_all": False}
    config = merge(EVERYTHING, {"train": {"optimizer": optimizer}})
    check_resuming(TrialConfig.model_validate(config), make_images(train=50, channels=3), tmp_path / "checkpoint")


def test_images_that_stay_files_train_and_resume_as_those_in_memory(make_images: MakeImages, tmp_path: Path) -> None:
    images = make_images(train=50, channels=3)
    paths = [str(tmp_path / f"{number}.png") for number in range(70)]
    for path, pixels in zip(paths, images.images[np.arange(70)], strict=True):
        Image.fromarray(pixels).save(path)
    config = TrialConfig.model_validate(EVERYTHING)
    files = replace(images, images=Streamed(paths, 8, 3, "stretch"))
    _, curve = check_resuming(config, files, tmp_path / "checkpoint")
    assert curve == run(Trainer(config, images), 4)


def test_a_head_on_features_resumes(make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(tmp_path))
    section = Backbone(arch="squeezenet1_1")
    body = make_network(section, classes=2, in_channels=3, image_size=32).get_submodule("body")
    save_file({name: value.contiguous() for name, value in body.state_dict().items()}, tmp_path / "a.safetensors")
    config = merge(FEATURES, {"model": {"weights": str(tmp_path / "a.safetensors")}})
    images = make_images(train=50, size=32, channels=3)
    trainer, _ = check_resuming(TrialConfig.model_validate(config), images, tmp_path / "checkpoint")
    assert trainer.features is not None


def test_weights_that_count_are_those_that_were_validated(make_images: MakeImages) -> None:
    images = make_images(train=50, channels=3)
    trainer = Trainer(TrialConfig.model_validate(EVERYTHING), images)
    trainer.run_epoch()
    metrics = trainer.run_epoch()
    plain = Trainer(TrialConfig.model_validate(merge(EVERYTHING, {"train": {"ema": None}})), images)
    plain.model.load_state_dict(trainer.weights_that_count())
    assert (plain.validate().loss, plain.validate().accuracy) == (metrics.val_loss, metrics.val_accuracy)
    plain.model.load_state_dict(trainer.model.state_dict())
    assert plain.validate().loss == metrics.raw_val_loss != metrics.val_loss


def test_momentum_that_begins_in_mid_run_reaches_what_is_unfrozen_later(make_images: MakeImages) -> None:
    without, with_it = (
        Trainer(TrialConfig.model_validate(merge(EVERYTHING, {"train": {"optimizer": optimizer}})), make_images())
        for optimizer in ({"name": "sgd", "momentum": 0.0}, {"name": "sgd", "momentum": 0.9})
    )
    run(without, 1)
    with_it.load_state_dict(*without.state_dict())
    assert run(with_it, 3)[-1]["train_loss"] != run(without, 3)[-1]["train_loss"]
