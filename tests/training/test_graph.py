"""Captured steps without a GPU: `record` keeps the operations of a step and repeats them, and no Python, as a graph."""

import gc
import weakref
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tuner.spec.model import UserModel
from tuner.spec.trial_config import TrialConfig
from tuner.training import graph
from tuner.training.dataset import Dataset
from tuner.training.graph import FUSED, Captured, Found, Steps
from tuner.training.trainer import Trainer

Configure = Callable[..., TrialConfig]
MakeImages = Callable[..., Dataset]

# All that draws, remembers or changes from step to step.
RESTLESS: dict[str, Any] = {
    "model": {"depth": 2, "dropout": 0.2},
    "augment": {
        "HorizontalFlip": {},
        "RandomCrop": {"padding": 1},
        "Affine": {"rotate": [-9, 9]},
        "Erasing": {},
        "ColorJitter": {"brightness": [0.8, 1.2], "contrast": [0.8, 1.2], "saturation": [1, 1], "hue": [0, 0]},
    },
}
TRAIN: dict[str, Any] = {
    "compile": "graph",
    "schedule": {"name": "onecycle"},
    "mixup": 0.4,
    "cutmix": 1.0,
    "mix_p": 0.7,
    "clip_norm": 0.1,
    "ema": 0.9,
    "label_smoothing": 0.1,
}
# Results that Python looks at, and constants that come from the CPU: both wait for a GPU.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "lift_fresh")


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations with their arguments and results; one that waits for a GPU fails, as in a capture."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs and keeps one."""
        if func.name().removeprefix("aten::").partition(".")[0] in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        """Runs all again on the same tensors, and writes what they return to the same memory."""
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(step: Callable[[], Found], generators: Sequence[torch.Generator]) -> Captured:
    """In the place of `capture_step`."""
    step()
    recorder = Recorder()
    with recorder:
        found = step()
    return recorder.replay, found


def breaks(step: Callable[[], Found], generators: Sequence[torch.Generator]) -> Captured:
    """A capture that fails after the warm-up, and then once more, as torch's do."""
    step()
    try:
        record(step, generators)
        raise ValueError("this cannot be captured\nat all")
    finally:
        raise RuntimeError("operation failed due to a previous error")


def start(config: TrialConfig, data: Dataset, capture: graph.Capture | None = record) -> Trainer:
    trainer = Trainer(config, data)
    trainer.notes.clear()
    trainer.run_step = Steps(trainer, capture)
    return trainer


def curve(trainer: Trainer, epochs: int = 3) -> list[list[float]]:
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "clean_train_accuracy")
    return [[metrics[name] for name in names] for metrics in (trainer.run_epoch().as_dict() for _ in range(epochs))]


@pytest.mark.parametrize("name", FUSED)
def test_a_replayed_step_trains_the_same_curve(name: str, configure: Configure, make_images: MakeImages) -> None:
    train = TRAIN | {"optimizer": {"name": name, "lr": 0.01}}
    data = make_images(channels=3)
    replayed = start(configure(**RESTLESS, train=train), data)
    plain = Trainer(configure(**RESTLESS, train=train | {"compile": "off"}), data)
    for ours, theirs in zip(curve(replayed), curve(plain), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)
    assert replayed.run_step.way == "graph" and not replayed.notes


def test_a_step_is_captured_again_only_when_other_parts_learn(configure: Configure, make_images: MakeImages) -> None:
    captures = []

    def count(step: Callable[[], Found], generators: Sequence[torch.Generator]) -> Captured:
        captures.append(trainer.epoch)
        return record(step, generators)

    train = {"compile": "graph", "epochs": 6, "unfreeze": {"every": 2}, "optimizer": {"name": "adam"}}
    model = {"depth": 2, "dropout": 0.2}
    trainer = start(configure(model=model, train=train), make_images(), count)
    off = Trainer(configure(model=model, train=train | {"compile": "off"}), make_images())
    for ours, theirs in zip(curve(trainer, 6), curve(off, 6), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)
    assert captures == [0, 2, 4]


