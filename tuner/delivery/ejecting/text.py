"""Text: the plain PyTorch file of a trial, put together from templates with what this trial uses and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuner.delivery.ejecting import augment as eject_augment
from tuner.delivery.ejecting.backbone import write_backbone
from tuner.delivery.ejecting.code import WIDTH, Call, render
from tuner.delivery.ejecting.network import write_network
from tuner.delivery.ejecting.settings import (
    Chosen,
    Folder,
    about_of,
    constants_of,
    precision_of,
    quote,
    spread,
    title_of,
)
from tuner.spec.model import Backbone, Cnn, UserModel
from tuner.spec.train import Train
from tuner.spec.trial_config import TrialConfig
from tuner.training import memory, transfer
from tuner.training.backbone import BackboneNetwork
from tuner.training.dataset import Dataset
from tuner.training.networks import make_network

OPTIMIZERS = {
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
}
"""Names in torch.optim."""


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


def _context(chosen: Chosen, config: TrialConfig, dataset: Dataset, folder: Folder | None, name: str) -> dict[str, Any]:
    train, data, model = config.train, config.data, config.model
    colour = tuple(int(value) for value in np.rint(255 * np.asarray(dataset.mean, np.float32)).tolist())
    steps = eject_augment.write_steps(data.augment, colour, dataset.image_size)
    mixes = train.mix_p > 0 and (train.mixup > 0 or train.cutmix > 0)
    balanced = train.class_weights == "balanced" and train.sampling != "balanced"
    alternate = any(step["alternate"] for step in steps)
    extra = [
        ("augmenting", "torch.Generator", bool(steps)),
        ("odd", "Tensor", alternate),
        ("mixing", "torch.Generator", mixes),
        ("weights", "Tensor", balanced),
    ]
    given = [(name, kind) for name, kind, so in extra if so]
    network = _network(config, dataset)
    by_stage = train.optimizer.lr_decay_per_stage != 1 or train.optimizer.head_lr != 1
    batch = min(train.batch_size, len(dataset.train))
    context: dict[str, Any] = {
        "title": title_of(chosen, config, network["params"]),
        "about": about_of(chosen, dataset, folder, name),
        "constants": "\n".join(constants_of(chosen, config, dataset, folder)),
        "channels": dataset.channels,
        "size": dataset.image_size,
        "data": data,
        "train": train,
        "resize": data.resize,
        "folder": folder,
        "draws": folder and not (folder.test and folder.validation and not data.subset),
        "data_help": "folder of the images" if folder else "an .npz file of images",
        "ema": train.ema,
        "mixes": mixes,
        "smoothing": train.label_smoothing,
        "balanced": balanced,
        "sampling": train.sampling == "balanced",
        "accumulate": train.accumulate,
        "clip_norm": train.clip_norm,
        "clip_value": train.clip_value,
        "clips": train.clip_norm is not None or train.clip_value is not None,
        "precision": precision_of(chosen, train),
        "threads": _threads(chosen),
        "autocast": "torch.autocast(DEVICE.type, DTYPE)" if precision_of(chosen, train) != "fp32" else "",
        "loss_head": _head(
            "compute_loss", [("network", "nn.Module"), ("pixels", "Tensor"), ("labels", "Tensor"), *given]
        ),
        "at_once": memory.images_at_once(dataset.image_size, batch),
        "augment": bool(steps),
        "steps": steps,
        "helpers": eject_augment.find_helpers(steps),
        "alternate": alternate,
        "extra": given,
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


def _head(name: str, given: Sequence[tuple[str, str]]) -> str:
    """The first line of a function that gives a tensor, or lines where it is long."""
    written = [f"{what}: {kind}" for what, kind in given]
    one = f"def {name}({', '.join(written)}) -> Tensor:"
    return (
        one if len(one) <= WIDTH else "\n".join((f"def {name}(", *(f"    {part}," for part in written), ") -> Tensor:"))
    )


def _network(config: TrialConfig, dataset: Dataset) -> dict[str, Any]:
    """The parts of the context that say what the network is."""
    model = config.model
    shape = {"classes": len(dataset.classes), "in_channels": dataset.channels, "image_size": dataset.image_size}
    found: dict[str, Any] = {"backbone": None, "user": None, "functions": [], "used": set(), "start": "", "body": ""}
    network: Any = make_network(model, **shape)
    found["params"] = sum(parameter.numel() for parameter in network.parameters())
    if isinstance(model, UserModel):
        module, _, function = model.name.partition(":")
        given = {"classes": "len(CLASSES)", "in_channels": dataset.channels, "image_size": "SIZE"}
        written = [f"{name}={value}" for name, value in given.items()]
        written += [f"{name}={quote(value)}" for name, value in model.arguments.items()]
        user = {"module": module, "function": function, "arguments": ", ".join(written)}
        return {**found, "user": user, "head": "", "stages": None, "count": 0}
    if isinstance(network, BackboneNetwork):
        assert isinstance(model, Backbone)
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
        "whole": source.whole,
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
    keywords: list[tuple[str, Any]] = [("lr", "LR")]
    for name in ("betas", "momentum", "nesterov", "alpha", "lr_decay"):
        if value := getattr(config, name, None):
            keywords.append((name, value))
    if config.weight_decay or config.name == "adamw":
        keywords.append(("weight_decay", "WEIGHT_DECAY"))
    # Fused SGD wants momenta of all parameters or of none, and what is unfrozen later has none yet.
    late = config.name == "sgd" and train.unfreeze is not None
    keywords.append(("foreach" if late or config.name in ("nadam", "rmsprop") else "fused", True))
    groups = "stages" if by_stage else "plain" if config.decay_all else "decay"
    first = "network.parameters()" if groups == "plain" else "groups"
    return {
        "about": (type(config).__doc__ or "").partition("\n")[0],
        "call": render(Call(f"torch.optim.{OPTIMIZERS[config.name]}", (first,), tuple(keywords)), 4),
        "groups": groups,
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
    return {"learning": learning, "norms": train.freeze_norm}


def _threads(chosen: Chosen) -> int:
    run = chosen.record.run
    if str(run.get("device") or "cpu") != "cpu":
        return 0
    cores = (run.get("resources") or {}).get("cpu") or 1
    if cores == "auto":  # those of the machines that took trials
        cores = next((p["typical"]["threads"] for p in run.get("packing") or () if p["at_once"]), 1)
    return max(1, int(cores))
