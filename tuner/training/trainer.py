"""Trainer: one configuration, trained an epoch at a time. The whole step loop is `run_epoch`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from tuner.errors import BadInput, Infeasible
from tuner.spec.trial_config import TrialConfig
from tuner.training import memory, transfer, weights
from tuner.training.augment import Augmenter
from tuner.training.cnn import Whitened
from tuner.training.dataset import Dataset
from tuner.training.doubts import doubts
from tuner.training.ema import Ema
from tuner.training.graph import Steps
from tuner.training.images import Images
from tuner.training.losses import balanced_order, balanced_weights, hits, mixed_loss
from tuner.training.metrics import EpochMetrics, Scores, evaluate
from tuner.training.mix import mix
from tuner.training.networks import ONE_IMAGE, make_network, needs_two_images
from tuner.training.optimizers import make_optimizer
from tuner.training.precision import DTYPES, resolve_precision
from tuner.training.schedules import PlateauState, rate
from tuner.training.stopping import StoppingState, hear

# Looking at a loss makes a GPU wait, so a trial that diverged is noticed there at the end of its epoch; on a CPU within
# so many steps.
STEPS_BETWEEN_CHECKS = 50
PREPARED_PIXELS = 2**22  # a whitening layer is fitted to; 4,096 images of 32 x 32
CLEAN_SHARE, CLEAN_LEAST, CLEAN_MOST = 1 / 16, 256, 1000
"""Training images that are looked at without augmentation after each epoch: about 2% of its time."""


class Objective(NamedTuple):
    """The metric that early stopping goes by; sign: +1 where larger is better, -1 where smaller is."""

    metric: str
    sign: int


ACCURACY = Objective("val_accuracy", 1)


class Trainer:
    """Trains `config` on `dataset`; equal configurations give bitwise equal curves on one CPU thread.

    Order, augmentation, mixing and dropout each have their own generator, all seeds come from `config.seed`, and
    nothing that another trial did in this process before matters. An epoch is a permutation of the training images cut
    into full batches: the incomplete last one is left out (other images in each epoch), unless it is the only one.

    ends: why the trial is over by its own rules (`train.early_stopping`), empty while it is not. notes: what was found
    when weights were loaded, in sentences.

    Raises:
        Infeasible: the model cannot be built for these images, or batch normalisation would see one value.
        BadInput: the device cannot compute in this precision; weights that do not fit.
    """

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        *,
        device: str = "cpu",
        threads: int = 1,
        objective: Objective = ACCURACY,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.threads = threads
        self.objective = objective
        train = config.train
        self.precision = resolve_precision(train.precision, self.device)
        self.dtype = DTYPES[self.precision]
        self.classes = len(dataset.classes)
        self.epoch = 0
        self.batch_size = min(train.batch_size, len(dataset.train))
        self.steps = len(dataset.train) // self.batch_size
        shape = {"classes": self.classes, "in_channels": dataset.channels, "image_size": dataset.image_size}
        if self.batch_size == 1 and needs_two_images(config.model, **shape):
            raise Infeasible(ONE_IMAGE)

        first, *seeds = (int(seed) for seed in np.random.SeedSequence(config.seed).generate_state(5))
        with _lend_global(torch.Generator().manual_seed(first)):  # on the CPU: the same weights for every device
            model = make_network(config.model, **shape)
        self.notes = [*weights.load_into(model, config.model), *doubts(config)]
        self.generators = {
            "order": torch.Generator().manual_seed(seeds[0]),
            "augment": torch.Generator(self.device).manual_seed(seeds[1]),
            "dropout": torch.Generator(self.device).manual_seed(seeds[2]),
            "mix": torch.Generator(self.device).manual_seed(seeds[3]),
        }
        # channels_last: 1.3 to 1.8 times the images/s on a CPU, and bf16 is fast only with it.
        self.model: nn.Module = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.params = sum(p.numel() for p in self.model.parameters())
        self.optimizer = make_optimizer(train, self.model)
        self.learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scaler = torch.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.ema = Ema(self.model, train.ema) if train.ema else None
        self.plateau = PlateauState()
        self.stopping = StoppingState()

        mean, std = weights.preprocessing(config, dataset.channels) or (None, None)
        self.images = Images(dataset, self.device, self.dtype, mean=mean, std=std)
        self.augment = Augmenter(config.data.augment, self.images)
        self.features = (  # of a body that never learns, in the place of the images
            transfer.features_once(
                self.model, config, dataset, self.images.batch, precision=self.precision, device=self.device
            )
            if transfer.can_cache(config)
            else None
        )
        self.labels = from_dlpack(dataset.labels).to(self.device)
        self.train_index = from_dlpack(dataset.train).to(self.device)
        self.validation_index = from_dlpack(dataset.validation).to(self.device)
        clean = int(min(max(len(dataset.train) * CLEAN_SHARE, CLEAN_LEAST), CLEAN_MOST, len(dataset.train)))
        self.clean_index = self.train_index[:: len(dataset.train) // clean][:clean]
        # Of classes as they are drawn: balanced sampling leaves nothing to weigh.
        balanced = train.class_weights == "balanced" and train.sampling != "balanced"
        self.class_weights = balanced_weights(self.labels[self.train_index], self.classes) if balanced else None
        if isinstance(self.model, Whitened):
            few = min(len(self.train_index), max(1, PREPARED_PIXELS // dataset.image_size**2))
            spread = self.train_index[:: len(self.train_index) // few][:few]  # they may lie class by class
            self.model.prepare(self.images.batch(spread).float())
        self.run_step = Steps(self)

    @property
    def ends(self) -> str:
        """Why the trial is over by its own rules; empty while it is not."""
        return self.stopping.reason

    def run_epoch(self) -> EpochMetrics:
        """Trains one epoch and validates; a loss that is no number ends the epoch early with NaN metrics."""
        torch.set_num_threads(self.threads)
        memory.reset_peak(self.device)
        train = self.config.train
        losses, right, lr = [], [], math.nan
        start = time.perf_counter()
        order = self.order()

        self.model.train()
        transfer.apply(self.model, train, self.epoch, self.learning)
        with _lend_global(self.generators["dropout"]):
            for step, (index, pixels) in enumerate(self.batches(order)):
                done = self.epoch * self.steps + step
                lr = rate(
                    train.schedule, train.optimizer.lr, done, train.epochs * self.steps, self.steps, self.plateau.factor
                )
                update = (step + 1) % train.accumulate == 0 or step + 1 == self.steps
                window = min(train.accumulate, self.steps - step // train.accumulate * train.accumulate)
                loss, hit = self.step(index, pixels, lr, update=update, window=window)
                # Kept on the device and read after the epoch: no step waits for a number.
                losses.append(loss)
                right.append(hit)
                if self.device.type == "cpu" and step % STEPS_BETWEEN_CHECKS == 0 and not loss.isfinite():
                    break

        train_loss = float(torch.stack(losses).double().mean())
        seen = len(losses) * self.batch_size
        train_accuracy = float(torch.stack(right).double().sum()) / seen
        train_seconds = time.perf_counter() - start
        diverged = not math.isfinite(train_loss)
        scores, raw, clean = (None, None, math.nan) if diverged else self._look()
        self.epoch += 1
        metrics = EpochMetrics.of(
            scores,
            raw=raw,
            epoch=self.epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            clean_train_accuracy=clean,
            lr=lr,
            epoch_seconds=time.perf_counter() - start,
            images_per_second=seen / train_seconds,
            peak_memory_mb=memory.read_peak_mb(self.device),
            params=self.params,
        )
        if not diverged:
            self._hear(metrics)
        return metrics

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices and pixels of each batch of an order (steps, batch), as `step` takes them."""
        if self.features is not None or self.images.stored is not None:
            return ((index, index) for index in order)  # `learn` looks them up by itself
        return zip(order, self.images.batches(order), strict=True)

    def step(
        self, index: Tensor, pixels: Tensor, lr: float, *, update: bool = True, window: int = 1
    ) -> tuple[Tensor, Tensor]:
        """One batch forward and back, and with `update` a step of the optimiser at this rate.

        index (N,) says which images they are, pixels are theirs, uint8 (N, S, S, C), if they are read from files.
        window: batches whose gradients an update sums up. Returns the loss and how right each prediction is (N,), both
        on the device.
        """
        found = self.run_step(index, pixels, lr, update=update, window=window)
        if update and self.ema:  # by itself, as its decay is another number in each step
            self.ema.update(self.model)
        return found

    def learn(
        self, network: nn.Module, index: Tensor, pixels: Tensor, *, update: bool, window: int
    ) -> tuple[Tensor, Tensor]:
        """What a step does on the device, as graph.py captures it; network: the model, or compiled from it."""
        train = self.config.train
        labels, others, share = self.labels[index], None, None
        if self.features is None:
            pixels = pixels if self.images.stored is None else self.images.pixels(index)
            images = self.augment(pixels, self.generators["augment"], index=index, epoch=self.epoch)
            images, labels, others, share = mix(
                images,
                labels,
                mixup=train.mixup,
                cutmix=train.cutmix,
                p=train.mix_p,
                generator=self.generators["mix"],
            )
            with self.autocast():
                logits = network(images)
        else:
            with self.autocast():
                logits = self.model.get_submodule("head")(self.features.batch(index))
        loss = mixed_loss(logits, labels, others, share, smoothing=train.label_smoothing, weights=self.class_weights)
        self.scaler.scale(loss / window).backward()  # type: ignore[no-untyped-call]
        if update:
            self._clip()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
        return loss.detach(), hits(logits.detach(), labels, others, share)

    def validate(self) -> Scores:
        """Scores on the whole validation split, of the averaged weights if there are such."""
        with self._averaged():
            return self._score(self.validation_index)

    def weights_that_count(self) -> dict[str, Tensor]:
        """Parameters and buffers that validation sees, on the CPU: the averaged ones if there are such; not copied."""
        with self._averaged():
            return {
                name: value.detach().to("cpu", copy=bool(self.ema)) for name, value in self.model.state_dict().items()
            }

    # ------------------------------------------------------------ parts of an epoch

    def order(self) -> Tensor:
        """Indices (steps, batch) of an epoch's training images."""
        generator, length = self.generators["order"], self.steps * self.batch_size
        if self.config.train.sampling == "balanced":
            drawn = balanced_order(self.labels[self.train_index].cpu(), length, generator)
        else:
            drawn = torch.randperm(len(self.train_index), generator=generator)[:length]
        return self.train_index[drawn.to(self.device)].view(self.steps, self.batch_size)

    def _clip(self) -> None:
        train = self.config.train
        if train.clip_norm is None and train.clip_value is None:
            return
        self.scaler.unscale_(self.optimizer)
        if train.clip_value is not None:
            nn.utils.clip_grad_value_(self.learning, train.clip_value)
        if train.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.learning, train.clip_norm)

    def _look(self) -> tuple[Scores, Scores | None, float]:
        """Validation scores, those of the raw weights where the averaged ones count, accuracy on clean images."""
        raw = self._score(self.validation_index) if self.ema else None
        with self._averaged():
            return self._score(self.validation_index), raw, self._score(self.clean_index).accuracy

    def _score(self, index: Tensor) -> Scores:
        self.model.eval()
        logits, few = [], memory.images_at_once(self.images.shape[0], self.batch_size)
        with torch.inference_mode():
            for part in index.chunk(math.ceil(len(index) / few)):
                with self.autocast():
                    if self.features is None:
                        logits.append(self.model(self.images.batch(part)).float())
                    else:
                        logits.append(self.model.get_submodule("head")(self.features.batch(part)).float())
            return evaluate(torch.cat(logits), self.labels[index])

    def _averaged(self) -> Any:
        return self.ema.swapped(self.model) if self.ema else nullcontext()

    def _hear(self, metrics: EpochMetrics) -> None:
        """What the course of the trial decides: the plateau's rate, and whether it is over."""
        train = self.config.train
        if train.schedule.name == "plateau":
            self.plateau = self.plateau.step(train.schedule, train.optimizer.lr, metrics.val_loss)
        if train.early_stopping:
            value = float(metrics.as_dict()[self.objective.metric])
            self.stopping = hear(train.early_stopping, self.stopping, metrics, value * self.objective.sign)

    def autocast(self) -> torch.autocast:
        """Around what is computed in the precision that trains."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.precision != "fp32")

    # ------------------------------------------------------------ going on

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A copy of all that goes on changing: flat tensors on the CPU, and the rest as plain JSON values."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": v for name, v in values.items() if isinstance(v, Tensor)}
        tensors |= {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        if self.ema:
            tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        copies = {
            name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        return copies, {
            "epoch": self.epoch,
            "optimizer": self.config.train.optimizer.name,
            "scaler": self.scaler.state_dict(),
            "plateau": self.plateau._asdict(),
            "stopping": self.stopping._asdict(),
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken, with this trainer's own rates, batch size and augmentation.

        Raises:
            BadInput: the tensors are not those of this configuration.
        """
        model, optimizer, generators, ema = (
            _select(tensors, part) for part in ("model", "optimizer", "generator", "ema")
        )
        expected = {name: value.shape for name, value in self.model.state_dict().items()}
        if expected != {name: value.shape for name, value in model.items()} or set(generators) != set(self.generators):
            raise BadInput("these weights belong to another model; resume with the configuration that wrote them")
        kind = self.config.train.optimizer.name
        if state["optimizer"] != kind:
            raise BadInput(f"these weights were trained with {state['optimizer']}, this configuration says {kind}")
        if bool(ema) != bool(self.ema):
            raise BadInput("these weights were trained with another train.ema; resume with the one that wrote them")
        self.model.load_state_dict(model)
        if self.ema:
            self.ema.load_state_dict(ema)
        parameters = self.learning
        values: dict[int, dict[str, Tensor]] = {}
        for name, value in optimizer.items():
            number, key = name.split(".", 1)
            parameter = parameters[int(number)]
            # The fused update walks parameter and state side by side, so both must lie in memory the same way.
            same = value.shape == parameter.shape
            values.setdefault(int(number), {})[key] = torch.empty_like(parameter).copy_(value) if same else value
        if kind in ("sgd", "rmsprop") and getattr(self.config.train.optimizer, "momentum", False):
            # RMSprop would look for one that a rate of 0 never made, SGD for those of stages that are frozen yet.
            for position in range(len(parameters)) if kind == "sgd" else [*values]:
                values.setdefault(position, {}).setdefault("momentum_buffer", torch.zeros_like(parameters[position]))
        self.optimizer.load_state_dict({"state": values, "param_groups": self.optimizer.state_dict()["param_groups"]})
        for name, value in generators.items():
            self.generators[name].set_state(value)
        self.scaler.load_state_dict(dict(state["scaler"]))
        self.plateau = PlateauState(**state["plateau"])
        self.stopping = StoppingState(**state["stopping"])
        self.epoch = state["epoch"]


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
