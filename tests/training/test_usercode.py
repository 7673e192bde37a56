import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tuner.errors import BadInput, Infeasible
from tuner.spec.model import UserModel
from tuner.training.networks import Network
from tuner.training.usercode import build, import_function

CODE = """
import torch
from torch import nn
from tuner.errors import Infeasible

def small(classes, in_channels, image_size, *, width, gain=1.0):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, width), nn.Linear(width, classes))

def anything(**arguments):
    anything.got = arguments
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, arguments["classes"]))

def without_size(classes, in_channels): ...
def nothing(classes, in_channels, image_size): return 3
def raising(classes, in_channels, image_size, width=1): raise ValueError("width must be even")
def refusing(classes, in_channels, image_size): raise Infeasible("no pixel left")
def unflattened(classes, in_channels, image_size): return nn.Conv2d(in_channels, classes, 1)
def mismatched(classes, in_channels, image_size): return nn.Sequential(nn.Flatten(), nn.Linear(7, classes))

class Squeezing(nn.Linear):
    def __init__(self, classes, in_channels, image_size):
        super().__init__(in_channels, classes)
    def forward(self, images):
        return super().forward(images.mean((2, 3))).squeeze()

class Torn(nn.Sequential):
    def __init__(self, classes, in_channels, image_size):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, 4), nn.Linear(4, classes))
        self.stages, self.head = (), self[2]
    def features(self, images):
        return self[1](self[0](images))

class Slotted(nn.Linear):
    head, features = 3, 5
    def __init__(self, classes, in_channels, image_size):
        super().__init__(in_channels, classes)
    def stages(self):
        return (self,)

class Twofold(nn.Linear):
    def __init__(self, classes, in_channels, image_size):
        super().__init__(in_channels, classes)
    def forward(self, images):
        logits = super().forward(images.mean((2, 3)))
        return (logits, logits) if self.training else logits

def frozen(**arguments): return small(**arguments, width=4).requires_grad_(False)
def leaving(classes, in_channels, image_size): raise SystemExit(3)

five = 5
"""


@pytest.fixture(autouse=True)
def code_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the user's own: code_of_a_user.nets and others that cannot be imported."""
    (tmp_path / "code_of_a_user").mkdir()
    (tmp_path / "code_of_a_user/__init__.py").write_text("")
    (tmp_path / "code_of_a_user/nets.py").write_text(CODE)
    (tmp_path / "code_of_a_user/broken.py").write_text("def f(:")
    (tmp_path / "code_of_a_user/needing.py").write_text("import a_package_that_is_missing")
    monkeypatch.syspath_prepend(tmp_path)


def make(function: str, **arguments: Any) -> nn.Module:
    name = function if ":" in function else f"code_of_a_user.nets:{function}"
    config = UserModel.model_validate({"name": name, **arguments})
    return build(config, classes=5, in_channels=3, image_size=8)


def test_a_users_function_gets_classes_images_and_its_own_arguments() -> None:
    network = make("small", width=6)
    assert sum(p.numel() for p in network.parameters()) == (192 * 6 + 6) + (6 * 5 + 5)
    assert network.training
    make("anything", depth=2, name_of="x")
    got = import_function("code_of_a_user.nets:anything").got  # type: ignore[attr-defined]
    assert got == {"classes": 5, "in_channels": 3, "image_size": 8, "depth": 2, "name_of": "x"}


def test_a_network_without_stages_is_one_stage_under_an_empty_head() -> None:
    network, images = make("small", width=6), torch.rand(2, 3, 8, 8)
    assert isinstance(network, Network)
    assert len(network.stages) == 1
    assert list(network.head.parameters()) == []
    assert torch.equal(network.features(images), network(images))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("code_of_nobody:f", {}, "model.name: there is no module 'code_of_nobody'; it is looked for in the current"),
        ("code_of_a_user.nowhere:f", {}, "model.name: there is no module 'code_of_a_user.nowhere'"),
        ("code_of_a_user.broken:f", {}, "model.name: importing code_of_a_user.broken failed: SyntaxError"),
        ("code_of_a_user.needing:f", {}, "code_of_a_user.needing failed: ModuleNotFoundError: .*a_package_that_is_m"),
        ("code_of_a_user.nets:big", {}, r"model.name: code_of_a_user.nets \(.*nets.py\) has no function 'big'"),
        ("code_of_a_user.nets:five", {}, "has no function 'five'"),
        ("small", {"widht": 3}, "model.widht: .*:small has no argument 'widht'; its own are: gain, width"),
        ("small", {}, "model.width: missing; code_of_a_user.nets:small needs it"),
        ("without_size", {}, "model.name: .*:without_size must take image_size as arguments"),
        ("nothing", {}, r"nothing must return a torch.nn.Module that gives logits of shape \(N, 5\), not int"),
        (
            "raising",
            {"width": 3},
            "raising fails with width=3: ValueError: width must be even\n.*raise tuner.errors.Infeasible",
        ),
        ("unflattened", {}, r"logits of shape \(N, 5\); for N = 2 it gave \(2, 5, 8, 8\)"),
        ("Squeezing", {}, r"for N = 1 it gave \(5,\)"),
        ("mismatched", {}, r"mismatched fails on images \(2, 3, 8, 8\): RuntimeError: .*mat1 and mat2"),
        (
            "Slotted",
            {},
            "stages must be a tuple of modules, not method\n.*head must be a module, not int\n.*features must be a m",
        ),
        ("Twofold", {}, "for N = 2 it gave tuple in training$"),
        ("frozen", {}, "frozen has no parameters that learn$"),
        ("leaving", {}, "leaving fails: SystemExit: 3"),
        ("Torn", {}, "stages and head must hold each parameter exactly once; they do not for 1.weight, 1.bias$"),
    ],
)
def test_code_that_cannot_be_used_says_what_is_wrong_with_it(
    function: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        make(function, **arguments)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_all_wrong_arguments_are_said_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        make("small", a=1, b=2)
    assert [problem.source for problem in caught.value.problems] == ["model.a", "model.b", "model.width"]


def test_a_function_may_call_its_arguments_infeasible() -> None:
    with pytest.raises(Infeasible, match="no pixel left"):
        make("refusing")


def test_the_place_of_a_function_that_makes_no_network_is_named() -> None:
    with pytest.raises(BadInput, match=r"^data\.dataset: there is no module"):
        import_function("code_of_nobody:f", "data.dataset")
