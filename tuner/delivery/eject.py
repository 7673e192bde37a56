"""Eject: a trial as one plain PyTorch file that needs nothing of hypertune and gives the same learning curve."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from tuner.delivery import augment_source
from tuner.delivery.model import read_about
from tuner.delivery.network_source import WIDTH, write_network
from tuner.delivery.pictures import Progress, read_data
from tuner.delivery.place import MODEL, Place, find_model
from tuner.errors import BadInput, Problem
from tuner.records.reader import Record, read_record
from tuner.records.writer import write_whole
from tuner.spec.model import Backbone, Cnn, UserModel
from tuner.spec.train import Train
from tuner.spec.trial_config import TrialConfig
from tuner.training import memory, transfer, weights
from tuner.training.backbone import BackboneNetwork
from tuner.training.dataset import Dataset
from tuner.training.datasets import Prepared, name_images, open_dataset, prepare
from tuner.training.decode import SUFFIXES
from tuner.training.folder import scan
from tuner.training.networks import make_network
from tuner.training.precision import resolve_precision
from tuner.training.stream import Streamed
from tuner.training.trainer import Trainer

CHECKED_STEPS = 3
"""Of an epoch that hypertune and the file both train before the file is given away; two epochs of them."""

MOST_DIFFERENT = 1e-3
"""Of the training loss, as a share: more is another training, less is how sums are rounded."""

MOST_NAMED = 20
"""Classes that are listed one by one."""


@dataclass(frozen=True)
class Ejected:
    """What was written. data: the .npz beside the file, None where the file reads the images as they are.

    steps: that hypertune and the file both trained; difference: the greatest of their losses, as a share.
    """

    path: Path
    data: Path | None
    trial: str
    lines: int
    steps: int
    difference: float


@dataclass(frozen=True)
class Chosen:
    """A trial that is to be written out. curve: its rows, as far as they are of this very training."""

    place: Place
    name: str
    config: TrialConfig
    record: Record
    curve: tuple[Mapping[str, Any], ...]

    @property
    def split_seed(self) -> int:
        return int((self.record.run.get("seeds") or {}).get("split", 0))


def eject(path: Path, out: Path | None = None, progress: Progress | None = None) -> Ejected:
    """Write the winner of a run, or a named trial, as one plain PyTorch file; it is tried before it is written.

    out: the file; default: NAME.py in the current directory. Beside it lies NAME.npz where the images come from
    anything but class folders.

    Raises:
        BadInput: there is no such trial, its images are gone, or it uses something that has no plain form; the text
            names the setting.
    """
    chosen = choose(path)
    out = (out or Path(f"{re.sub(r'[^0-9A-Za-z]+', '_', chosen.name).strip('_')}.py")).absolute()
    _refuse(chosen.config)
    root = (chosen.record.run.get("data") or {}).get("root")
    data = read_data(chosen.config.data.model_dump(mode="json", exclude={"root"}), root, chosen.place)
    prepared = prepare(data, chosen.split_seed, progress=progress)
    dataset = open_dataset(prepared.folder, data, chosen.split_seed)
    if isinstance(dataset.images, Streamed):
        raise BadInput("data: these images stay files, as all of them decoded do not fit; the file would load them all")
    config = chosen.config.model_copy(update={"data": data})
    folder = _read_folder(config, prepared)
    text = write(chosen, config, dataset, folder, out.stem)
    difference = check(text, config, dataset, chosen, folder)
    arrays = out.with_suffix(".npz") if folder is None else None
    try:
        if arrays:
            with arrays.open("wb") as file:
                np.savez_compressed(file, **_arrays(config, dataset))
        write_whole(out, text)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror}") from error
    return Ejected(out, arrays, chosen.name, text.count("\n"), 2 * CHECKED_STEPS, difference)


def choose(path: Path) -> Chosen:
    """The trial that a path names, of a run its delivered model or its best trial; its weights are not needed.

    Raises:
        BadInput: there is none.
    """
    path = path.absolute()
    runs = [folder for folder in path.parents if (folder / "run.json").is_file()]
    if (path / "params.json").is_file() and runs:
        place = Place(path, "trial", runs[0], path.name)
    else:
        place = find_model(path)
    if place.kind in ("onnx", "ensemble") or place.run is None:
        raise BadInput(f"{place.path}: only a trial of a run can be ejected; name the run or the trial")
    record = read_record(place.run)
    changes: dict[str, Any] = {}
    trial = place.trial
    if place.kind == "model":
        about = read_about(place.path / MODEL)
        trial, changes = about.origin.trial, {"seed": about.origin.seed}
        whole = (about.settings.get("data") or {}).get("train_on")
    said = record.config(trial) if trial else None
    if not trial or said is None:
        raise BadInput(f"{place.path}: the settings of trial {trial or '?'} are not in {place.run.name}")
    config = TrialConfig.model_validate_json(json.dumps(said))
    if changes and whole and whole != config.data.train_on:
        changes["data"] = config.data.model_copy(update={"train_on": whole})
    same = all(getattr(config, name) == value for name, value in changes.items())
    rows = [line.fields for line in record.lines if line.event == "row" and line.trial == trial]
    name = f"{record.run.get('name') or place.run.name} {trial}"
    return Chosen(place, name, config.model_copy(update=changes), record, tuple(rows) if same else ())


def _refuse(config: TrialConfig) -> None:
    """What has no plain form, all of it at once.

    Raises:
        BadInput: naming each setting.
    """
    model, train = config.model, config.train
    own = isinstance(model, UserModel)
    by_stage = train.optimizer.lr_decay_per_stage != 1 or train.optimizer.head_lr != 1
    partly = train.trainable != "all" or train.unfreeze is not None or train.freeze_norm or by_stage
    found = {
        "train.optimizer": ("muon has no plain form here", train.optimizer.name == "muon"),
        "model.arch": ("timm's networks need timm", isinstance(model, Backbone) and model.arch.startswith("timm:")),
        "model.weights": (
            "weights of your own are not taken along",
            isinstance(model, Backbone) and model.weights not in ("none", "imagenet"),
        ),
        "model.name": (f"stages of {model.name} are not known outside of hypertune", own and partly),
    }
    problems = [Problem(name, 0, 0, f"{why}, so this trial cannot be ejected") for name, (why, so) in found.items() if so]
    problems += [
        Problem(f"data.augment.{name}", 0, 0, "works image by image through another library; it cannot be ejected")
        for name in augment_source.find_foreign(config.data.augment)
    ]
    if problems:
        raise BadInput(problems)


# ---------------------------------------------------------------- images


@dataclass(frozen=True)
class Folder:
    """How class folders lie: whether in train/, with val/ and test/ beside it; unreadable: names that are left out."""

    root: Path
    divided: bool
    validation: bool
    test: bool
    unreadable: tuple[str, ...]


def _read_folder(config: TrialConfig, prepared: Prepared) -> Folder | None:
    """What the file must know of class folders; None where the images come from anything else."""
    if config.data.dataset != "image_folder" or config.data.root is None:
        return None
    root = Path(config.data.root).expanduser().resolve()
    found = scan(root)
    divided = bool(found.places) and Path(found.places[0]).parent != root
    listed = [*found.train.files, *(found.validation.files if found.validation else ())]
    kept = set(name_images(prepared.folder, "search") or ()) | set(name_images(prepared.folder, "test") or ())
    left = tuple(sorted(Path(file).name for file in listed if file not in kept))
    if left and found.validation:
        raise BadInput(f"{root}: {len(left)} images cannot be read; remove them, then the file need not know of them")
    return Folder(root, divided, found.validation is not None, found.test is not None, left)


def _arrays(config: TrialConfig, dataset: Dataset) -> dict[str, Any]:
    """The images that the trial saw, as the .npz beside the file holds them."""
    used = np.union1d(dataset.train, dataset.validation)
    if augment_source.alternates(config.data.augment):  # which goes by the places of the images among all
        used = np.arange(len(dataset.images))
    return {
        "images": dataset.images[used],
        "labels": dataset.labels[used],
        "train": np.searchsorted(used, dataset.train),
        "validation": np.searchsorted(used, dataset.validation),
    }


# ---------------------------------------------------------------- the text


def write(chosen: Chosen, config: TrialConfig, dataset: Dataset, folder: Folder | None, name: str) -> str:
    """The file's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    files = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("ejected")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    context = _context(chosen, config, dataset, folder, name)
    return _tidy(files.get_template("file.py.jinja").render(context))


