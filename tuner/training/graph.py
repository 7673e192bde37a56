"""How a step is run: plainly, replayed as one CUDA graph, or with a compiled network; `train.compile` says which.

A step of a small network on a GPU is a few hundred kernels that each take less time than their launch; a CUDA graph
launches them at once. The step itself is `Trainer.learn` in all three ways.

`capture_step` follows torch's notes on CUDA graphs and the source of torch 2.15; it has never run on a GPU. All else is
tested on a CPU, with another function in its place.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tuner.spec.model import UserModel
from tuner.training.per_image import PerImage

if TYPE_CHECKING:
    from tuner.training.trainer import Trainer

Found = tuple[Tensor, Tensor]  # the loss and how right each prediction is (N,)
Captured = tuple[Callable[[], object], Found]  # what replays a step, and the tensors that it then writes to
Capture = Callable[[Callable[[], Found], Sequence[torch.Generator]], Captured]

WARM_UP = 3  # steps, as in torch's notes: libraries choose and allocate in the first ones
FUSED = ("sgd", "adam", "adamw", "adagrad")  # optimisers whose update, counts and all, stays on the device


def capture_step(step: Callable[[], Found], generators: Sequence[torch.Generator]) -> Captured:
    """Runs a step a few times on a stream of its own, then captures it: what replays it, and what a replay writes to.

    A replay draws on from where each of `generators` and the device's own generator are then, and moves them on.
    """
    gc.collect()  # a graph of an earlier trial that died during this capture would spoil it
    stream = torch.cuda.Stream(generators[0].device)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This instance was constructed with capturable")  # it means the warm-up
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream(stream.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # thread_local: threads that read images ahead may allocate page-locked memory meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            found = step()
    return graph.replay, found


class Steps:
    """Runs a trainer's steps in the way that `train.compile` asks for, or plainly, and says why in `Trainer.notes`.

    A way is tried on the first batch, and again when other parts of the network learn or a state was loaded. Then
    model, optimiser, scaler and generators are set back, so that falling back gives the curve of `compile: off`.

    way: off, graph or inductor. capture: None for the device's own. compiler: a network to one that computes the same.
    """

    def __init__(
        self, trainer: Trainer, capture: Capture | None = None, compiler: Callable[[nn.Module], Any] = torch.compile
    ) -> None:
        self.trainer: Trainer = weakref.proxy(trainer)  # a trial's memory is free when its trainer is let go
        self.capture = capture_step if capture is None and trainer.device.type == "cuda" else capture
        self.compiler = compiler
        self.network: Any = trainer.model
        self._layers, self._parameters = list(trainer.model.modules()), list(trainer.model.parameters())
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._captured: Captured | None = None
        self._tried: Hashable = None
        self._groups: object = None
        wanted = trainer.config.train.compile
        self.way = wanted if wanted != "auto" else "graph" if self.capture else "off"
        if why := find_obstacle(trainer, self.way, can_capture=self.capture is not None):
            self._fall_back(why)

    def __call__(self, index: Tensor, pixels: Tensor, lr: float, *, update: bool, window: int) -> Found:
        """One step at this rate; what it takes and returns: as `Trainer.step`."""
        if self.way != "off" and self._conditions(index) != self._tried:
            self._try(index, pixels)
            self._groups = self.trainer.optimizer.param_groups
            self._tried = self._conditions(index)
        set_rate(self.trainer.optimizer, lr)
        if self._captured is None or self._inputs is None:
            return self.trainer.learn(self.network, index, pixels, update=update, window=window)
        for place, value in zip(self._inputs, (index, pixels), strict=True):
            place.copy_(value)
        replay, (loss, hit) = self._captured
        replay()
        return loss.clone(), hit.clone()  # the next replay writes to the same memory

    def _conditions(self, index: Tensor) -> Hashable:
        """What a captured step depends on beside its inputs."""
        return (
            index.shape,
            tuple(layer.training for layer in self._layers),
            tuple(parameter.requires_grad for parameter in self._parameters),
            self.trainer.optimizer.param_groups is self._groups,  # others after a state was loaded
        )

    def _try(self, index: Tensor, pixels: Tensor) -> None:
        trainer, before = self.trainer, None
        self._captured = None  # its memory is free for the next one
        try:
            before = Snapshot(trainer)
            if self.way == "graph" and self.capture:
                self._inputs = inputs = index.clone(), pixels.clone()
                place_rates(trainer.optimizer, on_device=True)
                self._captured = self.capture(
                    lambda: trainer.learn(trainer.model, *inputs, update=True, window=1),
                    [trainer.generators[name] for name in ("augment", "mix")],
                )
            else:
                self.network = self.compiler(trainer.model)
                trainer.learn(self.network, index, pixels, update=True, window=1)
            before.rewind()
        except Exception as error:  # whatever torch or a user's network raises; run plainly, a wrong step raises again
            if before:
                before.put_back()
            cause = error.__context__ or error  # leaving a capture that broke raises another error
            self._fall_back(f"{self.way} failed ({type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]})")

    def _fall_back(self, why: str) -> None:
        self.trainer.notes.append(f"train.compile: {why}; steps run as with off")
        self.way, self.network, self._captured = "off", self.trainer.model, None


def find_obstacle(trainer: Trainer, way: str, *, can_capture: bool) -> str:
    """Why steps cannot run in this way, or would not be the same; empty if they can, as far as is known untried."""
    train = trainer.config.train
    own = train.compile == "auto" and isinstance(trainer.config.model, UserModel)
    known = {
        "inductor": {"features are computed once, no network is left to compile": trainer.features is not None},
        "graph": {
            f"a step is captured on a GPU, not on {trainer.device.type}": not can_capture,
            f"with accumulate ({train.accumulate}) steps differ, and a graph repeats one": train.accumulate > 1,
            "a transform of data.augment works on the CPU, image by image": any(
                isinstance(step, PerImage) for step in trainer.augment.steps
            ),
            "an alternating flip goes by the epoch's number, which a graph would keep": trainer.augment.alternates,
            f"{train.optimizer.name} keeps numbers outside of the GPU; {', '.join(FUSED)} do not": (
                train.optimizer.name not in FUSED
            ),
            "the Python code of your network would run once and not in each step (if it may, say graph)": own,
        },
    }
    return next((why for why, holds in known.get(way, {}).items() if holds), "")


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives each group its rate, in the memory that a captured step reads where there is one."""
    for group in optimizer.param_groups:
        rate = lr * group["factor"]
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate


def place_rates(optimizer: torch.optim.Optimizer, *, on_device: bool) -> None:
    """Rates as tensors on the device, where a captured step reads them, or as plain numbers."""
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group["lr"] = torch.tensor(float(group["lr"]), device=device) if on_device else float(group["lr"])
        if "capturable" in group:  # Adam and AdamW refuse a capture without, although a fused update is the same
            group["capturable"] = on_device


class Snapshot:
    """A copy of all that `Trainer.learn` changes."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        values = [value.detach() for value in (*trainer.model.parameters(), *trainer.model.buffers())]
        self.values = [(value, value.clone()) for value in values]
        state = trainer.optimizer.state
        self.state = {p: {name: value.clone() for name, value in each.items()} for p, each in state.items()}
        self.scaler = trainer.scaler.state_dict()
        # Dropout draws from the device's own, which an epoch lends the state of the trainer's.
        own = torch.cuda.default_generators[trainer.device.index or 0] if trainer.device.type == "cuda" else None
        generators = [*trainer.generators.values(), own or torch.default_generator]
        self.generators = [(generator, generator.get_state()) for generator in generators]

    def put_back(self) -> None:
        """Everything as it was."""
        state = self.trainer.optimizer.state
        state.clear()
        state.update(self.state)
        place_rates(self.trainer.optimizer, on_device=False)
        enabled = self.trainer.scaler.is_enabled()  # a new one, as this may be in the middle of a step
        self.trainer.scaler = torch.GradScaler(self.trainer.device.type, enabled=enabled)
        self._put_back_values()

    def rewind(self) -> None:
        """Everything as it was, in the same memory; the state that an optimiser has made since is as if just made."""
        for parameter, each in self.trainer.optimizer.state.items():
            old = self.state.get(parameter, {})
            for name, value in each.items():
                value.copy_(old[name]) if name in old else value.zero_()
        self._put_back_values()

    def _put_back_values(self) -> None:
        for value, old in self.values:
            value.copy_(old)
        self.trainer.model.zero_grad()
        self.trainer.scaler.load_state_dict(self.scaler)
        for generator, state in self.generators:
            generator.set_state(state)
