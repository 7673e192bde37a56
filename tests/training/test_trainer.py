import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import functional as F

from tuner.errors import BadInput, Infeasible
from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint
from tuner.training import trainer as trainer_module
from tuner.training.cnn import Whitened
from tuner.training.dataset import Dataset
from tuner.training.memory import images_at_once
from tuner.training.metrics import EpochMetrics
from tuner.training.networks import make_network
from tuner.training.trainer import Trainer

Configure = Callable[..., TrialConfig]
MakeImages = Callable[..., Dataset]

# All that draws or remembers: dropout, augmentation, momentum, running statistics, a schedule on its way.
RESTLESS: dict[str, Any] = {
    "model": {"depth": 2, "dropout": 0.2},
    "augment": "flip_crop",
    "train": {"optimizer": {"name": "sgd", "nesterov": True}, "schedule": {"name": "onecycle"}},
}


def curve(trainer: Trainer, epochs: int) -> list[dict[str, float | int]]:
    """What must repeat exactly: metrics without times and memory."""
    return [strip(trainer.run_epoch()) for _ in range(epochs)]


def strip(metrics: EpochMetrics) -> dict[str, float | int]:
    measured = {"epoch_seconds", "images_per_second", "peak_memory_mb"}
    return {name: value for name, value in metrics.as_dict().items() if name not in measured}


def test_two_epochs_equal_a_plain_loop(configure: Configure, make_images: MakeImages) -> None:
    config, data = configure(model={"depth": 2}, train={"optimizer": {"name": "sgd"}}), make_images(train=50)
    trainer = Trainer(config, data)
    model = make_network(config.model, classes=3, in_channels=1, image_size=8)
    model.load_state_dict(trainer.model.state_dict())
    x = torch.tensor((np.asarray(data.images) / 255 - 0.4) / 0.2, dtype=torch.float32).permute(0, 3, 1, 2)
    y = torch.tensor(data.labels)
    order = torch.Generator()
    order.set_state(trainer.generators["order"].get_state())

    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), []
    for _ in range(2):
        for batch in torch.randperm(50, generator=order)[:48].view(3, 16):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())

    trainer.run_epoch()
    metrics = trainer.run_epoch()
    assert metrics.train_loss == pytest.approx(np.mean(losses[3:]), abs=1e-6)
    logits = model.eval()(x[50:]).detach()
    assert metrics.val_loss == pytest.approx(F.cross_entropy(logits, y[50:]).item(), abs=1e-6)
    assert metrics.val_accuracy == pytest.approx((logits.argmax(1) == y[50:]).double().mean().item())
    assert metrics.val_macro_f1 == pytest.approx(f1_score(y[50:], logits.argmax(1), average="macro"))
    assert metrics.accuracy_gap == metrics.clean_train_accuracy - metrics.val_accuracy


def test_a_net_learns_what_can_be_learned(configure: Configure, make_images: MakeImages) -> None:
    trainer = Trainer(configure(train={"batch_size": 8, "optimizer": {"name": "adam", "lr": 0.05}}), make_images())
    assert curve(trainer, 8)[-1]["val_accuracy"] > 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_configurations_give_equal_curves_whatever_ran_before(
    precision: str, configure: Configure, make_images: MakeImages
) -> None:
    config, data = configure(**RESTLESS | {"train": {"precision": precision}}), make_images()
    first = Trainer(config, data)
    expected = curve(first, 1)
    other = Trainer(configure(seed=5, **RESTLESS), make_images(size=12))
    torch.rand(3)
    expected += curve(first, 1)
    other.run_epoch()
    torch.manual_seed(77)
    assert curve(Trainer(config, data), 2) == expected


def test_a_seed_changes_weights_order_and_draws(configure: Configure, make_images: MakeImages) -> None:
    (one, _), (two, _) = (Trainer(configure(seed=s), make_images()).state_dict() for s in (1, 2))
    drawn = [name for name in one if name.startswith("generator.") or name == "model.0.weight"]
    assert len(drawn) == 4
    assert not any(torch.equal(one[name], two[name]) for name in drawn)