def _tidy(text: str) -> str:
    """Blank lines as formatters have them: two around what stands at the left edge, one at most elsewhere."""
    text = re.sub(r"\n{2,}(?=(@|def |class |if __name__|# ----))", "\n\n\n", text)
    text = re.sub(r"(?<=\n)(@.*)\n+(?=def )", r"\1\n", text)
    text = re.sub(r"(# -{10}.*)\n+", r"\1\n\n\n", text)
    text = re.sub(r"\n{3,}(?=    )", "\n\n", text)
    return re.sub(r"\n{4,}", "\n\n\n", text).rstrip("\n") + "\n"


def _context(
    chosen: Chosen, config: TrialConfig, dataset: Dataset, folder: Folder | None, name: str
) -> dict[str, Any]:
    train, data, model = config.train, config.data, config.model
    colour = tuple(int(value) for value in np.rint(255 * np.asarray(dataset.mean, np.float32)).tolist())
    steps = augment_source.write_steps(data.augment, colour, dataset.image_size)
    mixes = train.mix_p > 0 and (train.mixup > 0 or train.cutmix > 0)
    balanced = train.class_weights == "balanced" and train.sampling != "balanced"
    alternate = any(step["alternate"] for step in steps)
    extra = [
        ("augmenting", "torch.Generator", bool(steps)),
        ("odd", "Tensor", alternate),
        ("mixing", "torch.Generator", mixes),
        ("weights", "Tensor", balanced),
    ]
    network = _network(config, dataset)
    by_stage = train.optimizer.lr_decay_per_stage != 1 or train.optimizer.head_lr != 1
    batch = min(train.batch_size, len(dataset.train))
    context: dict[str, Any] = {
        "title": _title(chosen, config),
        "about": _about(chosen, dataset, folder, name),
        "constants": "\n".join(_constants(chosen, config, dataset, folder)),
        "channels": dataset.channels,
        "size": dataset.image_size,
        "data": data,
        "train": train,
        "resize": data.resize,
        "folder": folder,
        "draws": folder and not (folder.test and folder.validation and not data.subset),
        "data_help": "folder of the images" if folder else "an .npz file as that beside this file",
        "ema": train.ema,
        "mixes": mixes,
        "smoothing": train.label_smoothing,
        "balanced": balanced,
        "sampling": train.sampling == "balanced",
        "accumulate": train.accumulate,
        "clip_norm": train.clip_norm,
        "clip_value": train.clip_value,
        "clips": train.clip_norm is not None or train.clip_value is not None,
        "precision": _precision(chosen, train),
        "threads": _threads(chosen),
        "at_once": memory.images_at_once(dataset.image_size, batch),
        "augment": bool(steps),
        "steps": steps,
        "helpers": augment_source.find_helpers(steps),
        "alternate": alternate,
        "extra": [(kind, what) for kind, what, so in extra if so],
        "schedule": train.schedule,
        "plateau": train.schedule.name == "plateau",
        "moves": _moves(train, by_stage),
        "optimizer": _optimizer(train, by_stage),
        "freezes": _freezes(train, network["count"]),
        "grey": isinstance(model, Backbone) and dataset.channels == 1,
        **network,
    }
    context["stages"] = network["stages"] if by_stage or (context["freezes"] or {}).get("learning") else None
    if context["stages"] is not None and network["backbone"]:
        context["constants"] += "\n" + "\n".join(spread("STAGES", network["backbone"]["parts"]))
    context["math"] = (
        any(step["kind"] == "affine" for step in steps)
        or train.schedule.name in ("cosine", "plateau")
        or (train.schedule.name == "onecycle" and train.schedule.shape == "cosine")
    )
    return context