def test_a_resumed_trial_equals_one_that_went_on(configure: Configure, make_images: MakeImages) -> None:
    config, data = configure(**RESTLESS, train=TRAIN | {"optimizer": {"name": "adam"}}), make_images()
    trainer = start(config, data)
    curve(trainer, 1)
    state = trainer.state_dict()
    expected = curve(trainer, 2)
    resumed = start(config, data)
    resumed.load_state_dict(*deepcopy(state))
    assert curve(resumed, 2) == expected
    trainer.load_state_dict(*state)  # into one that has captured a step already
    assert curve(trainer, 2) == expected


def test_images_that_are_read_from_files_are_inputs_of_the_step(configure: Configure, make_images: MakeImages) -> None:
    config = configure(**RESTLESS, train=TRAIN)
    expected, streamed = start(config, make_images()), start(config, make_images())
    streamed.images.stored = None
    assert curve(streamed) == curve(expected)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_capture_that_fails_leaves_the_curve_of_off(
    name: str, scaled: bool, configure: Configure, make_images: MakeImages
) -> None:
    train = TRAIN | {"optimizer": {"name": name}}
    broken = start(configure(**RESTLESS, train=train), make_images(), breaks)
    plain = Trainer(configure(**RESTLESS, train=train | {"compile": "off"}), make_images())
    for trainer in (broken, plain):
        trainer.scaler = torch.GradScaler("cpu", enabled=scaled)
    assert curve(broken) == curve(plain)
    (note,) = broken.notes
    assert note.startswith("train.compile: graph failed (") and note.endswith("); steps run as with off")
    assert broken.run_step.way == "off" and type(broken.optimizer.param_groups[0]["lr"]) is float


def test_a_later_capture_that_fails_leaves_the_optimiser_as_it_was_made(
    configure: Configure, make_images: MakeImages
) -> None:
    train = TRAIN | {"unfreeze": {"every": 1}, "optimizer": {"name": "adamw"}}
    trainer = start(configure(**RESTLESS, train=train), make_images())
    curve(trainer, 1)
    assert isinstance(trainer.optimizer.param_groups[0]["lr"], Tensor)
    state = trainer.state_dict()
    trainer.run_step.capture = breaks
    plain = Trainer(configure(**RESTLESS, train=train | {"compile": "off"}), make_images())
    plain.load_state_dict(*state)
    assert curve(trainer, 2) == curve(plain, 2)
    assert len(trainer.notes) == 1 and isinstance(trainer.optimizer.param_groups[0]["lr"], float)


def test_the_first_cause_is_told_in_one_line(configure: Configure, make_images: MakeImages) -> None:
    trainer = start(configure(train={"compile": "graph"}), make_images(), breaks)
    curve(trainer, 2)
    assert trainer.notes == ["train.compile: graph failed (ValueError: this cannot be captured); steps run as with off"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"train": {"accumulate": 2}}, "with accumulate (2)"),
        ({"train": {"optimizer": {"name": "muon"}}}, "muon keeps numbers outside of the GPU"),
        ({"train": {"optimizer": {"name": "nadam"}}}, "nadam keeps numbers"),
        ({"augment": {"HorizontalFlip": {"alternate": True}}}, "an alternating flip goes by the epoch's number"),
        ({"augment": {"TrivialAugment": {}}}, "a transform of data.augment works on the CPU"),
    ],
)
def test_what_a_graph_would_get_wrong_runs_plainly_and_says_why(
    fields: dict[str, Any], why: str, configure: Configure, make_images: MakeImages
) -> None:
    trainer = start(configure(**fields), make_images(channels=3))
    off = Trainer(
        configure(**fields | {"train": fields.get("train", {}) | {"compile": "off"}}), make_images(channels=3)
    )
    assert curve(trainer, 2) == curve(off, 2)
    (note,) = trainer.notes
    assert note.startswith(f"train.compile: {why}") and note.endswith("; steps run as with off")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_scale_of_fp16_moves_as_without_a_graph(name: str, configure: Configure, make_images: MakeImages) -> None:
    train = {"optimizer": {"name": name}}
    trainer, plain = (Trainer(configure(train=train), make_images()) for _ in range(2))
    for each, capture in ((trainer, record), (plain, None)):
        each.scaler = torch.GradScaler("cpu", init_scale=256.0)
        each.run_step = Steps(each, capture)
    assert curve(trainer)[-1] == pytest.approx(curve(plain)[-1], rel=1e-4)
    assert trainer.run_step.way == "graph" and trainer.scaler.state_dict() == plain.scaler.state_dict()


