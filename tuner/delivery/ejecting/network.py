"""Source: a network of ours written out as plain PyTorch code, read off the network itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tuner.delivery.ejecting.code import Call, Given, list_values, render, replace, shape_of
from tuner.errors import BadInput
from tuner.spec.model import Cnn, DilatedDown
from tuner.training.cnn import Whiten
from tuner.training.densenet import Dense
from tuner.training.inception import Module
from tuner.training.networks import Network, Residual
from tuner.training.resnet import Shortcut

ABOUT = {
    "block": "A block of the body.",
    "halving_block": "A block that halves the map and has further channels.",
    "layer": "A layer of a block.",
    "module": "Convolutions of several sizes that see the same map.",
    "stage": "A stage of the body.",
}


@dataclass
class Source:
    """Code of a network. whole: all of it; body, head: its parts; stages: places in the body of what can learn;
    used: classes and functions that it needs.
    """

    functions: list[str] = field(default_factory=list)
    whole: str = ""
    body: str = ""
    head: str = ""
    stages: list[int] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


def write_network(network: Network, config: Any) -> Source:
    """The code of a network as `make_network` builds it; layers are made in the same order, so they draw alike.

    Raises:
        BadInput: it has a layer that has no plain form here.
    """
    source, writer = Source(), _Writer(config)
    found: list[tuple[str, Any]] = []
    for name, stage in network.body.named_children():
        call = writer.call(stage, (name,))
        if next(stage.parameters(), None) is not None:
            source.stages.append(len(found))
            found.append((name, call))
        else:  # pooling, or what never learns
            found += [(name, part) for part in (call.arguments if call.name == "nn.Sequential" else (call,))]
    stages = [call for _, call in found]
    names = [re.sub(r"\d+$", "", name) for name, _ in found]
    inner = [(number, re.sub(r"\d+$", "", kept)) for number, kept in writer.kept]
    source.functions = _share(stages, names, inner)
    body, head = tuple(_gather(stages)), list_head(network.head, config)
    source.body, source.head = (render(_chain(parts), 4) for parts in (body, head))
    source.whole = render(_chain((*body, *head)), 4)
    source.used = writer.used
    return source


def list_head(head: nn.Module, config: Any) -> tuple[Any, ...]:
    """The layers of a head, with as many outputs as the file names classes."""
    *parts, output = _Writer(config).call(head, ("head",)).arguments
    return (*parts, Call(output.name, (output.arguments[0], Given("len(CLASSES)", "classes"))))


def write_head(head: nn.Module, config: Any) -> str:
    """The code of a head."""
    return render(_chain(list_head(head, config)), 4)


def _chain(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else Call("nn.Sequential", tuple(parts))


class _Writer:
    """Turns layers into calls. kept: layers inside a stage that are units of their own, by their calls' identity."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.used: set[str] = set()
        self.kept: list[tuple[Call, str]] = []

    def call(self, layer: nn.Module, path: tuple[str, ...]) -> Call:
        """The code that makes a layer; path: its name in the body."""
        match layer:
            case nn.Sequential():
                return Call("nn.Sequential", tuple(self._list(layer, path)))
            case Whiten():
                self.used.add("whiten")
                return Call("nn.Conv2d", (*_sizes(layer), 2), (("bias", False),), ".requires_grad_(False)")
            case nn.Conv2d():
                return self._start(layer, _convolution(layer), path)
            case Residual():
                self.used.add("Residual")
                parts: list[Any] = [
                    self.call(layer.branch, (*path, "branch")),
                    self.call(layer.around, (*path, "around")),
                ]
                rate = getattr(layer.depth, "p", 0.0)
                if rate:
                    self.used.add("stochastic_depth")
                    parts.append(Given(rate, "rate"))
                return Call("Residual", tuple(Call("nn.Identity") if p == Call("nn.Sequential") else p for p in parts))
            case Shortcut():
                self.used.add("Shortcut")
                return Call("Shortcut", (Given(layer.further, "further"),))
            case Dense():
                self.used.add("Dense")
                return Call("Dense", self.call(layer.layer, path).arguments)
            case Module():
                self.used.add("Branches")
                return Call("Branches", tuple(self.call(branch, path) for branch in layer.branches))
        return self._plain(layer)

    def _list(self, layer: nn.Sequential, path: tuple[str, ...]) -> Iterator[Any]:
        if [name for name, _ in layer.named_children()] == ["depthwise", "pointwise"] and self._starts:
            # Both are made before either gets its first weights.
            self.used.add("separable")
            yield Call("separable", tuple(_convolution(part) for part in layer.children()))
            return
        for name, part in layer.named_children():
            if isinstance(part, nn.Identity):
                continue
            call = self.call(part, (*path, name))
            unit = len(path) == 1 and re.fullmatch(r"(block|layer|module)\d+", name)
            if unit:
                self.kept.append((call, name))
            if isinstance(part, nn.Sequential) and not unit:
                yield from call.arguments
            else:
                yield call

    @property
    def _starts(self) -> bool:
        """Whether convolutions begin otherwise than torch begins them."""
        if isinstance(self.config, Cnn):
            return self.config.norm == "none" or self.config.init == "identity"
        return str(self.config.name) in ("resnet", "densenet")

    def _start(self, layer: nn.Conv2d, call: Call, path: tuple[str, ...]) -> Call:
        """With the first weights that the networks here give it."""
        config = self.config
        if not self._starts:
            return call
        keywords: list[tuple[str, Any]] = []
        if isinstance(config, Cnn):
            he = config.norm == "none" and layer.bias is not None
            identity = config.init == "identity" and "down" not in path
            if not he and not identity:
                return call
            downs = {block.down for block in config.all_blocks}
            dilated = any(isinstance(down, DilatedDown) for down in downs) and "down" in path
            if he and ("around" in path or (dilated and layer.stride == (1, 1))):
                keywords.append(("follows", '"linear"'))
            if he and config.init == "identity" and not identity:
                keywords.append(("identity", False))
        self.used.add("start")
        return Call("start", (call,), tuple(keywords))

    def _plain(self, layer: nn.Module) -> Call:
        name = f"nn.{type(layer).__name__}"
        match layer:
            case nn.BatchNorm2d():
                return Call(name, (Given(layer.num_features, "width"),))
            case nn.GroupNorm():
                return Call(name, (Given(layer.num_groups, "groups"), Given(layer.num_channels, "width")))
            case nn.Linear():
                return Call(name, (Given(layer.in_features, "features"), Given(layer.out_features, "units")))
            case nn.ReLU() | nn.LeakyReLU():
                return Call(name, (), (("inplace", True),))
            case nn.GELU() | nn.SiLU() | nn.Flatten() | nn.Identity():
                return Call(name)
            case nn.MaxPool2d() if layer.padding:
                return Call(name, (layer.kernel_size, layer.stride), (("padding", layer.padding),))
            case nn.MaxPool2d() | nn.AvgPool2d():
                return Call(name, (layer.kernel_size,))
            case nn.AdaptiveAvgPool2d() | nn.AdaptiveMaxPool2d():
                return Call(name, (1,))
            case nn.Dropout() | nn.Dropout2d():
                return Call(name, ("DROPOUT",))
            case nn.ZeroPad2d():
                return Call(name, (layer.padding[0],))
        if type(layer).__name__ == "SqueezeExcitation":
            self.used.add("Squeeze")
            narrow: Any = layer.fc1
            return Call("Squeeze", (Given(narrow.in_channels, "width"), Given(narrow.out_channels, "units")))
        raise BadInput(f"model: {type(layer).__name__} has no plain form here, so this network cannot be ejected")


