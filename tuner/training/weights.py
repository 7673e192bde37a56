"""Weights that a backbone starts from: fetched once, read without running code, matched by name and shape."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tuner.errors import BadInput, NoSpace, Problem
from tuner.spec.backbones import TIMM
from tuner.spec.data import expand_home
from tuner.spec.model import AnyModel, Backbone
from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint
from tuner.training.backbone import import_timm
from tuner.training.cache import cache_root, flush
from tuner.training.networks import make_network

Colours = tuple[float, ...]
IMAGENET: tuple[Colours, Colours] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NAMED = 5  # tensors in a message
WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which training scripts keep the weights in a .pth
PARALLEL = "module."  # before each name that DataParallel has saved
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers of GoogLeNet and Inception that only their training needs
RENAMED = (  # names in files that are older than torchvision's networks
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.mlp\.)linear_1\."), r"\g<1>0."),
    (re.compile(r"(\.mlp\.)linear_2\."), r"\g<1>3."),
)


def fetch(arch: str, root: Path | None = None) -> Path:
    """The file of a library's ImageNet weights in the cache `root`; where it is not there it is fetched once.

    torchvision's best weights, whose file name holds the beginning of their sha256; timm's own choice.

    Raises:
        BadInput: it cannot be fetched, or is damaged.
        NoSpace: the disk is full.
    """
    path = find_place(arch, root)
    folder = path.parent
    digest = "" if arch.startswith(TIMM) else path.stem.rsplit("-", 1)[1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if path.exists() and not _hash(path).startswith(digest):
                raise _bad(f"{path} is damaged (its sha256 does not begin with {digest}); delete it")
            if not path.exists():
                _fetch_timm(arch, path) if arch.startswith(TIMM) else _download(find_url(arch), path, digest)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{folder}: the disk is full; free some space or point HYPERTUNE_CACHE elsewhere") from error
        what = f"the ImageNet weights of {arch} ({path.name}) cannot be fetched: {error}"
        here = f"put {path.name} into {folder} yourself"
        raise _bad(what, f"{here}, or write model.weights: path/to/a/file, or model.weights: none") from error
    return path


def find_place(arch: str, root: Path | None = None) -> Path:
    """Where a library's ImageNet weights lie in the cache `root`, be they there or not."""
    timms = f"timm_{arch.removeprefix(TIMM)}.safetensors"
    return cache_root(root) / "weights" / (timms if arch.startswith(TIMM) else find_url(arch).rsplit("/", 1)[1])


def find_url(arch: str) -> str:
    """Where torchvision publishes the best ImageNet weights of a classifier."""
    from torchvision.models import get_model_weights

    return str(get_model_weights(arch).DEFAULT.url)


def check_weights(config: AnyModel, root: Path | None = None) -> None:
    """Fetch or read what a `model` section starts from, before any trial needs it.

    Raises:
        BadInput: it cannot be had, or does not fit the network.
    """
    if not isinstance(config, Backbone) or config.weights == "none":
        return
    if config.weights == "imagenet":
        fetch(config.arch, root)
        return
    with torch.device("meta"):
        network = make_network(config, classes=2, in_channels=3, image_size=224)
    _fit(network, read(Path(config.weights)), config)


def load_into(network: nn.Module, config: AnyModel, root: Path | None = None) -> list[str]:
    """Give a network the weights that its `model` section names; returns what a person should know of it.

    The head is new, but for a checkpoint of ours that has the same head.

    Raises:
        BadInput: the file is not there, or does not fit.
    """
    if not isinstance(config, Backbone) or config.weights == "none":
        return []
    path = _find_file(config, root)
    found, notes = _fit(network, read(path), config)
    network.load_state_dict(found, strict=False)
    return [f"{config.arch} starts from {path}", *notes]


