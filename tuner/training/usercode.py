"""Code of the user's own, named by module and function: imported, called and held to what it promised."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from importlib import import_module
from typing import Any

import torch
from torch import nn

from tuner.errors import BadInput, HypertuneError, Problem
from tuner.spec.model import UserModel
from tuner.training.networks import Network

PARTS = ("stages", "head", "features")


def import_function(name: str, field: str = "model.name") -> Callable[..., Any]:
    """The function that `package.module:function` names; `field` is where the space file says so.

    Modules are found as Python finds them: in the directory where the command was started, and in what is installed.

    Raises:
        BadInput: no such module, an error while it is imported, no such function in it.
    """
    path, _, wanted = name.partition(":")
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            where = "it is looked for in the current directory and among the installed packages"
            raise _bad(field, f"there is no module {error.name!r}; {where}") from error
        raise _bad(field, f"importing {path} failed: {_tell(error)}") from error
    except (Exception, SystemExit) as error:  # anything may happen in a user's module
        raise _bad(field, f"importing {path} failed: {_tell(error)}") from error
    function = getattr(module, wanted, None)
    if not callable(function):
        raise _bad(field, f"{path} ({module.__file__}) has no function {wanted!r}")
    return function  # type: ignore[no-any-return]


def build(config: UserModel, *, classes: int, in_channels: int, image_size: int) -> nn.Module:
    """The network that a user's function makes: function(classes=, in_channels=, image_size=, **arguments).

    It returns a torch.nn.Module that turns normalised images (N, in_channels, image_size, image_size) into logits
    (N, classes), for any N, on the device where it lies. For training the head alone, unfreezing and rates a stage it
    may offer all of `stages`, a tuple of modules from the input on, `head`, the last module, and `features`, a method
    that turns images into what the head gets; together stages and head hold each parameter once. Without them the
    whole network is one stage under a head that has no parameters. It may raise tuner.errors.Infeasible for arguments
    that make no network: the search then proposes others.

    Raises:
        Infeasible: the function said so.
        BadInput: no such function, it fails, or it breaks this contract.
    """
    given = {"classes": classes, "in_channels": in_channels, "image_size": image_size}
    made = _call(import_function(config.name), config, given)
    promise = f"{config.name} must return a torch.nn.Module that gives logits of shape (N, {classes})"
    if not isinstance(made, nn.Module):
        raise _bad("model.name", f"{promise}, not {type(made).__name__}")
    own = all(hasattr(made, part) for part in PARTS)
    if own:
        _check_parts(made, config)
    if not any(parameter.requires_grad for parameter in made.parameters()):
        raise _bad("model.name", f"{config.name} has no parameters that learn{_at(config.arguments)}")
    network = made if own else Network({"all": made}, nn.Identity())
    # As in training by a copy, as running statistics would move.
    ways = ((2, network.eval(), ""), (1, network, ""), (2, deepcopy(network).train(), " in training"))
    for number, tried, way in ways:
        images = torch.zeros(number, in_channels, image_size, image_size)
        try:
            with torch.no_grad():
                logits = tried(images)
        except Exception as error:
            what = f"{config.name} fails{way} on images {tuple(images.shape)}{_at(config.arguments)}"
            raise _bad("model.name", f"{what}: {_tell(error)}") from error
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if shape != (len(images), classes):
            raise _bad("model.name", f"{promise}; for N = {len(images)} it gave {shape}{way}{_at(config.arguments)}")
    return network.train()


def _call(function: Callable[..., Any], config: UserModel, given: dict[str, Any]) -> Any:
    taken = inspect.signature(function).parameters.values()
    named = {p.name for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    problems = []
    if not any(p.kind is p.VAR_KEYWORD for p in taken):
        own = ", ".join(sorted(named - set(given))) or "none"
        for name in [name for name in config.arguments if name not in named]:
            rule = f"{config.name} has no argument {name!r}; its own are: {own}"
            problems.append(Problem(f"model.{name}", 0, 0, rule))
        if missing := [name for name in given if name not in named]:
            problems.append(Problem("model.name", 0, 0, f"{config.name} must take {', '.join(missing)} as arguments"))
    needed = {p.name for p in taken if p.default is p.empty and p.name in named} - {*given, *config.arguments}
    problems += [Problem(f"model.{name}", 0, 0, f"missing; {config.name} needs it") for name in sorted(needed)]
    if problems:
        raise BadInput(problems)
    try:
        return function(**given, **config.arguments)
    except HypertuneError:
        raise
    except (Exception, SystemExit) as error:
        rule = f"{config.name} fails{_at(config.arguments)}: {_tell(error)}"
        hint = "where arguments make no network, raise tuner.errors.Infeasible: the search then proposes others"
        raise BadInput([Problem("model.name", 0, 0, rule)], hint) from error


def _check_parts(network: Any, config: UserModel) -> None:
    stages, head = network.stages, network.head
    problems = []
    listed = stages if isinstance(stages, tuple | list | nn.ModuleList | nn.Sequential) else [stages]
    if listed is not stages or not all(isinstance(stage, nn.Module) for stage in listed):
        problems.append(f"stages must be a tuple of modules, not {', '.join({type(s).__name__ for s in listed})}")
    if not isinstance(head, nn.Module):
        problems.append(f"head must be a module, not {type(head).__name__}")
    if not callable(network.features):
        problems.append(f"features must be a method, not {type(network.features).__name__}")
    if problems:
        raise BadInput([Problem("model.name", 0, 0, f"{config.name}: {problem}") for problem in problems])
    held = Counter(id(parameter) for part in (*stages, head) for parameter in part.parameters())
    wrong = [name for name, parameter in network.named_parameters() if held[id(parameter)] != 1]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        rule = "stages and head must hold each parameter exactly once; they do not for"
        raise _bad("model.name", f"{config.name}: {rule} {', '.join(wrong[:3])}{more}")


def _bad(field: str, message: str) -> BadInput:
    return BadInput([Problem(field, 0, 0, message)])


def _tell(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _at(arguments: Mapping[str, Any]) -> str:
    return " with " + ", ".join(f"{name}={value!r}" for name, value in arguments.items()) if arguments else ""
