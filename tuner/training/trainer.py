"""Trainer: one configuration, trained an epoch at a time. The whole step loop is `run_epoch`."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.dlpack import from_dlpack

from tuner.errors import BadInput, Infeasible
from tuner.spec.trial_config import TrialConfig
from tuner.training import memory
from tuner.training.augment import Images, augment
from tuner.training.cnn import MODELS, ONE_IMAGE, needs_two_images
from tuner.training.dataset import Dataset
from tuner.training.metrics import EpochMetrics, compute_macro_f1, count_confusion
from tuner.training.optimizers import OPTIMIZERS
from tuner.training.precision import DTYPES, resolve_precision
from tuner.training.schedules import rate

# Looking at a loss makes a GPU wait, so a trial that diverged is noticed within so many steps, not at once.
STEPS_BETWEEN_CHECKS = 50
VALIDATION_BATCH = 256


class Trainer:
    """Trains `config` on `dataset`; equal configurations give bitwise equal curves on one CPU thread.

    Order, augmentation and dropout each have their own generator, all seeds come from `config.seed`, and nothing that
    another trial did in this process before matters. An epoch is a permutation of the training images cut into full
    batches: the incomplete last one is left out (other images in each epoch), unless it is the only one.

    Raises:
        Infeasible: the model cannot be built for these images, or batch normalisation would see one value.
        BadInput: the device cannot compute in this precision.
    """

    def __init__(self, config: TrialConfig, dataset: Dataset, *, device: str = "cpu", threads: int = 1) -> None:
        self.config = config
        self.device = torch.device(device)
        self.threads = threads
        self.precision = resolve_precision(config.train.precision, self.device)
        self.dtype = DTYPES[self.precision]
        self.classes = len(dataset.classes)
        self.epoch = 0
        self.batch_size = min(config.train.batch_size, len(dataset.train))
        self.steps = len(dataset.train) // self.batch_size
        if self.batch_size == 1 and needs_two_images(config.model, dataset.image_size):
            raise Infeasible(ONE_IMAGE)

        weights, *seeds = (int(seed) for seed in np.random.SeedSequence(config.seed).generate_state(4))
        with _lend_global(torch.Generator().manual_seed(weights)):  # on the CPU: the same weights for every device
            model = MODELS[config.model.name](
                config.model, classes=self.classes, in_channels=dataset.channels, image_size=dataset.image_size
            )
        self.generators = {
            "order": torch.Generator().manual_seed(seeds[0]),
            "augment": torch.Generator(self.device).manual_seed(seeds[1]),
            "dropout": torch.Generator(self.device).manual_seed(seeds[2]),
        }
        # channels_last: 1.3 to 1.8 times the images/s on a CPU, and bf16 is fast only with it.
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.params = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.optimizer = OPTIMIZERS[config.train.optimizer.name](config.train.optimizer, self.model.parameters())
        self.scaler = torch.GradScaler(self.device.type, enabled=self.precision == "fp16")

        self.images = Images(dataset, self.device, self.dtype)
        self.labels = from_dlpack(dataset.labels).to(self.device)
        self.train_index = from_dlpack(dataset.train).to(self.device)
        self.validation_index = from_dlpack(dataset.validation).to(self.device)

    def run_epoch(self) -> EpochMetrics:
        """Trains one epoch and validates; a loss that is no number ends the epoch early with NaN metrics."""
        torch.set_num_threads(self.threads)
        memory.reset_peak(self.device)
        train, optimizer, scaler = self.config.train, self.optimizer, self.scaler
        losses, predictions, lr = [], [], math.nan
        start = time.perf_counter()
        order = torch.randperm(len(self.train_index), generator=self.generators["order"]).to(self.device)
        order = self.train_index[order[: self.steps * self.batch_size]]

        self.model.train()
        with _lend_global(self.generators["dropout"]):
            for step, index in enumerate(order.view(self.steps, self.batch_size)):
                lr = rate(train.schedule, train.optimizer.lr, self.epoch * self.steps + step, train.epochs * self.steps)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                images = augment(self.images.batch(index), self.config.data.augment, self.generators["augment"])
                with self._autocast():
                    logits = self.model(images)
                loss = F.cross_entropy(logits.float(), self.labels[index])
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                # Kept on the device and read after the epoch: no step waits for a number.
                losses.append(loss.detach())
                predictions.append(logits.detach().argmax(1))
                if step % STEPS_BETWEEN_CHECKS == 0 and not loss.isfinite():
                    break

        hits = torch.cat(predictions) == self.labels[order[: len(losses) * self.batch_size]]
        train_loss, train_accuracy = float(torch.stack(losses).double().mean()), float(hits.double().mean())
        train_seconds = time.perf_counter() - start
        diverged = not math.isfinite(train_loss)
        val_loss, val_accuracy, val_macro_f1 = (math.nan, math.nan, math.nan) if diverged else self.validate()
        self.epoch += 1
        return EpochMetrics(
            epoch=self.epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            val_macro_f1=val_macro_f1,
            accuracy_gap=train_accuracy - val_accuracy,
            lr=lr,
            epoch_seconds=time.perf_counter() - start,
            images_per_second=len(hits) / train_seconds,
            peak_memory_mb=memory.read_peak_mb(self.device),
            params=self.params,
        )

    def validate(self) -> tuple[float, float, float]:
        """Loss, accuracy and macro F1 on the whole validation split, in the precision that trains."""
        self.model.eval()
        losses, predictions = [], []
        with torch.inference_mode():
            for index in self.validation_index.chunk(math.ceil(len(self.validation_index) / VALIDATION_BATCH)):
                with self._autocast():
                    logits = self.model(self.images.batch(index))
                losses.append(F.cross_entropy(logits.float(), self.labels[index], reduction="none"))
                predictions.append(logits.argmax(1))
            confusion = count_confusion(self.labels[self.validation_index], torch.cat(predictions), self.classes)
            accuracy = int(confusion.diagonal().sum()) / len(self.validation_index)
            return float(torch.cat(losses).double().mean()), accuracy, compute_macro_f1(confusion)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A copy of all that goes on changing: flat tensors on the CPU, and the rest as plain JSON values."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": v for name, v in values.items() if isinstance(v, Tensor)}
        tensors |= {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        copies = {
            name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        return copies, {
            "epoch": self.epoch,
            "optimizer": self.config.train.optimizer.name,
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken, with this trainer's own rates, batch size and augmentation.

        Raises:
            BadInput: the tensors are not those of this configuration.
        """
        model, optimizer, generators = (_select(tensors, part) for part in ("model", "optimizer", "generator"))
        own = self.model.state_dict()
        model = _renumber(model, own)
        expected = {name: value.shape for name, value in own.items()}
        if expected != {name: value.shape for name, value in model.items()} or set(generators) != set(self.generators):
            raise BadInput("these weights belong to another model; resume with the configuration that wrote them")
        kind = self.config.train.optimizer.name
        if state["optimizer"] != kind:
            raise BadInput(f"these weights were trained with {state['optimizer']}, this configuration says {kind}")
        self.model.load_state_dict(model)
        parameters = list(self.model.parameters())
        values: dict[int, dict[str, Tensor]] = {}
        for name, value in optimizer.items():
            number, key = name.split(".", 1)
            parameter = parameters[int(number)]
            # The fused update walks parameter and state side by side, so both must lie in memory the same way.
            same = value.shape == parameter.shape
            values.setdefault(int(number), {})[key] = torch.empty_like(parameter).copy_(value) if same else value
        if getattr(self.config.train.optimizer, "momentum", 0):
            for position, each in values.items():  # RMSprop would look for one that a rate of 0 never made
                each.setdefault("momentum_buffer", torch.zeros_like(parameters[position]))
        self.optimizer.load_state_dict({"state": values, "param_groups": self.optimizer.state_dict()["param_groups"]})
        for name, value in generators.items():
            self.generators[name].set_state(value)
        self.scaler.load_state_dict(dict(state["scaler"]))
        self.epoch = state["epoch"]

    def measure_latency_ms(self) -> float:
        """Milliseconds that one image takes on this device: the median of 30 forward passes, 5 before to warm up.

        Batch normalisation and dropout as in use, in the precision that trains; nothing that trains is touched.
        """
        torch.set_num_threads(self.threads)
        self.model.eval()
        image, taken = self.images.batch(self.validation_index[:1]), []
        with torch.inference_mode():
            for _ in range(5 + 30):
                start = time.perf_counter()
                with self._autocast():
                    self.model(image)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                taken.append(time.perf_counter() - start)
        return 1000 * statistics.median(taken[5:])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.precision != "fp32")


def _renumber(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `like`: a layer of dropout holds none, but with it others have higher numbers."""

    def layers(names: Iterable[str]) -> list[int]:
        return sorted({int(number) for number in (name.split(".", 1)[0] for name in names) if number.isdigit()})

    numbers = dict(zip(map(str, layers(tensors)), map(str, layers(like)), strict=False))
    split = {name: name.partition(".") for name in tensors}
    return {"".join((numbers.get(a, a), dot, b)): tensors[name] for name, (a, dot, b) in split.items()}


def _select(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


@contextmanager
def _lend_global(generator: torch.Generator) -> Iterator[None]:
    """Initialisation and dropout draw from the device's global generator: gives it this one's state meanwhile."""
    shared = torch.default_generator
    if generator.device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        shared = torch.cuda.default_generators[generator.device.index or 0]
    before = shared.get_state()
    shared.set_state(generator.get_state())
    try:
        yield
        generator.set_state(shared.get_state())
    finally:
        shared.set_state(before)