def _network(config: TrialConfig, dataset: Dataset) -> dict[str, Any]:
    """The parts of the context that say what the network is."""
    model = config.model
    shape = {"classes": len(dataset.classes), "in_channels": dataset.channels, "image_size": dataset.image_size}
    found: dict[str, Any] = {"backbone": None, "user": None, "functions": [], "used": set(), "start": "", "body": ""}
    network: Any = make_network(model, **shape)
    if isinstance(model, UserModel):
        module, _, function = model.name.partition(":")
        given = {"classes": "len(CLASSES)", "in_channels": dataset.channels, "image_size": "SIZE"}
        written = [f"{name}={value}" for name, value in given.items()]
        written += [f"{name}={quote(value)}" for name, value in model.arguments.items()]
        user = {"module": module, "function": function, "arguments": ", ".join(written)}
        return {**found, "user": user, "head": "", "stages": None, "count": 0}
    if isinstance(network, BackboneNetwork):
        assert isinstance(model, Backbone)
        from tuner.delivery.backbone_source import write_backbone

        backbone, head = write_backbone(network, model, dataset.image_size)
        backbone["dropped"] = quote(tuple(backbone["dropped"]))
        return {**found, "backbone": backbone, "head": head, "stages": {"places": ()}, "count": len(network.parts)}
    source = write_network(network, model)
    start = "he"
    if isinstance(model, Cnn):
        start = "identity" if model.norm != "none" else "both" if model.init == "identity" else "bias"
    return {
        **found,
        "functions": source.functions,
        "body": source.body,
        "head": source.head,
        "used": source.used,
        "start": start,
        "stages": {"places": tuple(source.stages)},
        "count": len(source.stages),
    }