def _sizes(layer: nn.Conv2d) -> tuple[Given, Given]:
    return Given(layer.in_channels, "channels"), Given(layer.out_channels, "width")


def _convolution(layer: Any) -> Call:
    keywords: list[tuple[str, Any]] = []
    for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1)):
        if (value := getattr(layer, name)[0]) != usual:
            keywords.append((name, value))
    if layer.groups > 1:
        keywords.append(("groups", Given(layer.groups, "channels")))
    if layer.bias is None:
        keywords.append(("bias", False))
    return Call("nn.Conv2d", (*_sizes(layer), layer.kernel_size[0]), tuple(keywords))


# ---------------------------------------------------------------- what is alike becomes a function


def _share(stages: list[Any], names: Sequence[str], inner: Sequence[tuple[Call, str]]) -> list[str]:
    """Functions for parts that differ in numbers alone; `stages` then call them."""
    functions: list[str] = []
    units = [(call, name) for call, name in inner]
    units += [(call, name) for call, name in zip(stages, names, strict=True) if not _holds(call, units)]
    alike: dict[str, list[tuple[Call, str]]] = {}
    for call, name in units:
        if isinstance(call, Call) and (len(call.arguments) > 1 or "Residual" in str(call)):
            alike.setdefault(shape_of(call), []).append((call, name))
    taken: set[str] = set()
    for group in alike.values():
        if len(group) < 2:
            continue
        base = f"halving_{group[0][1]}" if "Shortcut" in str(group[0][0]) else group[0][1]
        name = base if base not in taken else f"{base}{sum(t.startswith(base) for t in taken) + 1}"
        taken.add(name)
        columns, renamed = _parameters([call for call, _ in group])
        arguments = ", ".join(f"{p}: {type(column[0]).__name__}" for p, column in renamed.items())
        body = render(replace(group[0][0], iter(columns)), 4)
        functions.append(f'def {name}({arguments}) -> nn.Module:\n    """{ABOUT[base]}"""\n    return {body}')
        for number, (call, _) in enumerate(group):
            made = Call(name, tuple(column[number] for column in renamed.values()))
            for place, stage in enumerate(stages):
                stages[place] = _put(stage, call, made)
    return functions


