"""Classifiers of torchvision and timm as networks of ours: their body cut into stages, a head of our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import lru_cache
from importlib import import_module
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tuner.errors import BadInput, Infeasible, Problem
from tuner.spec.backbones import TIMM
from tuner.spec.model import Backbone
from tuner.spec.nearest import nearest
from tuner.training.networks import make_head

LARGEST = 1024  # pixels: what data.image_size may be
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
# What begins a stage, by the name of its module. All others: what halves the map (MobileNet, EfficientNet, VGG, ...).
BEGINS = (
    ("resnet|resnext|wide_resnet", r"layer\d"),
    ("densenet", r"features\.denseblock\d"),
    ("convnext|swin", r"features\.[1246]"),
    ("shufflenet", r"stage\d"),
    ("regnet", r"trunk_output\.block\d"),
    ("googlenet", r"inception[345]a"),
    ("inception", r"Mixed_(5b|6a|7a)"),
    ("maxvit", r"blocks\.\d"),
    ("vit", r"encoder\.layers\.encoder_layer_\d+"),
)
GROUPS = ("features", "layers", "stages", "blocks")  # containers whose parts are looked at one by one


class BackboneNetwork(nn.Module):
    """A classifier without its last layer, which `head` takes the place of; grey images are repeated to three channels.

    body: the library's own network with its own names. parts: for each stage the names in it of modules and parameters.
    """

    def __init__(self, body: nn.Module, parts: tuple[tuple[str, ...], ...], head: nn.Module, in_channels: int) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.parts = parts
        self.grey = in_channels == 1

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """Parts of the body from the input on; with the head they hold each parameter once."""
        return tuple(self._gather(names) for names in self.parts)

    def features(self, images: Tensor) -> Tensor:
        """What the head gets, (N, F), of images (N, C, S, S)."""
        made: Tensor = self.body(images.expand(-1, 3, -1, -1) if self.grey else images)
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, S, S)."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def _gather(self, names: Iterable[str]) -> nn.Module:
        bare = dict(self.body.named_parameters())
        parts = (nn.ParameterList([bare[n]]) if n in bare else self.body.get_submodule(n) for n in names)
        return nn.ModuleList(parts)


def build(config: Backbone, *, classes: int, in_channels: int, image_size: int) -> BackboneNetwork:
    """The classifier with random weights; `weights.load_into` gives it others.

    Raises:
        Infeasible: the images are too small for it, or no multiple of its patches.
        BadInput: there is no such classifier, or it has no stochastic depth.
    """
    features = count_features(config.arch, image_size)
    body = _make_body(config.arch, image_size, config.stochastic_depth)
    head = make_head(features, classes, config.hidden, "relu", config.dropout)
    return BackboneNetwork(body, _cut(body, _find_begins(body, config.arch)), head, in_channels)


def count_features(arch: str, image_size: int) -> int:
    """How many features the body gives for images of this side: a run without memory, once for each.

    Raises:
        Infeasible: these images do not fit; the message names the nearest larger side that does, if one is known.
        BadInput: there is no such classifier.
    """
    found = _find_features(arch, image_size)
    if isinstance(found, str):
        raise Infeasible(found)
    return found


@lru_cache(maxsize=1024)
def _find_features(arch: str, image_size: int) -> int | str:
    """The number of features, or why there are none: to find that out takes up to 5 s."""
    multiple = _multiple(arch)
    if image_size % multiple:
        near = multiple * max(1, round(image_size / multiple))
        rule = f"model.arch {arch} needs images whose side is a multiple of {multiple} pixels"
        return f"{rule}, these have {image_size}; set data.image_size: {near}"
    with torch.device("meta"):
        body = _make_body(arch, image_size, None).eval()
    found = _try(body, image_size)
    if isinstance(found, int):
        return found
    low, high = image_size, LARGEST
    if multiple > 1 or not isinstance(_try(body, LARGEST), int):
        return f"model.arch {arch} cannot take images of {image_size} x {image_size} pixels: {found}"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if isinstance(_try(body, middle), int) else (middle, high)
    needs = f"model.arch {arch} needs images of {high} x {high} pixels or more"
    return f"{needs}, these are {image_size} x {image_size}; set data.image_size: {high}"


def _try(body: nn.Module, image_size: int) -> int | str:
    """Features that a body on the meta device gives, or what it says of images of this side."""
    try:
        with torch.no_grad():
            return int(body(torch.empty(1, 3, image_size, image_size, device="meta")).shape[1])
    except (RuntimeError, ValueError, AssertionError) as error:
        return str(error).splitlines()[0]


def _multiple(arch: str) -> int:
    """Pixels that the side of an image must be a multiple of."""
    if arch.startswith("vit_"):
        return int(arch.rsplit("_", 1)[1])
    return 224 if arch.startswith("maxvit") else 1  # 7 windows at an output stride of 32


# ---------------------------------------------------------------- bodies


def _make_body(arch: str, image_size: int, stochastic_depth: float | None) -> nn.Module:
    """The library's network without its last layer: images (N, 3, S, S) to features (N, F)."""
    if arch.startswith(TIMM):
        return _make_timm(arch.removeprefix(TIMM), image_size, stochastic_depth)
    from torchvision.models import get_model
    from torchvision.models.mnasnet import MNASNet

    options: dict[str, Any] = {}
    if arch in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif arch.startswith("vit_"):
        options = {"image_size": image_size}
    elif arch.startswith("maxvit"):
        options = {"input_size": (image_size, image_size)}
    with _Arithmetic() if arch.startswith("regnet") else nullcontext():
        body: nn.Module = get_model(arch, weights=None, **options)
    if isinstance(body, MNASNet):
        # Its own way of loading asks for a version number that only torch's pickles hold.
        body._load_from_state_dict = MethodType(nn.Module._load_from_state_dict, body)
    if stochastic_depth is not None:
        _spread(body, arch, stochastic_depth)
    # VGG, AlexNet, MobileNetV3 and MaxViT keep the hidden layers of their classifier: they are pretrained too.
    last = [name for name, layer in body.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    rates = [name for name, layer in body.named_modules() if isinstance(layer, nn.Dropout) and layer.p]
    for name in (last, *rates):
        body.set_submodule(name, nn.Identity())
    return body


class _Arithmetic(TorchFunctionMode):
    """RegNet works out its widths with tensors and reads them, which the meta device cannot."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        here = {"device": "cpu"} if func in (torch.arange, torch.tensor) else {}
        return func(*args, **{**(kwargs or {}), **here})


def _spread(body: nn.Module, arch: str, rate: float) -> None:
    from torchvision.ops import StochasticDepth

    layers = [layer for layer in body.modules() if isinstance(layer, StochasticDepth)]
    if not layers:
        raise BadInput([Problem("model.stochastic_depth", 0, 0, f"{arch} has no stochastic depth; leave it out")])
    for number, layer in enumerate(layers):
        layer.p = rate * number / (len(layers) - 1)


def _make_timm(name: str, image_size: int, stochastic_depth: float | None) -> nn.Module:
    timm = import_timm(name)
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        hint = f"; did you mean timm:{near}?" if near else ""
        raise BadInput([Problem("model.arch", 0, 0, f"timm has no network {name!r}{hint}")])
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": 3}
    if stochastic_depth is not None:
        options["drop_path_rate"] = stochastic_depth
    body: nn.Module
    try:
        body = timm.create_model(name, img_size=image_size, **options)
    except TypeError:  # networks that take images of any side have no such argument
        try:
            body = timm.create_model(name, **options)
        except TypeError as error:
            if stochastic_depth is None:
                raise
            rule = f"timm's {name} does not take drop_path_rate, its stochastic depth; leave it out"
            raise BadInput([Problem("model.stochastic_depth", 0, 0, rule)]) from error
    return body


def import_timm(name: str) -> Any:
    """The module timm.

    Raises:
        BadInput: it is not installed.
    """
    try:
        return import_module("timm")
    except ModuleNotFoundError as error:
        rule = f"timm:{name} needs the package timm, which is not installed"
        raise BadInput([Problem("model.arch", 0, 0, rule)], hint="pip install timm") from error


# ---------------------------------------------------------------- stages


def _cut(body: nn.Module, begins: set[str]) -> tuple[tuple[str, ...], ...]:
    """Names of modules and bare parameters by stage, from the input on; each parameter is in exactly one."""
    parameters = {name for name, _ in body.named_parameters()}
    stages: list[list[str]] = [[]]
    for name in _units(body, begins):
        if name in begins and not parameters.issuperset(stages[-1]):
            stages.append([])
        stages[-1].append(name)
    return tuple(tuple(names) for names in stages if any(p.startswith(tuple(names)) for p in parameters))


def _units(module: nn.Module, begins: set[str], prefix: str = "") -> Iterator[str]:
    """The largest parts that no stage begins within."""
    yield from (prefix + name for name, _ in module.named_parameters(recurse=False))
    for name, child in module.named_children():
        full = prefix + name
        if full not in begins and any(other.startswith(f"{full}.") for other in begins):
            yield from _units(child, begins, f"{full}.")
        else:
            yield full


def _find_begins(body: nn.Module, arch: str) -> set[str]:
    """Names of the modules that begin a stage."""
    children = dict(body.named_children())
    parts = {f"{n}.{p}": part for n in GROUPS if n in children for p, part in children[n].named_children()}
    if arch.startswith(TIMM):
        single = {n for n, child in children.items() if n not in GROUPS and not isinstance(child, NORMS)}
        return {n for n in (*parts, *single) if any(True for _ in body.get_submodule(n).parameters())}
    pattern = next((pattern for family, pattern in BEGINS if re.match(family, arch)), None)
    if pattern:
        found = {name for name, _ in body.named_modules() if re.fullmatch(pattern, name)}
    else:
        found = {name for name, part in parts.items() if any(map(_halves, part.modules()))}
    hidden = any(isinstance(layer, nn.Linear) for layer in getattr(body, "classifier", nn.Identity()).modules())
    return found | ({"classifier"} if hidden else set())


def _halves(layer: nn.Module) -> bool:
    return isinstance(layer, nn.MaxPool2d) or (isinstance(layer, nn.Conv2d) and max(layer.stride) > 1)
