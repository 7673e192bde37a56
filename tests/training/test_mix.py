"""MixUp and CutMix against what their papers say."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tuner.training.ema import Ema
from tuner.training.losses import hits, mixed_loss
from tuner.training.mix import mix


def make(seed: int = 0, n: int = 6, size: int = 8) -> tuple[Tensor, Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, size, size, generator=generator).to(memory_format=torch.channels_last)
    return images, torch.arange(n), generator


def draw_shares(count: int, size: int = 2, **fields: float) -> np.ndarray:
    images, labels, generator = make(n=2, size=size)
    settings = {"mixup": 0.0, "cutmix": 0.0, "p": 1.0} | fields
    return np.array([mix(images, labels, **settings, generator=generator)[3] for _ in range(count)])


def test_mixup_blends_each_image_and_its_label_with_another_by_one_share() -> None:
    images, labels, generator = make()
    mixed, first, others, share = mix(images, labels, mixup=1.0, cutmix=0, p=1.0, generator=generator)
    assert others is not None and share is not None
    assert first is labels and 0.01 < share < 0.99 and not (others == labels).any()
    torch.testing.assert_close(mixed, share * images + (1 - share) * images[others])


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_pastes_a_box_of_another_image_and_counts_its_pixels(seed: int) -> None:
    images, labels, generator = make(seed, size=16)
    mixed, _, others, share = mix(images, labels, mixup=0, cutmix=1.0, p=1.0, generator=generator)
    assert others is not None and share is not None
    pasted = (mixed != images).any(1)
    rows, columns = pasted[0].any(1), pasted[0].any(0)
    assert (pasted == rows[:, None] & columns).all()
    assert all(len(set(side.nonzero().diff(dim=0).flatten().tolist())) <= 1 for side in (rows, columns))  # no holes
    assert torch.equal(mixed, torch.where(pasted[:, None], images[others], images))
    assert share == pytest.approx(1 - pasted[0].float().mean().item())


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 3.0])
def test_mixups_share_is_drawn_from_beta(alpha: float) -> None:
    shares, at = draw_shares(1000, mixup=alpha), np.array([1e-3, 0.03, 0.2, 0.4, 0.5, 0.7, 0.9, 0.999])
    assert (shares[:, None] <= at).mean(0) == pytest.approx(beta.cdf(at, alpha, alpha), abs=0.04)
    assert np.isfinite(shares).all()


def cut_as_in_the_paper(rng: np.random.Generator, alpha: float, size: int) -> float:
    cut = int(size * np.sqrt(1 - rng.beta(alpha, alpha)))
    x, y = rng.integers(size), rng.integers(size)
    (x1, x2), (y1, y2) = (np.clip([at - cut // 2, at + cut // 2], 0, size) for at in (x, y))
    return float(1 - (x2 - x1) * (y2 - y1) / size**2)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_cutmixs_share_is_that_of_the_papers_boxes(alpha: float) -> None:
    rng = np.random.default_rng(1)
    expected = [cut_as_in_the_paper(rng, alpha, 32) for _ in range(4000)]
    shares = draw_shares(1000, size=32, cutmix=alpha)
    deciles = np.arange(10, 100, 10)
    assert np.percentile(shares, deciles) == pytest.approx(np.percentile(expected, deciles), abs=0.06)
    assert shares.mean() == pytest.approx(np.mean(expected), abs=0.03)


def test_both_take_turns_and_never_meet() -> None:
    images, labels, generator = make()
    pasted = 0
    for _ in range(400):
        mixed, _, others, _ = mix(images, labels, mixup=1.0, cutmix=1.0, p=1.0, generator=generator)
        assert others is not None
        from_one = ((mixed == images) | (mixed == images[others])).all(1)
        assert from_one.all() or not from_one.any()  # every pixel is from one of the two images, or none is
        pasted += int(from_one.all())
    assert 160 < pasted < 240


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_share_of_the_batches_is_mixed(kind: str) -> None:
    images, labels, generator = make()
    alone = 0
    for _ in range(300):
        mixed, _, _, share = mix(images, labels, **{"mixup": 0, "cutmix": 0} | {kind: 9.0}, p=0.3, generator=generator)
        alone += torch.equal(mixed, images)
        assert (share == 1) == torch.equal(mixed, images)
    assert 180 < alone < 240


@pytest.mark.parametrize("fields", [{"mixup": 0, "p": 1.0}, {"mixup": 1.0, "p": 0}])
def test_nothing_is_drawn_where_nothing_is_mixed(fields: dict[str, float]) -> None:
    images, labels, generator = make()
    before = generator.get_state()
    assert mix(images, labels, cutmix=0, **fields, generator=generator) == (images, labels, None, None)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_draws_are_the_generators_alone_and_images_stay_channels_last(kind: str) -> None:
    images, labels, _ = make()
    images = images.bfloat16()
    runs = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(3)
        runs.append(mix(images, labels, **{"mixup": 0, "cutmix": 0} | {kind: 1.0}, p=1.0, generator=generator)[0])
    assert torch.equal(*runs)
    assert runs[0].dtype == torch.bfloat16 and runs[0].is_contiguous(memory_format=torch.channels_last)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of the operations that run inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


# These read a number back from the device, or make a tensor whose size depends on one.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "_unique2"}


def test_mixing_loss_and_average_never_wait_for_the_device() -> None:
    images, labels, generator = make()
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 6))
    ema = Ema(network, 0.9)
    with Operations() as ran:
        images, labels, others, share = mix(images, labels, mixup=1.0, cutmix=1.0, p=0.5, generator=generator)
        logits = network(images)
        loss = mixed_loss(logits, labels, others, share, smoothing=0.1, weights=torch.ones(6))
        torch.autograd.backward(loss)
        hits(logits.detach(), labels, others, share)
        ema.update(network)
    assert {"lerp", "where", "_foreach_lerp_", "nll_loss_forward"} <= ran.names
    assert not ran.names & WAITS
    with Operations() as ran:
        float(share)  # type: ignore[arg-type]
    assert ran.names & WAITS
