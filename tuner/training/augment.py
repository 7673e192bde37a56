"""Images on the training device: from decoded bytes to a normalised, augmented batch, in whole-batch tensor code.

About 160,000 images/s on one core at 32 x 32 with flip and crop, 1,000,000 without; per-image transforms in a
DataLoader reach 7,000. Every image has its own draw: torchvision's transforms on a batch draw once for all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.dlpack import from_dlpack

from tuner.spec.augment import Augment
from tuner.training.dataset import Dataset


class Images:
    """All images of a dataset on a device as bytes; batches of them are normalised on the way out."""

    def __init__(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> None:
        size, channels = dataset.image_size, dataset.channels
        self.shape = (size, size, channels)
        self.dtype = dtype
        # DLPack takes a read-only memory map without a copy; nothing here writes into it.
        self.pixels = from_dlpack(dataset.images).view(-1, size * size * channels).to(device)
        # One factor a value, not a channel: 0.12 instead of 0.85 ms for 128 images, as a last axis of 3 is slow.
        mean = torch.tensor(dataset.mean, dtype=torch.float32, device=device)
        # A channel that hardly varies (under one grey level) is not blown up to unit variance.
        std = torch.tensor(dataset.std, dtype=torch.float32, device=device).clamp_min(1 / 255)
        self.scale = (1 / (255 * std)).repeat(size * size)
        self.offset = (-mean / std).repeat(size * size)

    def batch(self, index: Tensor) -> Tensor:
        """Normalised images (N, C, S, S), channels last, of indices (N,)."""
        values = self.pixels.index_select(0, index) * self.scale
        return values.add_(self.offset).to(self.dtype).view(-1, *self.shape).permute(0, 3, 1, 2)


def augment(images: Tensor, config: Augment, generator: torch.Generator) -> Tensor:
    """Flips and crops each image of a batch (N, C, S, S) by a draw of its own; same shape, channels last.

    Flip and crop are one gather: for each pixel of the result the pixel of the padded image that lands there.
    """
    flip, crop = config.flip, config.crop
    if flip is None and crop is None:
        return images
    count, channels, size, _ = images.shape
    device = images.device
    padding = crop.padding if crop else 0
    side = size + 2 * padding
    rows = columns = torch.arange(padding, padding + size, device=device).expand(count, size)
    if crop:
        shift = torch.randint(-padding, padding + 1, (2, count, 1), generator=generator, device=device)
        shift *= torch.rand((count, 1), generator=generator, device=device) < crop.p
        rows, columns = rows + shift[0], columns + shift[1]
    if flip:
        mirrored = torch.rand((count, 1), generator=generator, device=device) < flip.p
        columns = torch.where(mirrored, columns.flip(1), columns)
    first = torch.arange(count, device=device).view(-1, 1, 1) * (side * side)
    source = first + rows.unsqueeze(2) * side + columns.unsqueeze(1)
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    return (
        padded.view(-1, channels).index_select(0, source.view(-1)).view(count, size, size, channels).permute(0, 3, 1, 2)
    )
