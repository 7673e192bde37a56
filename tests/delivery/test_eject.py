"""Ejected files: that they train as hypertune does, to the last digits, without it; and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from tuner.delivery.ejecting import eject as ejecting
from tuner.delivery.ejecting.check import load
from tuner.delivery.ejecting.eject import Ejected, eject
from tuner.delivery.ejecting.text import _threads, write
from tuner.delivery.model import open_torch, save_model
from tuner.errors import BadInput
from tuner.spec.trial_config import TrialConfig
from tuner.training.datasets import open_dataset, prepare
from tuner.training.trainer import Trainer
from tuner.training.weights import find_place

EPOCHS = 2
CNN = {"name": "cnn", "depth": 2, "width": 6}
ADAM = {"name": "adam", "lr": 0.01}
SGD = {"name": "sgd", "lr": 0.05, "nesterov": True, "weight_decay": 0.001}
AFFINE = {"rotate": 20, "shear": 10, "scale": 0.2, "translate_percent": 0.1, "p": 0.8, "fill": 40}

CONFIGS: dict[str, dict[str, Any]] = {
    "cnn": {"model": {**CNN, "dropout": 0.1, "head": {"pool": "flatten", "hidden": [8]}}, "train": {"optimizer": ADAM}},
    "residual": {
        "model": {**CNN, "convs": 2, "residual": True, "stochastic_depth": 0.3, "squeeze": 2, "activation": "silu"},
        "train": {
            "optimizer": SGD, "schedule": {"name": "cosine", "warmup": 0.2, "final_lr": 0.001}, "label_smoothing": 0.1,
        },
        "data": {"augment": "flip_crop"},
    },
    "fast": {
        "model": {
            **CNN, "whiten": True, "init": "identity", "activation": "gelu", "head": {"pool": "max", "project": 5},
        },
        "train": {"optimizer": SGD, "schedule": {"name": "onecycle", "shape": "linear", "final_lr": 0.001}},
        "data": {"subset": 60, "augment": {"HorizontalFlip": {"alternate": True}, "RandomCrop": {"padding": 2}}},
    },
    "blocks": {
        "model": {
            "name": "cnn", "norm": "none", "init": "identity", "padding": "valid",
            "dropout": {"rate": 0.2, "at": ["conv", "down"]},
            "blocks": [{"width": 8, "convs": ["separable", "standard"], "down": {"name": "strided"}},
                       {"width": 8, "down": {"name": "dilated", "dilation": 2}}],
        },
        "train": {"optimizer": {"name": "rmsprop", "momentum": 0.5}, "accumulate": 2, "clip_value": 0.1},
        "data": {"resize": "pad", "channels": 1},
    },
    "group": {
        "model": {
            **CNN, "width": 16, "norm": "group", "residual": True, "padding": "valid", "down": {"name": "average"},
        },
        "train": {"optimizer": {"name": "adagrad", "lr_decay": 0.01}, "clip_norm": 0.5,
                  "schedule": {"name": "exponential", "factor": 0.5}},
        "data": {"resize": "crop"},
    },
    "mixed": {
        "model": {**CNN, "norm": "none", "residual": True},
        "train": {"optimizer": {"name": "adamw", "decay_all": False}, "mixup": 0.4, "cutmix": 1.0, "mix_p": 0.8,
                  "ema": 0.9, "class_weights": "balanced", "label_smoothing": 0.1},
    },
    "mixup": {"model": CNN, "train": {"mixup": 0.4, "early_stopping": {"patience": 3}}, "data": {"train_on": "all"}},
    "cutmix": {"model": CNN, "train": {"cutmix": 1.0, "schedule": {"name": "polynomial", "power": 2.0}}},
    "resnet": {
        "model": {"name": "resnet", "depth": 14, "width": 4, "stochastic_depth": 0.2, "dropout": 0.1},
        "train": {"optimizer": {**SGD, "head_lr": 2.0, "lr_decay_per_stage": 0.7}, "schedule": "onecycle"},
    },
    "densenet": {
        "model": {"name": "densenet", "depth": 10, "growth": 4, "dropout": 0.2},
        "train": {"optimizer": {"name": "nadam"}, "class_weights": "balanced",
                  "schedule": {"name": "plateau", "threshold": 0.9, "patience": 0}},
    },
    "inception": {
        "model": {"name": "inception", "depth": 3, "width": 8},
        "train": {"sampling": "balanced", "schedule": {"name": "multistep", "at": [1]}, "trainable": 1},
    },
    "changes": {
        "model": CNN,
        "data": {"augment": {
            "VerticalFlip": {"p": 0.3}, "Affine": AFFINE, "CoarseDropout": {"fill": 9}, "Erasing": {"fill": 0},
            "RandomBrightnessContrast": {"ensure_safe_range": False}, "ColorJitter": {"saturation": 0.0, "hue": 0.0},
        }},
    },
    "standard": {"model": CNN, "data": {"augment": "standard"}, "train": {"schedule": {"name": "step", "every": 1}}},
    "backbone": {
        "model": {"name": "backbone", "arch": "mobilenet_v3_small", "hidden": [8], "dropout": 0.1},
        "train": {"unfreeze": {"every": 1}, "freeze_norm": True, "optimizer": SGD},
        "data": {"channels": 1, "normalize": "imagenet"},
    },
}  # fmt: skip

RUNNER = """
import importlib.util, json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        assert name.split(".")[0] not in ("tuner", "analysis"), name
sys.meta_path.insert(0, Refuse())
import torch
torch.set_num_threads(1)
for file in sys.argv[2:]:
    spec = importlib.util.spec_from_file_location("ejected", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [row for row, _ in module.train(module.read_data(module.DATA), int(sys.argv[1]))]
    print(json.dumps(rows))
"""


def draw_images(root: Path) -> Path:
    """Class folders of 40, 30 and 20 noisy images of 18 x 16 pixels, one of them transparent, one in a folder below."""
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate({"ant": 40, "bee's": 30, "cow": 20}.items()):
        (root / name / "more").mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (16, 18, 3), dtype=np.uint8)
            pixels[:, :, label] //= 2
            mode = "RGBA" if number == 3 else "RGB"
            where = root / name / ("more" if number == 5 else "")
            Image.fromarray(pixels).convert(mode).save(where / f"{number}.png")
    return root


def make_run(folder: Path, configs: dict[str, dict[str, Any]], data: dict[str, Any]) -> Path:
    """What `eject` reads of a run: its record and the settings of trials."""
    run = {"format": 1, "name": "tiny", "seeds": {"split": 3}, "precision": "fp32", "device": "cpu",
           "data": {"root": data.get("root"), "dataset": data["dataset"]}}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "space.yaml").write_text("name: tiny\n")
    (folder / "space.json").write_text("[]")
    for name, config in configs.items():
        (folder / "trials" / name).mkdir(parents=True)
        (folder / "trials" / name / "params.json").write_text(config_of(config, data).model_dump_json())
    return folder


def config_of(config: dict[str, Any], data: dict[str, Any]) -> TrialConfig:
    train = {"epochs": 4, "batch_size": 16, "precision": "fp32", **config.get("train", {})}
    for part in ("optimizer", "schedule"):
        if isinstance(train.get(part), str):
            train[part] = {"name": train[part]}
    said = {"seed": 7, "data": {**data, **config.get("data", {})}, "model": config["model"], "train": train}
    return TrialConfig.model_validate(said)


def train_here(config: TrialConfig, seed: int = 3) -> list[dict[str, float]]:
    prepared = prepare(config.data, seed)
    trainer = Trainer(config, open_dataset(prepared.folder, config.data, seed), threads=1)
    rows = [trainer.run_epoch() for _ in range(EPOCHS)]
    return [{n: getattr(row, n) for n in ("train_loss", "val_loss", "val_accuracy")} for row in rows]


def train_there(files: list[Path], folder: Path) -> list[list[dict[str, float]]]:
    """The curves of files, each trained alone in a Python that cannot import hypertune."""
    (folder / "runner.py").write_text(RUNNER)
    words = [sys.executable, "-I", "runner.py", str(EPOCHS), *map(str, files)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The `data` section of those images."""
    root = draw_images(tmp_path_factory.mktemp("images"))
    return {"dataset": "image_folder", "root": str(root), "image_size": 16}


SHAPES = {"dataset": "shapes", "images": 80, "image_size": 16, "classes": 3}


@pytest.mark.slow
def test_files_train_as_hypertune_does_and_are_as_formatters_leave_them(
    images: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    made, here = [], []
    for data, configs in ((images, CONFIGS), (SHAPES, {"arrays": CONFIGS["fast"]})):
        run = make_run(tmp_path / str(data["dataset"]), configs, data)
        made += [eject(run / "trials" / name, tmp_path / f"{name}.py") for name in configs]
        here += [train_here(config_of(config, data)) for config in configs.values()]
    made.append(eject(trained, tmp_path / "best.py"))  # a run as a search leaves it
    rows = (trained / "trials" / made[-1].trial.split()[-1] / "result.json").read_text().splitlines()
    here.append([{name: json.loads(row)[name] for name in here[0][0]} for row in rows[:EPOCHS]])
    assert max(each.difference for each in made) < 1e-6
    for each, mine, theirs in zip(made, here, train_there([m.path for m in made], tmp_path), strict=True):
        for ours, row in zip(mine, theirs, strict=True):
            assert {name: row[name] for name in ours} == pytest.approx(ours, abs=1e-5), each.trial
    for words in (["format", "--check", "--line-length", "100"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", words[0], "--isolated", "--no-cache", *words[1:]]
        done = subprocess.run([*ruff, *(m.path for m in made)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_file_trains_writes_its_weights_and_labels_images_by_itself(images: dict[str, Any], tmp_path: Path) -> None:
    made = eject(make_run(tmp_path / "run", {"001": CONFIGS["cnn"]}, images) / "trials" / "001", tmp_path / "plain.py")
    assert "tuner" not in made.path.read_text() and made.lines < 220

    words = [sys.executable, "-I", "plain.py", "--epochs", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("epoch 1  train_loss ") and done.stdout.count("\n") == 2
    module = load(made.path.read_text(), tmp_path / "again.py")
    (name, sure), _ = module.predict(
        [Path(images["root"]) / "ant" / f"{n}.png" for n in (1, 3)], tmp_path / "plain.pth"
    )
    assert name in module.CLASSES and 1 / 3 <= sure <= 1


Eject = Callable[..., Ejected]


@pytest.fixture
def eject_trial(images: dict[str, Any], tmp_path: Path) -> Eject:
    """Eject one trial, on those images or on other data."""

    def make(config: dict[str, Any], data: dict[str, Any] | None = None) -> Ejected:
        run = make_run(tmp_path / "run", {"001": {"model": CNN, **config}}, data or images)
        return eject(run / "trials" / "001", tmp_path / "plain.py")

    return make


def test_splits_of_ones_own_are_used_and_a_broken_file_is_left_out(
    images: dict[str, Any], eject_trial: Eject, tmp_path: Path
) -> None:
    root = tmp_path / "split"
    for name in ("train", "test"):
        shutil.copytree(images["root"], root / name)
    for number in range(100, 160):
        shutil.copy(root / "train" / "cow" / "0.png", root / "train" / "cow" / f"{number}.png")
    (root / "train" / "ant" / "broken.png").write_text("no image")
    made = eject_trial({}, {**images, "root": str(root)})
    assert made.difference < 1e-6 and '"train/ant/broken.png"' in made.path.read_text()


def test_validation_images_of_ones_own_validate(images: dict[str, Any], eject_trial: Eject, tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        shutil.copytree(images["root"], tmp_path / "split" / name)
    made = eject_trial({}, {**images, "root": str(tmp_path / "split"), "subset": 50})
    assert made.difference < 1e-6 and 'list_images(root / "val")' in made.path.read_text()


def test_images_that_are_no_class_folders_come_along_beside_the_file(eject_trial: Eject) -> None:
    made = eject_trial({}, {**SHAPES, "subset": 40})
    assert made.data and made.data.name == "plain.npz"
    with np.load(made.data) as held:
        assert held["images"].shape == (40, 16, 16, 3) and len(held["train"]) + len(held["validation"]) == 40


def test_a_network_of_ones_own_is_imported_by_name(
    eject_trial: Eject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from torch import nn\ndef make(classes, in_channels, image_size, units):\n    return nn.Sequential("
    code += "nn.Flatten(), nn.Linear(in_channels * image_size**2, units), nn.ReLU(), nn.Linear(units, classes))\n"
    (tmp_path / "ejected_own.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    made = eject_trial({"model": {"name": "ejected_own:make", "units": 4}})
    assert made.difference < 1e-6 and "from ejected_own import make" in made.path.read_text()


@pytest.mark.slow
def test_pretrained_weights_are_fetched_by_torchvision(
    eject_trial: Eject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(tmp_path / "cache"))
    place = find_place("shufflenet_v2_x0_5")
    place.parent.mkdir(parents=True)
    torch.save(get_model("shufflenet_v2_x0_5", weights=None).state_dict(), place)
    model = {"name": "backbone", "arch": "shufflenet_v2_x0_5", "weights": "imagenet"}
    made = eject_trial({"model": model, "train": {"trainable": "head"}})
    assert made.difference < 1e-5 and 'weights="DEFAULT"' in made.path.read_text()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"train": {"optimizer": {"name": "muon"}}}, "train.optimizer"),
        ({"data": {"augment": {"GaussNoise": {}}}}, "data.augment.GaussNoise"),
        ({"model": {"name": "backbone", "arch": "timm:resnet18"}}, "model.arch"),
        ({"model": {"name": "backbone", "arch": "resnet18", "weights": "mine.safetensors"}}, "model.weights"),
    ],
)
def test_what_has_no_plain_form_is_refused_by_the_name_of_its_setting(
    config: dict[str, Any], named: str, eject_trial: Eject, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=named):
        eject_trial(config)
    assert not (tmp_path / "plain.py").exists()


@pytest.mark.parametrize("change", [("LR = 0.05", "LR = 0.06"), ("SPLIT_SEED = 3", "SPLIT_SEED = 4"), ("F.", "G.")])
def test_a_file_that_would_train_otherwise_is_not_written(
    change: tuple[str, str], eject_trial: Eject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ejecting, "write", lambda *given: write(*given).replace(*change))
    with pytest.raises(BadInput, match="so it was not written"):
        eject_trial({"train": {"optimizer": SGD}})
    assert not (tmp_path / "plain.py").exists()


def test_a_delivered_model_is_ejected_with_the_seed_that_it_was_trained_with(run: Path, tmp_path: Path) -> None:
    model = open_torch(run / "trials" / "003")
    origin = model.about.origin.model_copy(update={"seed": 5})
    about = model.about.model_copy(update={"origin": origin})
    save_model(run / "final" / "model", dataclasses.replace(model, about=about))
    made = eject(run, tmp_path / "plain.py")
    assert made.trial == "shapes-small 003" and "\nSEED = 5\n" in made.path.read_text()


def test_broken_off_it_leaves_nothing_that_would_stop_the_next_one(
    eject_trial: Eject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(file: IO[bytes], **arrays: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "savez_compressed", stop)
        eject_trial({}, SHAPES)
    assert not list(tmp_path.glob("*plain*"))


def test_the_command_says_what_it_wrote_and_never_overwrites(
    call: Callable[..., tuple[int, str, str]], images: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "run", {"001": CONFIGS["cnn"]}, images)
    code, out, _ = call("eject", run / "trials" / "001", "--json")
    told = json.loads(out)
    assert code == 0 and Path(told["file"]) == tmp_path / "tiny_001.py" and told["checked"]["difference"] < 1e-6
    code, _, error = call("eject", run / "trials" / "001")
    assert code == 2 and "tiny_001.py exists" in error


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"resources": {"cpu": 2.0}}, 2),
        ({}, 1),
        ({"device": "cuda", "resources": {"cpu": "auto"}}, 0),
        ({"resources": {"cpu": "auto"}}, 1),
        (
            {
                "resources": {"cpu": "auto"},
                "packing": [{"at_once": 0, "typical": {"threads": 9}}, {"at_once": 2, "typical": {"threads": 4}}],
            },
            4,
        ),
    ],
)
def test_it_trains_with_as_many_threads_as_the_trial_had(run: dict[str, Any], expected: int) -> None:
    assert _threads(SimpleNamespace(record=SimpleNamespace(run=run))) == expected  # type: ignore[arg-type]
