"""What a configuration costs: parameters, arithmetic and memory counted without allocating, seconds measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from tuner.errors import Infeasible
from tuner.spec.model import Cnn
from tuner.spec.trial_config import TrialConfig
from tuner.training.cnn import MODELS, ONE_IMAGE, needs_two_images
from tuner.training.dataset import Dataset
from tuner.training.memory import MIB
from tuner.training.trainer import Trainer

FIRST_STEPS = 2
SECONDS = 0.7


@dataclass(frozen=True)
class Cost:
    """Of one configuration.

    multiply_adds: convolutions and linear layers, one image forward; training takes about 3x. memory_mb: an estimate of
    what training needs on its device: weights, gradients and optimiser state in fp32, and each layer's output for a
    whole batch, kept for the way back, with its gradient. model_mb: weights and running statistics in fp32. In MiB.
    """

    params: int
    multiply_adds: int
    memory_mb: float
    model_mb: float


@dataclass(frozen=True)
class _Model:
    """What is counted once a model. `outputs`: numbers that all layers give for one image; `stored`: that it has."""

    params: int
    multiply_adds: int
    outputs: int
    stored: int


# Numbers that an optimiser keeps for each weight, beside the weight and its gradient.
STATE = {"adam": 2, "adamw": 2, "sgd": 1, "rmsprop": 2}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def count(config: TrialConfig, *, classes: int, image_size: int, channels: int, precision: str = "fp32") -> Cost:
    """Parameters and arithmetic, on torch's meta device: milliseconds, once a model.

    Raises:
        Infeasible: the model cannot be built for these images, or not be trained with a batch of one.
    """
    if config.train.batch_size == 1 and needs_two_images(config.model, image_size):
        raise Infeasible(ONE_IMAGE)
    # Dropout costs nothing that is counted here: without it the models of a search are few, and each is built once.
    model = _count_model(config.model.model_copy(update={"dropout": 0.0}), classes, image_size, channels)
    weights = 4 * model.params * (2 + STATE[config.train.optimizer.name])
    batch = 2 * config.train.batch_size * model.outputs * BYTES[precision]
    return Cost(model.params, model.multiply_adds, (weights + batch) / MIB, 4 * model.stored / MIB)


@lru_cache(maxsize=4096)
def _count_model(config: Cnn, classes: int, image_size: int, channels: int) -> _Model:
    with torch.device("meta"):
        model = MODELS[config.name](config, classes=classes, in_channels=channels, image_size=image_size).eval()
        outputs: list[int] = []
        for layer in model.modules():
            if not any(layer.children()):
                layer.register_forward_hook(lambda layer, given, made: outputs.append(made.numel()))
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(torch.empty(1, channels, image_size, image_size))
    params, buffers = (sum(part.numel() for part in parts) for parts in (model.parameters(), model.buffers()))
    return _Model(params, counter.get_total_flops() // 2, sum(outputs), params + buffers)


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