def _moves(train: Train, by_stage: bool) -> str:
    """What each step sets the rate of a group to; empty where it stays."""
    schedule = train.schedule
    still = schedule.name == "constant" and not schedule.warmup
    reduced = ", plateau.reduced" if schedule.name == "plateau" else ""
    rate = "LR" if still else f"rate(epoch * steps + step, steps{reduced})"
    return "" if still and not by_stage else f'{rate} * group["factor"]' if by_stage else rate


def _optimizer(train: Train, by_stage: bool) -> dict[str, Any]:
    """The call that makes torch's optimiser."""
    config: Any = train.optimizer
    calls = {"adam": "Adam", "adamw": "AdamW", "nadam": "NAdam", "sgd": "SGD", "rmsprop": "RMSprop", "adagrad": "Adagrad"}
    arguments = ["lr=LR"]
    for name in ("betas", "momentum", "nesterov", "alpha", "lr_decay"):
        if (value := getattr(config, name, None)) is not None and value is not False:
            arguments.append(f"{name}={value}")
    if config.weight_decay or config.name == "adamw":
        arguments.append("weight_decay=WEIGHT_DECAY")
    arguments.append("foreach=True" if config.name in ("nadam", "rmsprop") else "fused=True")
    return {
        "about": (type(config).__doc__ or "").partition("\n")[0],
        "call": calls[config.name],
        "arguments": ", ".join(arguments),
        "groups": "stages" if by_stage else "plain" if config.decay_all else "decay",
        "all": config.decay_all,
        "decay": config.lr_decay_per_stage,
        "head": config.head_lr,
    }


def _freezes(train: Train, stages: int) -> dict[str, Any] | None:
    """How many of the last stages learn when; None where all do, always."""
    most = transfer.trainable_stages(train, stages, None)
    if train.unfreeze is None:
        learning = str(most) if train.trainable != "all" else ""
    elif train.unfreeze.at is not None:
        learning = f"min({most}, sum(epoch >= after for after in {tuple(train.unfreeze.at)}))"
    else:
        learning = f"min({most}, epoch // {train.unfreeze.every})"
    if not learning and not train.freeze_norm:
        return None
    never = f"{train.epochs}" if learning else "0"
    return {"learning": learning, "norms": train.freeze_norm, "never": never}


