"""Image files -> uint8 pixels of one size, written row by row into .npy files; hostile and broken files are refused."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import BinaryIO, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

T = TypeVar("T")
Resize = Literal["stretch", "crop", "pad"]
# Files to decode, or pixels of shape (N, height, width) or (N, height, width, 3).
Items = Sequence[str] | NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 50_000_000
MEASURED = 1_000  # files looked at for the default size
LARGEST_DEFAULT = 224
SIZES = (4, 1024)  # what data.image_size allows
BATCH, BATCH_BYTES = 8, 2**22  # images, or pixels' bytes, decoded before the next thread is asked
SMALL_FILE = 5_000  # bytes: JPEGs of 32 x 32 decode 1.5 times faster without threads, of 1024 x 1024 1.6 times slower


@dataclass(frozen=True)
class Decoded:
    """What became of a list of images. kept: mask over them, those written. unreadable: position -> reason."""

    kept: NDArray[np.bool_]
    unreadable: dict[int, str]


def decode(item: str | NDArray[np.uint8], size: int, resize: Resize, channels: int) -> NDArray[np.uint8]:
    """Pixels of one image, uint8 (size, size, channels); a file's first frame, turned upright as its EXIF data say.

    `stretch` ignores the proportions, `crop` keeps the centre of the longer side, `pad` adds black borders.
    Transparent parts become white; 16-bit grey keeps its upper eight bits. A JPEG that stays at least twice as large
    as needed is decoded at a half, a quarter or an eighth of its size (by libjpeg, several times faster).

    Raises:
        ValueError: more than 50 million pixels, or 32 bits a pixel.
        OSError: no image of a known format, or cut short. Pillow raises other errors too for hostile files.
    """
    if isinstance(item, np.ndarray):
        return _fit(Image.fromarray(item), size, resize, channels)
    with Image.open(item, formats=FORMATS) as image:
        _check_pixels(image)
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        return _fit(_plain(image), size, resize, channels)


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS // 1_000_000} million")


def _plain(image: Image.Image) -> Image.Image:
    # To a mode that turns into grey or RGB without losing anything that can be seen.
    # Pillow brings 16-bit grey of a PGM to 0 to 65535 and calls it I, as if it had 32 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel have no agreed white; save it with 8 or 16")
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


def _fit(image: Image.Image, size: int, resize: Resize, channels: int) -> NDArray[np.uint8]:
    image = image.convert("L" if channels == 1 else "RGB")
    if resize == "pad":
        longest = max(image.size)
        inner = (max(1, round(image.width * size / longest)), max(1, round(image.height * size / longest)))
        canvas = Image.new(image.mode, (size, size))
        small = image.resize(inner, Image.Resampling.BILINEAR)
        canvas.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        image = canvas
    elif resize == "crop":
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    else:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)


def decode_all(
    items: Items, path: Path, size: int, resize: Resize, channels: int, progress: Callable[[int], None]
) -> Decoded:
    """Decode `items` in order into the .npy file `path`, uint8 (number kept, size, size, channels).

    A file that cannot be read leaves no row and is reported with its reason. Rows are written as they come: memory
    holds a few batches, and a full disk is an OSError here (through a memory map it would be a bus error).
    `progress` is told the number of images done, batch by batch.
    """
    step = max(1, min(BATCH, BATCH_BYTES // (size * size * channels)))
    kept = np.ones(len(items), dtype=np.bool_)
    unreadable: dict[int, str] = {}

    def decode_batch(start: int) -> list[NDArray[np.uint8] | str]:
        return [decode_or_say_why(item, size, resize, channels) for item in items[start : start + step]]

    starts = range(0, len(items), step)
    with image_warnings(), path.open("wb") as file:
        _write_header(file, (len(items), size, size, channels))
        for start, batch in zip(starts, _in_order(decode_batch, starts, _workers(items)), strict=True):
            for position, pixels in enumerate(batch, start):
                if isinstance(pixels, str):
                    kept[position], unreadable[position] = False, pixels
                else:
                    file.write(np.ascontiguousarray(pixels).data)
            progress(start + len(batch))
        file.seek(0)
        _write_header(file, (int(kept.sum()), size, size, channels))
    return Decoded(kept, unreadable)


def open_all(items: Items, progress: Callable[[int], None]) -> tuple[NDArray[np.bool_], dict[int, str]]:
    """Open all files without decoding them: a mask of those that are images, and position -> reason for the others."""
    kept = np.ones(len(items), dtype=np.bool_)
    unreadable: dict[int, str] = {}

    def look(position: int) -> str:
        try:
            with Image.open(items[position], formats=FORMATS) as image:
                _check_pixels(image)
        except Exception as error:
            return _reason(error, items[position])
        return ""

    with image_warnings():
        for position, reason in enumerate(_in_order(look, range(len(items)), 2 * (os.cpu_count() or 1))):
            if reason:
                kept[position], unreadable[position] = False, reason
            if position % MEASURED == 0 or position + 1 == len(items):
                progress(position + 1)
    return kept, unreadable


def decode_or_say_why(
    item: str | NDArray[np.uint8], size: int, resize: Resize, channels: int
) -> NDArray[np.uint8] | str:
    """Pixels of one image as `decode` gives them, or the reason why it cannot be read."""
    try:
        return decode(item, size, resize, channels)
    # A hostile file makes Pillow raise nearly anything (struct.error, IndexError, MemoryError, ...); all are reported.
    except Exception as error:
        return _reason(error, item)


def _reason(error: Exception, item: object) -> str:
    return str(error).replace(repr(item), "").rstrip(": ") or type(error).__name__


def _in_order(function: Callable[[int], T], starts: Iterable[int], workers: int) -> Iterator[T]:
    # Like map(), in threads, never more than a few results ahead of the one who reads them.
    if workers == 1:
        yield from map(function, starts)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        for start in starts:
            waiting.append(pool.submit(function, start))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _workers(items: Items) -> int:
    # Pillow lets go of the GIL while it decodes, but small images spend their time outside of it.
    if isinstance(items, np.ndarray) or not items:
        return 1
    with suppress(OSError, ValueError):  # decode() will say which file is gone, or has a NUL in its name
        sizes = [Path(item).stat().st_size for item in _evenly(items, 50)]
        return (os.cpu_count() or 1) if median(sizes) > SMALL_FILE else 1
    return 1


@contextmanager
def image_warnings() -> Iterator[None]:
    """While images are decoded: no words about odd metadata, and an error where one would fill the memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # such as a corrupt EXIF block: no reason to lose the image
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # NumPy pads the header so that the first axis may change without changing its length.
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _evenly(files: Sequence[str], count: int) -> Sequence[str]:
    return files[:: max(1, -(-len(files) // count))]


def measure(items: Items) -> list[tuple[int, int]]:
    """Width and height of up to 1,000 images, evenly taken, by their headers; what cannot be read is left out."""
    if isinstance(items, np.ndarray):
        return [(items.shape[2], items.shape[1])]
    sizes = []
    with image_warnings():
        for path in _evenly(items, MEASURED):
            with suppress(Exception), Image.open(path, formats=FORMATS) as image:  # decode() will say why
                sizes.append(image.size)
    return sizes


def default_size(items: Items) -> int:
    """Side for images of unknown sizes: the one that all have if all are square, else their median shorter side.

    The median is at most 224; both lie within what `data.image_size` allows. Looks at up to 1,000 images.
    """
    sizes = measure(items)
    shorter = [min(size) for size in sizes] or [LARGEST_DEFAULT]
    same = len(set(sizes)) == 1 and len(set(sizes[0])) == 1
    side = shorter[0] if same else min(int(median(shorter)), LARGEST_DEFAULT)
    return min(max(side, SIZES[0]), SIZES[1])


def drop_colour(path: Path) -> bool:
    """Rewrite a .npy file of three channels as one channel if no image in it has colour; say whether it was done."""
    images = np.load(path, mmap_mode="r")
    step = max(1, BATCH_BYTES // int(np.prod(images.shape[1:])))
    parts = range(0, len(images), step)
    if any((images[i : i + step] != images[i : i + step, ..., :1]).any() for i in parts):
        return False
    grey = path.with_suffix(".grey")
    with grey.open("wb") as file:
        _write_header(file, (*images.shape[:3], 1))
        for i in parts:
            file.write(np.ascontiguousarray(images[i : i + step, ..., :1]).data)
    grey.replace(path)
    return True