def preprocessing(config: TrialConfig, channels: int = 3) -> tuple[Colours, Colours] | None:
    """Mean and deviation, on a scale of 0 to 1, that images are normalised with; None: those of the training images.

    Grey images get the average of the three colours', colour images what grey ones had three times.
    """
    chosen = config.data.normalize
    known = {"train": None, "imagenet": IMAGENET, "none": ((0.0,) * 3, (1.0,) * 3)}
    found = known[chosen] if chosen in known else _trained_with(config.model)
    if found is None or len(found[0]) == channels:
        return found
    mean, std = found
    return (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels


def _trained_with(config: AnyModel) -> tuple[Colours, Colours] | None:
    if not isinstance(config, Backbone) or config.weights == "none":
        return None
    if config.weights == "imagenet" and not config.arch.startswith(TIMM):
        if config.arch in ("googlenet", "inception_v3"):  # so they were trained, whatever their transforms say
            return (0.5,) * 3, (0.5,) * 3
        from torchvision.models import get_model_weights

        transforms = get_model_weights(config.arch).DEFAULT.transforms()
        return tuple(transforms.mean), tuple(transforms.std)
    path = _find_file(config)
    path = path / checkpoint.WEIGHTS if path.is_dir() else path
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            held = file.metadata() or {}
        mean, std = (tuple(float(value) for value in json.loads(held[name])) for name in ("mean", "std"))
        if len(mean) != len(std) or len(mean) not in (1, 3):
            raise ValueError(f"{len(mean)} and {len(std)} of them")
    except KeyError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise _bad(f"{path}: mean and std in its metadata must be lists of 1 or 3 numbers ({error})") from error
    return mean, std


def _find_file(config: Backbone, root: Path | None = None) -> Path:
    if config.weights != "imagenet":
        return expand_home(config.weights)
    path = find_place(config.arch, root)
    return path if path.exists() else fetch(config.arch, root)  # the driver has fetched it, unless elsewhere


# ---------------------------------------------------------------- reading


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file, or of a checkpoint folder of ours, by name, on the CPU.

    Raises:
        BadInput: there is no such file, or it holds something else than tensors.
    """
    path = expand_home(str(path))
    if not path.exists():
        raise _bad(f"no such file: {path}", "paths are relative to the directory where the command was started")
    if path.is_dir():
        try:
            return checkpoint.load(path)[0]
        except BadInput as error:
            raise _bad(str(error), "a folder of weights is the checkpoint_best of a trial") from error
    try:
        if path.suffix == ".safetensors":
            held = safetensors.torch.load_file(path)
        elif path.suffix in (".pth", ".pt"):
            held = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise _bad(f"{path}: weights are a .safetensors or .pth file, or a folder checkpoint_best")
    except BadInput:
        raise
    except Exception as error:  # torch raises what a damaged or foreign file happens to cause
        rule = f"{path} cannot be read as tensors alone; nothing else is read, as it could run code"
        said = "it holds more" if isinstance(error, pickle.UnpicklingError) else str(error).splitlines()[0]
        raise _bad(f"{rule} ({said})", _SAVE) from error
    held = _unwrap(held)
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        keys = ", ".join(map(str, [*held][:NAMED])) if isinstance(held, Mapping) else type(held).__name__
        raise _bad(f"{path} must hold nothing but tensors by name, it holds {keys}", _SAVE)
    for name, value in held.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise _bad(f"{path}: {name} holds values that are no finite numbers; nothing can be learned from there")
    parallel = all(str(name).startswith(PARALLEL) for name in held)
    return {str(name).removeprefix(PARALLEL if parallel else ""): value for name, value in held.items()}


def _unwrap(held: Any) -> Any:
    if not isinstance(held, Mapping):
        return held
    return next((held[key] for key in WRAPPERS if isinstance(held.get(key), Mapping)), held)


_SAVE = "save the tensors alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


def _fit(network: nn.Module, given: Mapping[str, Tensor], config: Backbone) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by the network's names, and what was left out or changed."""
    body, expected = network.get_submodule("body"), network.state_dict()
    found, notes = _rename(given), []
    if f"body.{_POSITIONS}" in found and f"body.{_POSITIONS}" in expected:
        notes += _stretch(body, found)
    head = {name: value for name, value in found.items() if name.startswith("head.")}
    wanted = {name: value.shape for name, value in expected.items() if name.startswith("head.")}
    if {name: value.shape for name, value in head.items()} != wanted:
        found = {name: value for name, value in found.items() if name not in head}
        wanted = {}
        notes += [f"the head is new; left out: {_list(head)}"] if head else []
    if left := {n: v for n, v in found.items() if n not in expected and _is_old_head(body, n)}:
        found = {name: value for name, value in found.items() if name not in left}
        notes.append(f"the head is new; left out: {_list({n.removeprefix('body.'): v for n, v in left.items()})}")

    wrong = []
    for name, value in expected.items():
        known = found.get(name)
        if known is None and (name.startswith("body.") and not name.endswith("num_batches_tracked")):
            wrong.append(f"{name.removeprefix('body.')} {tuple(value.shape)} is missing")
        elif known is not None and known.shape != value.shape:
            shapes = f"is {tuple(known.shape)}, {config.arch} has {tuple(value.shape)}"
            wrong.append(f"{name.removeprefix('body.')} {shapes}")
    for name, value in found.items():
        if name not in expected:
            wrong.append(f"{name.removeprefix('body.')} {tuple(value.shape)} is not in {config.arch}")
    if wrong:
        more = [f"and {len(wrong) - NAMED} more"] if len(wrong) > NAMED else []
        problems = [f"{config.weights} does not fit {config.arch}:", *wrong[:NAMED], *more]
        raise _bad("\n  ".join(problems))
    return found, notes


def _rename(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By our names: a checkpoint's, the averaged weights first, a network's of ours as they are, others' as a body."""
    if any(name.startswith("model.body.") for name in given):
        plain = {n.removeprefix("model."): v for n, v in given.items() if n.startswith("model.")}
        averaged = {n.removeprefix("ema."): v for n, v in given.items() if n.startswith("ema.")}
        return plain | {name: value for name, value in averaged.items() if name in plain}
    if all(name.startswith(("body.", "head.")) for name in given) and any(name.startswith("body.") for name in given):
        return dict(given)
    found = {}
    for name, value in given.items():
        for pattern, replacement in RENAMED:
            name = pattern.sub(replacement, name)
        found[f"body.{name}"] = value
    return found


_POSITIONS = "encoder.pos_embedding"


def _stretch(body: Any, found: dict[str, Tensor]) -> list[str]:
    """Position embeddings of a vision transformer for images of another side, interpolated between the patches."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    name = f"body.{_POSITIONS}"
    before = found[name]
    if before.shape[1] == body.seq_length or before.shape[2] != body.hidden_dim:
        return []
    state = interpolate_embeddings(body.image_size, body.patch_size, {_POSITIONS: before})
    found[name] = state[_POSITIONS]
    return [f"positions interpolated from {before.shape[1] - 1} to {body.seq_length - 1} patches"]


def _is_old_head(body: nn.Module, name: str) -> bool:
    """Whether a tensor belongs to the last layer, in whose place our head is, or to a classifier beside it."""
    name = name.removeprefix("body.")
    if name.startswith(AUXILIARY):
        return True
    try:
        return isinstance(body.get_submodule(name.rpartition(".")[0]), nn.Identity)
    except AttributeError:
        return False


def _list(values: Mapping[str, Tensor]) -> str:
    shown = [f"{name} {tuple(value.shape)}" for name, value in sorted(values.items())[:NAMED]]
    return ", ".join(shown) + (f" and {len(values) - NAMED} more" if len(values) > NAMED else "")


# ---------------------------------------------------------------- fetching


def _download(url: str, path: Path, digest: str) -> None:
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)  # aside, then moved
    except RuntimeError as error:
        raise _bad(f"what came from {url} is damaged or something else ({error})", "try again later") from error


def _fetch_timm(arch: str, path: Path) -> None:
    """timm's weights, with the mean and deviation that belong to them in the metadata."""
    name = arch.removeprefix(TIMM)
    timm = import_timm(name)
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0)
    except RuntimeError as error:  # among others: timm publishes no weights of it
        raise OSError(str(error)) from error
    aside = path.with_name(f"{path.name}.partial")
    colours = {key: json.dumps(list(network.pretrained_cfg[key])) for key in ("mean", "std")}
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(tensors, aside, metadata=colours)
    flush(aside)
    aside.replace(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bad(message: str, hint: str = "") -> BadInput:
    return BadInput([Problem("model.weights", 0, 0, message)], hint=hint)