def _precision(chosen: Chosen, train: Train) -> str:
    said = chosen.record.run.get("precision")
    if train.precision == "auto" and said in ("fp32", "bf16", "fp16"):
        return str(said)
    return resolve_precision(train.precision, str(chosen.record.run.get("device") or "cpu"))


def _threads(chosen: Chosen) -> int:
    on_cpu = str(chosen.record.run.get("device") or "cpu") == "cpu"
    return max(1, int((chosen.record.run.get("resources") or {}).get("cpu") or 1)) if on_cpu else 0


# ---------------------------------------------------------------- words and constants


def quote(value: Any) -> str:
    """A value as formatters write it: text in double quotes."""
    if isinstance(value, tuple):
        return f"({', '.join(map(quote, value))}{',' if len(value) == 1 else ''})"
    said = repr(value)
    return f'"{said[1:-1]}"' if isinstance(value, str) and said[0] == "'" and '"' not in said else said


def spread(name: str, items: Sequence[Any]) -> Iterator[str]:
    """The lines of a tuple."""
    written = [quote(item) for item in items]
    line = f"{name} = ({', '.join(written)}{',' if len(written) == 1 else ''})"
    if len(line) <= WIDTH:
        yield line
        return
    if len(written) > MOST_NAMED and all(isinstance(item, str) and re.fullmatch(r"[^\s\"\\]+", item) for item in items):
        import textwrap

        yield f'{name} = """'
        yield from textwrap.wrap(" ".join(items), WIDTH - 4, break_on_hyphens=False, break_long_words=False)
        yield '""".split()'
        return
    yield f"{name} = ("
    yield from (f"    {item}," for item in written)
    yield ")"


def _constants(chosen: Chosen, config: TrialConfig, dataset: Dataset, folder: Folder | None) -> Iterator[str]:
    train = config.train
    mean, std = weights.preprocessing(config, dataset.channels) or (dataset.mean, dataset.std)
    yield f"DATA = Path({quote(str(folder.root))})" if folder else 'DATA = Path(__file__).with_suffix(".npz")'
    yield 'WEIGHTS = Path(__file__).with_suffix(".pth")'
    yield from spread("CLASSES", dataset.classes)
    if folder:
        yield from spread("SUFFIXES", SUFFIXES)
        if folder.unreadable:
            yield from spread("UNREADABLE", folder.unreadable)
    yield f"SIZE = {dataset.image_size}  # pixels a side"
    yield f"SEED = {config.seed}"
    if folder:
        yield f"SPLIT_SEED = {chosen.split_seed}"
    yield f"EPOCHS = {train.epochs}"
    yield f"BATCH = {train.batch_size}"
    yield f"LR = {train.optimizer.lr}"
    if train.optimizer.weight_decay or train.optimizer.name == "adamw":
        yield f"WEIGHT_DECAY = {train.optimizer.weight_decay}"
    rate = getattr(config.model, "dropout", 0.0)
    if rate := getattr(rate, "rate", rate):
        yield f"DROPOUT = {rate}"
    if train.label_smoothing:
        yield f"SMOOTHING = {train.label_smoothing}"
    if train.mix_p > 0:
        named = {"MIXUP": train.mixup, "CUTMIX": train.cutmix}
        yield from (f"{name} = {value}" for name, value in named.items() if value)
        if train.mixup or train.cutmix:
            yield f"MIX_P = {train.mix_p}"
    if train.ema:
        yield f"EMA = {train.ema}"
    about = "of the training images, on a scale of 0 to 1" if (mean, std) == (dataset.mean, dataset.std) else ""
    for name, values in (("MEAN", mean), ("STD", std)):
        written = ", ".join(str(np.float32(value)) for value in values)
        yield f"{name} = ({written}{',' if len(values) == 1 else ''})" + (f"  # {about}" if about else "")
        about = ""
    yield 'DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")'
    dtype = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[_precision(chosen, train)]
    yield f"DTYPE = torch.{dtype}  # of the network's arithmetic"