def test_torchs_global_generator_is_left_as_it_was(configure: Configure, make_images: MakeImages) -> None:
    before = torch.get_rng_state()
    Trainer(configure(**RESTLESS), make_images()).run_epoch()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_trial_equals_one_that_went_on(
    name: str, precision: str, configure: Configure, make_images: MakeImages, tmp_path: Path
) -> None:
    train = {"optimizer": {"name": name}, "schedule": {"name": "onecycle"}, "precision": precision}
    config, data = configure(**RESTLESS | {"train": train}), make_images()
    trainer = Trainer(config, data)
    curve(trainer, 2)
    checkpoint.save(tmp_path / "checkpoint", *trainer.state_dict())
    expected = curve(trainer, 2)
    resumed = Trainer(config, data)
    resumed.load_state_dict(*checkpoint.load(tmp_path / "checkpoint"))
    assert curve(resumed, 2) == expected
    assert [row["epoch"] for row in expected] == [3, 4]


def test_a_state_is_a_copy(configure: Configure, make_images: MakeImages) -> None:
    trainer = Trainer(configure(), make_images())
    tensors, _ = trainer.state_dict()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    trainer.run_epoch()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in before.items())
    assert not torch.equal(next(trainer.model.parameters()), before["model." + next(iter(trainer.model.state_dict()))])


def test_weights_of_another_model_are_refused(configure: Configure, make_images: MakeImages) -> None:
    state = Trainer(configure(model={"width": 5}), make_images()).state_dict()
    with pytest.raises(BadInput, match="these weights belong to another model"):
        Trainer(configure(), make_images()).load_state_dict(*state)


@pytest.mark.parametrize(
    "change",
    [
        {"augment": {"HorizontalFlip": {"p": 1.0}}},
        {"augment": {"RandomCrop": {"padding": 2}}},
        {"model": {"dropout": 0.5}},
        {"train": {"precision": "bf16"}},
        {"train": {"batch_size": 8}},
        {"train": {"optimizer": {"name": "adam", "lr": 0.1}}},
        {"train": {"schedule": {"name": "onecycle"}}},
    ],
)
def test_every_option_reaches_the_training(change: Any, configure: Configure, make_images: MakeImages) -> None:
    plain, changed = (Trainer(config, make_images()) for config in (configure(), configure(**change)))
    assert curve(plain, 1)[0]["train_loss"] != curve(changed, 1)[0]["train_loss"]


def test_the_rate_follows_the_schedule_over_all_epochs(configure: Configure, make_images: MakeImages) -> None:
    train = {"epochs": 4, "schedule": {"name": "onecycle", "warmup": 0.5}, "optimizer": {"name": "adam", "lr": 0.1}}
    rates = [row["lr"] for row in curve(Trainer(configure(train=train), make_images()), 4)]
    assert rates[1] == pytest.approx(0.1)  # 12 steps, of which the first half rises
    assert rates[3] == pytest.approx(1e-5)


def test_an_incomplete_batch_is_left_out_unless_it_is_the_only_one(
    configure: Configure, make_images: MakeImages
) -> None:
    steps = [Trainer(configure(train={"batch_size": size}), make_images(train=48)).steps for size in (20, 48, 100)]
    assert steps == [2, 1, 1]


def test_one_image_a_batch_trains_where_the_map_has_pixels(configure: Configure, make_images: MakeImages) -> None:
    trainer = Trainer(configure(train={"batch_size": 1}), make_images(train=6))
    assert math.isfinite(trainer.run_epoch().train_loss)
    with pytest.raises(Infeasible, match=r"train\.batch_size 1 gives batch normalisation one value"):
        Trainer(configure(model={"depth": 3}, train={"batch_size": 1}), make_images())


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_images_train(channels: int, configure: Configure, make_images: MakeImages) -> None:
    metrics = Trainer(configure(), make_images(channels=channels)).run_epoch()
    assert math.isfinite(metrics.val_loss)
    assert metrics.params == channels * 4 * 9 + 8 + 15