def _holds(stage: Any, units: Sequence[tuple[Call, str]]) -> bool:
    return any(part is call for part in stage.parts for call, _ in units)


def _put(where: Any, old: Call, new: Call) -> Any:
    """The tree with one call, known by its identity, in another's place."""
    if where is old:
        return new
    if not isinstance(where, Call) or not any(part is old for part in where.arguments):
        return where
    return Call(where.name, tuple(new if part is old else part for part in where.arguments), where.keywords)


def _parameters(group: Sequence[Call]) -> tuple[list[Any], dict[str, tuple[Any, ...]]]:
    """What stands in each place of the function, and its parameters with their values in each call."""
    rows = list(zip(*(list(list_values(call)) for call in group), strict=True))
    renamed: dict[str, tuple[Any, ...]] = {}
    places: list[Any] = []
    for row in rows:
        column = tuple(given.value for given in row)
        if len(set(column)) == 1:
            places.append(row[0])
            continue
        known = next((name for name, values in renamed.items() if values == column), None)
        if known is None:
            # The first is what comes in, also where a norm sees it before a convolution does.
            role = row[0].role if renamed else "channels"
            known = role if role not in renamed else f"{role}{sum(n.startswith(role) for n in renamed) + 1}"
            renamed[known] = column
        places.append(known)
    return places, renamed


def _gather(parts: Sequence[Any]) -> Iterator[Any]:
    """What comes three times and more in a row, once; within stages too."""
    number = 0
    while number < len(parts):
        part = parts[number]
        if isinstance(part, Call) and part.name == "nn.Sequential":
            part = Call(part.name, tuple(_gather(part.arguments)), part.keywords)
        alike = number + 1
        while alike < len(parts) and str(parts[alike]) == str(parts[number]):
            alike += 1
        if alike - number > 2:
            yield f"*({part} for _ in range({alike - number}))"
        else:
            yield from [part] * (alike - number)
        number = alike