@pytest.mark.parametrize(("wanted", "way"), [("auto", "off"), ("graph", "graph")])
def test_a_users_network_is_captured_when_asked_for(
    wanted: str, way: str, configure: Configure, make_images: MakeImages
) -> None:
    trainer = Trainer(configure(train={"compile": wanted}), make_images())
    trainer.config = trainer.config.model_copy(update={"model": UserModel(name="my.nets:small")})
    assert Steps(trainer, record).way == way


def test_without_a_gpu_auto_is_off_and_graph_says_so(configure: Configure, make_images: MakeImages) -> None:
    trainers = [Trainer(configure(train={"compile": way}), make_images()) for way in ("off", "auto", "graph")]
    assert [trainer.notes for trainer in trainers[:2]] == [[], []]
    assert trainers[2].notes == ["train.compile: a step is captured on a GPU, not on cpu; steps run as with off"]
    assert curve(trainers[0], 2) == curve(trainers[1], 2) == curve(trainers[2], 2)


def test_inductor_compiles_the_network_that_trains(configure: Configure, make_images: MakeImages) -> None:
    compiled = []

    def compiler(network: nn.Module) -> Any:
        def forward(images: Tensor) -> Any:
            compiled.append(network.training)
            return network(images)

        return forward

    train = TRAIN | {"compile": "inductor", "accumulate": 2}
    trainer = Trainer(configure(**RESTLESS, train=train), make_images())
    trainer.run_step = Steps(trainer, compiler=compiler)
    plain = Trainer(configure(**RESTLESS, train=train | {"compile": "off"}), make_images())
    assert curve(trainer) == curve(plain)
    assert compiled == [True] * (1 + 3 * trainer.steps) and not trainer.notes


def test_a_network_that_does_not_compile_is_run_as_it_is(configure: Configure, make_images: MakeImages) -> None:
    def compiler(network: nn.Module) -> Any:
        def forward(images: Tensor) -> Any:
            network(images)  # draws, and moves statistics
            raise ImportError("no compiler\nwas found")

        return forward

    train = TRAIN | {"compile": "inductor"}
    trainer = Trainer(configure(**RESTLESS, train=train), make_images())
    trainer.run_step = Steps(trainer, compiler=compiler)
    plain = Trainer(configure(**RESTLESS, train=train | {"compile": "off"}), make_images())
    assert curve(trainer) == curve(plain)
    assert trainer.notes == ["train.compile: inductor failed (ImportError: no compiler); steps run as with off"]


def test_a_step_that_is_wrong_by_itself_fails_as_with_off(configure: Configure, make_images: MakeImages) -> None:
    trainer = start(configure(), make_images())
    trainer.labels = trainer.labels + 3
    with pytest.raises(IndexError):
        trainer.run_epoch()


def test_the_memory_of_a_trial_is_free_when_its_trainer_is_let_go(
    configure: Configure, make_images: MakeImages
) -> None:
    gc.disable()
    try:
        trainer = start(configure(**RESTLESS, train=TRAIN), make_images())
        curve(trainer, 1)
        gone = weakref.ref(trainer)
        del trainer
        assert gone() is None
    finally:
        gc.enable()


class Capturing:
    """A stream in the midst of a capture, as torch's optimisers ask for it."""

    def is_capturing(self) -> bool:
        return True


@pytest.mark.parametrize("name", FUSED)
def test_torch_lets_the_update_into_a_capture(
    name: str, configure: Configure, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(step: Callable[[], Found], generators: Sequence[torch.Generator]) -> Captured:
        step()
        with monkeypatch.context() as patch:
            patch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
            patch.setattr(torch.accelerator, "current_stream", lambda *_: Capturing())
            return record(step, generators)

    trainer = start(configure(train={"optimizer": {"name": name}}), make_images(), look)
    curve(trainer, 1)
    assert trainer.run_step.way == "graph" and not trainer.notes
