from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tuner.training.decode import MAX_PIXELS, decode, decode_all, default_size, drop_colour

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image.convert(mode)


def save(image: Image.Image, path: Path, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
def test_every_format_gives_its_colours(tmp_path: Path, suffix: str) -> None:
    path = save(halves(32, 32), tmp_path / f"image.{suffix}")
    pixels = decode(path, 8, "stretch", 3).astype(int)
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels[:, 1] - RED).max() < 12 and np.abs(pixels[:, 6] - BLUE).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBA", "LA"])
def test_every_mode_becomes_grey_and_colour(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (4, 4), 255).convert(mode)
    path = save(image, tmp_path / "image.tif")
    assert (decode(path, 4, "stretch", 3) == 255).all() and (decode(path, 4, "stretch", 1) == 255).all()


def test_transparent_becomes_white_whatever_colour_it_hides(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (10, 20, 30, 255))
    pixels = decode(save(image, tmp_path / "image.png"), 4, "stretch", 3)
    assert pixels[0, 0].tolist() == [10, 20, 30] and (pixels[1:] == 255).all()


def test_a_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    path = save(Image.new("L", (4, 4), 0).convert("P"), tmp_path / "image.png", transparency=0)
    assert (decode(path, 4, "stretch", 3) == 255).all()


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 255], [32768, 65535]], dtype=np.uint16)
    path = save(Image.fromarray(values), tmp_path / "image.png")
    assert decode(path, 2, "stretch", 1)[..., 0].tolist() == [[0, 0], [128, 255]]


@pytest.mark.parametrize("white", [1023, 65535])
def test_a_pgm_of_sixteen_bits_is_scaled(tmp_path: Path, white: int) -> None:
    values = np.array([[0, white], [white // 2 + 1, white]], dtype=">u2")
    (tmp_path / "image.pgm").write_bytes(b"P5 2 2 %d\n" % white + values.tobytes())
    assert decode(str(tmp_path / "image.pgm"), 2, "stretch", 1)[..., 0].tolist() == [[0, 255], [128, 255]]


def test_a_turned_photo_is_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    pixels = decode(save(halves(32, 32), tmp_path / "photo.jpg", exif=exif, quality=95), 8, "stretch", 3).astype(int)
    assert np.abs(pixels[1] - RED).max() < 12 and np.abs(pixels[6] - BLUE).max() < 12


def test_the_first_frame_of_a_gif_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    path = save(frames[0], tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert (decode(path, 4, "stretch", 3) == RED).all()


def test_stretch_crop_and_pad_of_a_wide_image(tmp_path: Path) -> None:
    image = Image.new("L", (16, 8), 200)
    image.paste(90, (4, 0, 12, 8))  # the middle half
    path = save(image, tmp_path / "wide.png")
    stretched, cropped, padded = (decode(path, 8, how, 1)[..., 0] for how in ("stretch", "crop", "pad"))
    assert stretched[4, [0, 4, 7]].tolist() == [200, 90, 200]
    assert (cropped == 90).all()
    assert (padded[:2] == 0).all() and (padded[6:] == 0).all() and padded[4, [0, 4, 7]].tolist() == [200, 90, 200]


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
def test_a_line_of_one_pixel_is_an_image_too(tmp_path: Path, how: Any) -> None:
    assert decode(save(Image.new("L", (1000, 1)), tmp_path / "line.png"), 8, how, 1).shape == (8, 8, 1)


def test_a_large_photo_decoded_small_looks_like_the_whole_one(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 512)[:, None, None] * np.linspace(0.2, 1, 512)[None, :, None] * np.ones(3)
    image = Image.fromarray(smooth.astype(np.uint8))
    path = save(image, tmp_path / "photo.jpg", quality=95)
    whole = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(decode(path, 32, "stretch", 3) - whole).max() <= 4


def refusal(path: str | Path, tmp_path: Path) -> str:
    result = decode_all([str(path)], tmp_path / "out.npy", 8, "stretch", 3, lambda done: None)
    assert not result.kept.any() and len(np.load(tmp_path / "out.npy")) == 0
    return result.unreadable[0]


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp"])
def test_an_image_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = tmp_path / f"cut.{suffix}"
    save(noise, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path, tmp_path)


def test_more_pixels_than_the_cap_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = save(Image.new("1", (10_000, MAX_PIXELS // 10_000 + 1)), tmp_path / "huge.png")
    assert refusal(path, tmp_path) == "10000 x 5001 pixels; at most 50 million"


def test_a_decompression_bomb_is_refused_not_warned_about(tmp_path: Path) -> None:
    assert "bomb" in refusal(save(Image.new("1", (10_000, 10_000)), tmp_path / "bomb.png"), tmp_path)


def test_other_formats_are_refused_whatever_their_suffix(tmp_path: Path) -> None:
    assert "cannot identify" in refusal(save(halves(8, 8), tmp_path / "image.png", format="TGA"), tmp_path)


def test_reasons_do_not_repeat_the_path(tmp_path: Path) -> None:
    assert str(tmp_path) not in refusal(tmp_path / "gone.png", tmp_path)


def test_thirty_two_bit_grey_is_refused_with_advice(tmp_path: Path) -> None:
    assert "8 or 16" in refusal(save(Image.new("F", (4, 4)), tmp_path / "image.tif"), tmp_path)


@pytest.mark.parametrize("workers", [1, 4])
def test_rows_keep_the_order_of_the_files_and_skip_the_unreadable(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.training.decode._workers", lambda items: workers)
    files = [save(Image.new("L", (4, 4), i), tmp_path / f"{i}.png") for i in range(60)]
    Path(files[7]).write_bytes(b"")
    told: list[int] = []
    result = decode_all(files, tmp_path / "out.npy", 4, "stretch", 1, told.append)
    written = np.load(tmp_path / "out.npy")
    assert written[:, 0, 0, 0].tolist() == [i for i in range(60) if i != 7]
    assert list(result.unreadable) == [7] and told[-1] == 60 and told == sorted(told)


def test_pixels_of_the_right_size_pass_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    decode_all(pixels, tmp_path / "out.npy", 8, "stretch", 3, lambda done: None)
    assert np.array_equal(np.load(tmp_path / "out.npy"), pixels)


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(40, 40)] * 3, 40),
        ([(300, 300)] * 3, 300),  # all of one square size: kept
        ([(300, 400), (500, 300)], 224),
        ([(10, 99), (20, 20), (99, 50)], 20),
        ([(2, 2)], 4),
    ],
)
def test_default_size(tmp_path: Path, sizes: list[tuple[int, int]], side: int) -> None:
    files = [save(Image.new("L", size), tmp_path / f"{i}.png") for i, size in enumerate(sizes)]
    assert default_size([*files, str(tmp_path / "gone.png")]) == side


def test_colour_is_dropped_only_where_there_is_none(tmp_path: Path) -> None:
    images = np.repeat(np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1), dtype=np.uint8), 3, axis=3)
    np.save(tmp_path / "grey.npy", images)
    assert drop_colour(tmp_path / "grey.npy")
    assert np.array_equal(np.load(tmp_path / "grey.npy"), images[..., :1])
    images[8, 3, 3, 2] ^= 1
    np.save(tmp_path / "one.npy", images)
    assert not drop_colour(tmp_path / "one.npy") and np.array_equal(np.load(tmp_path / "one.npy"), images)
