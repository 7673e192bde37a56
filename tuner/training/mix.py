"""MixUp and CutMix: batches whose images are blends of two, and how much of each label they then carry."""

from __future__ import annotations

import torch
from torch import Tensor


def mix(
    images: Tensor, labels: Tensor, *, mixup: float, cutmix: float, p: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Mixes each image (N, C, S, S) with another of its batch: (images, labels, others, share).

    `others` (N,) are the labels of what was mixed in, `share` (fp32, no dimensions) is how much is left of the first
    ones, 1 where the batch was let alone; both are None where nothing is ever mixed, and then nothing is drawn.
    `mixup` and `cutmix` are the alphas of a symmetric Beta distribution, 0 for off; where both are on, a fair draw says
    which. `p` is the probability that a batch is mixed at all. `generator` must be on the images' device.

    Every batch makes the same draws and runs the same operations, whatever is drawn: nothing waits for a GPU, and the
    step can be captured as a graph.
    """
    if p == 0 or not (mixup or cutmix):
        return images, labels, None, None
    # A batch is in random order as it is: the neighbour is as good as a partner drawn at random, and never itself.
    partners, others = images.roll(1, 0), labels.roll(1, 0)
    draws = torch.rand(2, generator=generator, device=images.device)
    mixed, which = draws[0] < p, draws[1] < 0.5
    share = torch.ones((), device=images.device)
    if mixup:
        kept = torch.where(mixed & which if cutmix else mixed, _draw_beta(mixup, generator), 1.0)
        kept = kept.to(images.dtype)  # the labels are mixed as the images are, also in bf16
        images, share = torch.lerp(partners, images, kept), kept.float()
    if cutmix:
        kept = torch.where(mixed & ~which if mixup else mixed, _draw_beta(cutmix, generator), 1.0)
        inside = _draw_box(images.shape[-2], images.shape[-1], 1 - kept, generator)
        # Laid out as an image is, the box is read in long runs: 0.07 ms for 128 images of 32 x 32, `where` takes 0.69.
        box = torch.empty_like(images[:1]).copy_(inside)
        images, share = torch.lerp(images, partners, box), share * (1 - inside.float().mean())
    return images, labels, others, share


def _draw_beta(alpha: float, generator: torch.Generator) -> Tensor:
    """One draw from Beta(alpha, alpha) as a quotient of gammas, in logarithms: a gamma of 0.01 is 0 in fp32.

    A gamma of alpha is one of alpha + 1 times a uniform number to the power of 1 / alpha (Marsaglia and Tsang, 2000).
    """
    device = generator.device
    gammas = torch._standard_gamma(torch.full((2,), alpha + 1, device=device), generator)
    logs = gammas.log() - torch.empty(2, device=device).exponential_(generator=generator) / alpha
    return (logs[0] - logs[1]).sigmoid()


def _draw_box(height: int, width: int, share: Tensor, generator: torch.Generator) -> Tensor:
    """Mask (height, width) of a box with that share of the area around any pixel, cut off at the borders."""
    rows, columns = (_draw_side(size, share.sqrt(), generator) for size in (height, width))
    return rows[:, None] & columns


def _draw_side(size: int, share: Tensor, generator: torch.Generator) -> Tensor:
    centre = (torch.rand((), generator=generator, device=generator.device) * size).floor()
    half = (share * size / 2).floor()
    return (torch.arange(size, device=generator.device) - centre + 0.5).abs() < half