@pytest.mark.parametrize(("steps", "taken"), [(3, 3), (200, 51)])
def test_a_diverged_epoch_ends_early_with_nan(
    steps: int, taken: int, configure: Configure, make_images: MakeImages
) -> None:
    train = {"optimizer": {"name": "adam", "lr": 1e20}}
    trainer = Trainer(configure(model={"norm": "none"}, train=train), make_images(train=16 * steps))
    metrics = trainer.run_epoch()
    assert math.isnan(metrics.val_loss) and math.isnan(metrics.val_accuracy) and not math.isfinite(metrics.train_loss)
    assert trainer.optimizer.state_dict()["state"][0]["step"] == taken


def test_fp16_on_a_cpu_is_refused(configure: Configure, make_images: MakeImages) -> None:
    with pytest.raises(BadInput, match="fp16 needs a GPU"):
        Trainer(configure(train={"precision": "fp16"}), make_images())


def test_threads_are_set_for_each_epoch(configure: Configure, make_images: MakeImages) -> None:
    before = torch.get_num_threads()
    trainer = Trainer(configure(), make_images(), threads=2)
    torch.set_num_threads(1)
    trainer.run_epoch()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_speed_counts_training_images_over_training_time(configure: Configure, make_images: MakeImages) -> None:
    start = time.perf_counter()
    metrics = Trainer(configure(), make_images()).run_epoch()
    assert 48 / metrics.images_per_second <= metrics.epoch_seconds <= time.perf_counter() - start


def test_peak_memory_forgets_the_trial_before(configure: Configure, make_images: MakeImages) -> None:
    small = Trainer(configure(), make_images())
    small.run_epoch()
    big = Trainer(configure(model={"width": 512}, train={"batch_size": 48}), make_images(size=32)).run_epoch()
    assert small.run_epoch().peak_memory_mb < big.peak_memory_mb


def test_validation_images_do_not_train(configure: Configure, make_images: MakeImages) -> None:
    data = make_images()
    other = replace(data, labels=np.where(np.arange(len(data.labels)) < 48, data.labels, 0))
    one, two = (Trainer(configure(), dataset) for dataset in (data, other))
    assert one.run_epoch().train_loss == two.run_epoch().train_loss
    assert one.validate() != two.validate()


@pytest.mark.parametrize(("side", "batch", "found"), [(32, 16, 256), (96, 16, 113), (224, 4, 20), (224, 64, 64)])
def test_large_images_are_validated_few_at_once(side: int, batch: int, found: int) -> None:
    assert images_at_once(side, batch) == found


def test_an_incomplete_window_counts_the_batches_that_it_has(configure: Configure, make_images: MakeImages) -> None:
    def moved(**train: Any) -> Tensor:
        optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0}
        trainer = Trainer(configure(model={"norm": "none"}, train={"optimizer": optimizer} | train), make_images())
        before = next(trainer.model.parameters()).detach().clone()
        trainer.run_epoch()
        return next(trainer.model.parameters()).detach() - before

    one_batch = moved(batch_size=48)
    torch.testing.assert_close(moved(accumulate=3), one_batch, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(moved(accumulate=100), one_batch, rtol=1e-4, atol=1e-6)


def test_a_whitening_layer_sees_all_classes_of_sorted_images(
    configure: Configure, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_images()
    data = replace(data, train=data.train[np.argsort(data.labels[data.train], kind="stable")])
    seen: list[Tensor] = []
    monkeypatch.setattr(trainer_module, "PREPARED_PIXELS", 12 * 8**2)
    monkeypatch.setattr(Whitened, "prepare", lambda self, images: seen.append(images))
    trainer = Trainer(configure(model={"whiten": True}), data)
    pixels = trainer.images.batch(trainer.train_index[::4])
    assert torch.equal(seen[0], pixels.float()) and set(trainer.labels[trainer.train_index[::4]].tolist()) == {0, 1, 2}


def test_balanced_sampling_leaves_nothing_to_weigh(configure: Configure, make_images: MakeImages) -> None:
    both = {"class_weights": "balanced", "sampling": "balanced"}
    assert Trainer(configure(train=both), make_images()).class_weights is None
    assert Trainer(configure(train={"class_weights": "balanced"}), make_images()).class_weights is not None
