"""Images too many for memory: they stay encoded files, and worker processes decode the batches that are asked for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput, Problem
from tuner.training.decode import Resize, decode_or_say_why, image_warnings
from tuner.training.limits import CONTROL, read_memory

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

MEMORY_SHARE = 0.5
"""Of the machine's memory that decoded images may fill: as a memory map they stay in its page cache for all trials."""

DISK_SHARE = 0.9
"""Of the free disk that they may fill."""

AHEAD = 2
"""Batches that each worker process decodes ahead."""


class Streamed:
    """Images as files, with the shape that they have once decoded: uint8 (N, size, size, channels).

    files: paths, in the order of the images. What decodes them is the same function that fills the memory map, so that
    both ways give the same pixels. key: another one where a file may have changed.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: Sequence[str], size: int, channels: int, resize: Resize, key: str = "") -> None:
        # One array of bytes, not a list: a list's reference counts would be written to, and copied, in every process.
        self._files = np.array([os.fsencode(file) for file in files])
        self._resize: Resize = resize
        self.key = key
        self.shape = (len(files), size, size, channels)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pixels of one image, (size, size, channels), or of several, (n, size, size, channels), decoded right here.

        Raises:
            BadInput: a file cannot be read any more.
        """
        if isinstance(index, int | np.integer):
            one: NDArray[np.uint8] = self[np.array([index])][0]
            return one
        pixels = np.empty((len(index), *self.shape[1:]), dtype=np.uint8)
        with image_warnings():
            for place, file in enumerate(self._files[index]):
                path = os.fsdecode(file)
                found = decode_or_say_why(path, self.shape[1], self._resize, self.shape[3])
                if isinstance(found, str):
                    rule = f"{found}; remove it, and begin the search anew"
                    raise BadInput([Problem(path, 0, 0, rule)])
                pixels[place] = found
        return pixels

    def batches(self, order: Tensor | Sequence[Tensor], *, pin: bool = False) -> Iterator[Tensor]:
        """The images of each row of indices, uint8 (batch, size, size, channels), as `batches` gives them.

        As many processes decode as torch has threads here: those that the trial was given. They live as long as the
        iterator, and draw from no generator.

        Raises:
            BadInput: a file cannot be read any more.
        """
        import torch
        from torch.utils.data import DataLoader

        loader: DataLoader[Any] = DataLoader(
            cast("Dataset[Any]", _Decoding(self)),
            batch_sampler=[row.tolist() for row in order],
            num_workers=torch.get_num_threads(),
            prefetch_factor=AHEAD,
            collate_fn=_as_it_is,
            pin_memory=pin,
            generator=torch.Generator(),  # else it draws its workers' seeds from the generator that trains
        )
        for batch in loader:
            if isinstance(batch, str):
                raise BadInput(batch)
            yield batch


class _Decoding:
    # What a worker process asks for batches. An error comes back as text: raised there, it would bring a stack trace.

    def __init__(self, images: Streamed) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, index: list[int]) -> Tensor | str:
        import torch

        try:
            return torch.from_numpy(self._images[np.array(index, dtype=np.int64)])
        except BadInput as error:
            return str(error)


def _as_it_is(batch: Any) -> Any:
    return batch


Pixels = NDArray[np.uint8] | Streamed
"""Images of a dataset: all decoded in a memory map, or files."""


def batches(images: Pixels, order: Tensor | Sequence[Tensor], *, pin: bool = False) -> Iterator[Tensor]:
    """The images of each row of indices, uint8 (batch, size, size, channels) on the CPU, in the order asked for.

    order: int64 (steps, batch), or a sequence of rows (batch,) of different lengths. pin: in page-locked memory, from
    which a GPU copies without making anybody wait.
    """
    if isinstance(images, Streamed):
        yield from images.batches(order, pin=pin)
        return
    from torch.utils.dlpack import from_dlpack

    pixels = from_dlpack(images)  # without a copy; nothing here writes into it
    flat = pixels.view(len(pixels), -1)
    for row in order:
        batch = flat.index_select(0, row.cpu()).view(-1, *pixels.shape[1:])
        yield batch.pin_memory() if pin else batch


# ---------------------------------------------------------------- on the disk


def too_large(count: int, size: int, channels: int, folder: Path) -> bool:
    """Whether so many decoded images would fill more of the memory, or of the disk of `folder`, than they may."""
    needed = count * size * size * channels
    return needed > MEMORY_SHARE * machine_bytes() or needed > DISK_SHARE * shutil.disk_usage(folder).free


def machine_bytes(control: Path = CONTROL) -> int:
    """Memory that this process may use: the machine's, or its container's where that has less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(whole, read_memory(control) or whole)


def write_files(path: Path, files: Sequence[str] | None) -> None:
    """Keep the paths of images, None where they are no files."""
    path.write_text(json.dumps(files), encoding="utf-8")


def read_files(path: Path) -> list[str] | None:
    """What `write_files` kept."""
    files: list[str] | None = json.loads(path.read_bytes())
    return files
