"""What a configuration costs: parameters, arithmetic and memory counted without allocating, seconds measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tuner.errors import BadInput, Infeasible, Problem
from tuner.spec.model import AnyModel
from tuner.spec.trial_config import TrialConfig
from tuner.training.dataset import Dataset
from tuner.training.memory import MIB, images_at_once
from tuner.training.networks import ONE_IMAGE, counting_device, make_network, needs_two_images, without_rates
from tuner.training.trainer import Trainer
from tuner.training.transfer import trainable_stages

FIRST_STEPS = 2
SECONDS = 0.7


@dataclass(frozen=True)
class Cost:
    """Of one configuration.

    params: all that the network has, whether they learn or not. multiply_adds: convolutions and linear layers, one
    image forward; training takes about 3x. memory_mb: an estimate of what training needs on its device: weights (twice
    with a moving average), gradients and optimiser state of what learns in fp32, and each layer's output for a whole
    batch, from the first stage that learns on kept for the way back, with its gradient. model_mb: weights and running
    statistics in fp32. In MiB.
    """

    params: int
    multiply_adds: int
    memory_mb: float
    model_mb: float


@dataclass(frozen=True)
class Part:
    """A stage or the head: its parameters, and the numbers that its layers give for one image."""

    params: int
    outputs: int


@dataclass(frozen=True)
class _Model:
    """What is counted once a model. `parts`: stages, then the head with all that is in none of them; `largest`: of
    the layers' outputs; `stored`: numbers that it has."""

    params: int
    multiply_adds: int
    parts: tuple[Part, ...]
    largest: int
    stored: int


# Numbers that an optimiser keeps for each weight that learns, beside the weight and its gradient. Muon: the matrices'
# momentum; the two of AdamW are for its few other weights.
STATE = {"adam": 2, "adamw": 2, "nadam": 2, "sgd": 1, "rmsprop": 2, "adagrad": 1, "muon": 1}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def count(config: TrialConfig, *, classes: int, image_size: int, channels: int, precision: str = "fp32") -> Cost:
    """Parameters and arithmetic, on torch's meta device: milliseconds, once a model. Code of the user's own is run.

    Raises:
        Infeasible: the model cannot be built for these images, or not be trained with a batch of one.
        BadInput: the model asks for something that is not there, or its head alone shall learn and cannot.
    """
    train, shape = config.train, {"classes": classes, "in_channels": channels, "image_size": image_size}
    if train.batch_size == 1 and needs_two_images(config.model, **shape):
        raise Infeasible(ONE_IMAGE)
    # Dropout costs nothing that is counted here: without it the models of a search are few, and each is built once.
    model = _count_model(without_rates(config.model), classes, image_size, channels)
    if (train.unfreeze or train.trainable == "head") and not model.parts[-1].params:
        field = "unfreeze" if train.unfreeze else "trainable"
        rule = f"the head of {config.model.name} has no parameters; leave it out, or give the network stages and a head"
        raise BadInput([Problem(f"train.{field}", 0, 0, rule)])
    learning = model.parts[-1 - trainable_stages(train, len(model.parts) - 1, None) :]
    updated = (1 + STATE[train.optimizer.name]) * sum(part.params for part in learning)
    weights = 4 * (model.params * (2 if train.ema else 1) + updated)
    outputs = max(model.largest, sum(part.outputs for part in learning))
    # Twice: 1.7 to 3.0 times what autograd keeps of eleven networks, ours and torchvision's; gradients need the rest.
    batch = 2 * train.batch_size * outputs * BYTES[precision]
    looked = 2 * images_at_once(image_size, train.batch_size) * model.largest * BYTES[precision]  # in validation
    return Cost(model.params, model.multiply_adds, (weights + max(batch, looked)) / MIB, 4 * model.stored / MIB)


@lru_cache(maxsize=4096)
def _count_model(config: AnyModel, classes: int, image_size: int, channels: int) -> _Model:
    with counting_device(config):
        network: Any = make_network(config, classes=classes, in_channels=channels, image_size=image_size).eval()
        parts = [*network.stages, network.head]
        place = {layer: number for number, part in enumerate(parts) for layer in part.modules()}
        outputs: Counter[int] = Counter()
        largest = 0

        def look(layer: nn.Module, given: object, made: object) -> None:
            nonlocal largest
            if isinstance(made, Tensor) and not isinstance(layer, nn.Identity):
                outputs[place.get(layer, len(parts) - 1)] += made.numel()
                largest = max(largest, made.numel())

        for layer in network.modules():
            if not any(layer.children()):
                layer.register_forward_hook(look)
        # With gradients: without them torch's attention takes a way that is not counted.
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, channels, image_size, image_size))
    params, buffers = (sum(p.numel() for p in numbers) for numbers in (network.parameters(), network.buffers()))
    sizes = [sum(p.numel() for p in part.parameters()) for part in parts]
    counted = tuple(Part(size, outputs[number]) for number, size in enumerate(sizes))
    return _Model(params, counter.get_total_flops() // 2, counted, largest, params + buffers)


def measure_epoch_seconds(config: TrialConfig, dataset: Dataset, *, device: str = "cpu", threads: int = 1) -> float:
    """Seconds that an epoch with validation would take here, from about a second of real training.

    Raises:
        Infeasible: the model cannot be built for these images.
        BadInput: the device cannot compute in the precision.
    """
    batch = min(config.train.batch_size, len(dataset.train))
    steps = len(dataset.train) // batch

    def train(limit: int) -> tuple[float, float]:
        """Seconds a training step and seconds a validated image, over so many steps."""
        part = replace(
            dataset, train=dataset.train[: limit * batch], validation=dataset.validation[: max(1, limit * batch // 4)]
        )
        metrics = Trainer(config, part, device=device, threads=threads).run_epoch()
        training = limit * batch / metrics.images_per_second
        return training / limit, (metrics.epoch_seconds - training) / len(part.validation)

    first, _ = train(min(FIRST_STEPS, steps))  # also pays what the first step of a shape costs once
    step, image = train(max(1, min(steps, int(SECONDS / first))))
    return steps * step + len(dataset.validation) * image