def _title(chosen: Chosen, config: TrialConfig) -> str:
    kind = config.model.arch if isinstance(config.model, Backbone) else config.model.name
    return f"{chosen.name}: a {kind} for images, its training and its use in one file."


def _about(chosen: Chosen, dataset: Dataset, folder: Folder | None, name: str) -> str:
    import textwrap

    shown = [f"{row['val_accuracy']:.1%}" for row in chosen.curve if isinstance(row.get("val_accuracy"), float)]
    said = f"Trained on {len(dataset.train):,} images, judged on {len(dataset.validation):,} others."
    if shown:
        many = f"{', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}"
        said += f" Right of these after each epoch of the search: {many}."
    same = "This file gives the same curve, on the same kind of processor; it needs torch, numpy and Pillow."
    early = "It trains all epochs: the search's early stopping is left out." if chosen.config.train.early_stopping else ""
    paragraphs = [textwrap.fill(f"{said} {same} {early}".strip(), WIDTH - 4)]
    data = "DATA" if folder else "DATA.npz"
    paragraphs.append(
        f"    python {name}.py [{data}] [--epochs N]   train, an epoch a line; writes {name}.pth\n"
        f"    python {name}.py --predict IMAGE...      label images with these weights"
    )
    return "\n\n".join(paragraphs).replace("\\", "\\\\").replace('"""', "'''")


# ---------------------------------------------------------------- the proof


def check(text: str, config: TrialConfig, dataset: Dataset, chosen: Chosen, folder: Folder | None) -> float:
    """Let hypertune and the file train the same few steps; the greatest difference of their losses, as a share.

    Raises:
        BadInput: they differ, or the file would read other images: then there is nothing honest to give away.
    """
    precision = _precision(chosen, config.train)
    if precision == "fp16":  # which no CPU computes
        text, precision = text.replace("torch.float16", "torch.float32"), "fp32"
    train = config.train.model_copy(update={"precision": precision})
    batch = min(train.batch_size, len(dataset.train))
    few = dataclasses.replace(
        dataset,
        train=dataset.train[: batch * CHECKED_STEPS],
        validation=dataset.validation[: 2 * len(dataset.classes)],
    )
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch, torch.random.fork_rng(devices=[]):
        module = load(text, Path(scratch) / "ejected.py")
        module.DEVICE = torch.device("cpu")
        if folder:
            _check_split(module, dataset, folder)
        trainer = Trainer(config.model_copy(update={"train": train}), few, threads=threads)
        epochs = min(2, train.epochs)
        expected = [trainer.run_epoch() for _ in range(epochs)]
        held = (np.asarray(few.images), few.labels, few.train, few.validation)
        data = module.Data(*(torch.from_numpy(np.array(part)) for part in held))
        found = [row for row, _ in module.train(data, epochs)]
    worst = 0.0
    for mine, theirs in zip(expected, found, strict=True):
        for name in ("train_loss", "val_loss"):
            ours = getattr(mine, name)
            worst = max(worst, abs(theirs[name] - ours) / max(1.0, abs(ours))) if math.isfinite(ours) else worst
    if not worst <= MOST_DIFFERENT:
        raise BadInput(
            f"the file would train otherwise than hypertune does (a loss differs by {worst:.1%}), so it was not written; "
            "please report the trial's params.json"
        )
    return worst


def _check_split(module: ModuleType, dataset: Dataset, folder: Folder) -> None:
    files, labels, train, validation = module.split(folder.root)
    same = (
        np.array_equal(train, dataset.train)
        and np.array_equal(validation, dataset.validation)
        and np.array_equal(labels, dataset.labels)
        and all(
            np.array_equal(module.decode(files[n]), dataset.images[n])
            for n in (*train[:2].tolist(), *validation[:2].tolist())
        )
    )
    if not same:
        rule = "the file would read other images than hypertune does (links or hidden files among them?)"
        raise BadInput(f"{folder.root}: {rule}, so it was not written")


def load(text: str, path: Path) -> ModuleType:
    """A text as a module, not among those that others import."""
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("ejected", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = bytecode
    return module
