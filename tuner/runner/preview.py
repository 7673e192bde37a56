"""Preview: what the network will see of a space's images, as a sheet, and what is wrong with them, in words."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tuner.errors import Infeasible
from tuner.runner.plan import Plan
from tuner.search.preflight import draw as draw_at_random
from tuner.search.preflight import resolve
from tuner.spec.distributions import Plain
from tuner.spec.space import Parameter
from tuner.spec.text import show_value
from tuner.spec.trial_config import TrialConfig
from tuner.training.augment import Augmenter
from tuner.training.datasets import open_dataset
from tuner.training.images import Images

CLASSES, DRAWS, PANELS = 10, 8, 4
"""Rows and columns of a panel, and panels at most."""

SIDE = 72
"""Pixels at least that an image takes on the sheet."""

GAP, LINE, LABEL = 4, 26, 150
INK, FAINT, PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)


def save_sheet(plan: Plan, path: Path) -> int:
    """Draws a panel for each augmentation that the space may choose, four at most, as a PNG; returns how many.

    A row is a class: one of its training images as it is stored, then as the network sees it, drawn seven times.
    """
    panels = [_panel(plan, config, title) for title, config in _augmentations(plan)]
    width, height = max(panel.width for panel in panels), sum(panel.height for panel in panels)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.height
    sheet.save(path)
    return len(panels)


def _augmentations(plan: Plan) -> list[tuple[str, TrialConfig]]:
    """Different augmentations of the space, with the settings that make them, as far as they are found by chance."""
    searched = [p for p in plan.space.parameters if p.path.startswith("data.augment")]
    found: dict[str, tuple[str, TrialConfig]] = {}
    chance = random.Random(plan.space.fixed.seed)
    for _ in range(40 if searched else 1):
        parameters: dict[str, Plain] = {}

        def choose(parameter: Parameter, given: dict[str, Plain] = parameters) -> Plain:
            value = given[parameter.name] = draw_at_random(parameter, chance)
            return value

        try:
            config = resolve(plan.space, choose)
        except Infeasible:
            continue
        shown = "  ".join(f"{name} {show_value(value)}" for name, value in parameters.items() if "augment" in name)
        found.setdefault(config.data.augment.model_dump_json(), (shown.replace("data.augment.", ""), config))
    return list(found.values())[:PANELS]


def _panel(plan: Plan, config: TrialConfig, title: str) -> Image.Image:
    data = open_dataset(plan.folder(config), config.data, plan.space.fixed.seed)
    images = Images(data, torch.device("cpu"), torch.float32)
    augment, generator = Augmenter(config.data.augment, images), torch.Generator().manual_seed(config.seed)
    scale = max(1, -(-SIDE // data.image_size))
    side = scale * data.image_size
    names = data.classes[:CLASSES]
    top = LINE * (2 if title else 1)
    panel = Image.new("RGB", (LABEL + DRAWS * (side + GAP), top + len(names) * (side + GAP) + LINE // 2), PAPER)
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(size=14)
    if title:
        pen.text((8, 5), title, INK, font)
    pen.text((LABEL, top - LINE + 5), "stored", FAINT, font)
    pen.text((LABEL + side + GAP, top - LINE + 5), "as the network sees it, drawn anew each time", FAINT, font)
    for row, name in enumerate(names):
        left, upper = LABEL, top + row * (side + GAP)
        pen.text((8, upper + side // 2 - 8), _shorten(name), INK, font)
        mine = data.train[data.labels[data.train] == row]
        if not len(mine):
            continue
        index = torch.full((DRAWS - 1,), int(mine[0]))
        stored = images.pixels(index[:1])
        seen = augment(images.pixels(index), generator, index=index, epoch=0)
        for picture in (*stored.numpy(), *_to_bytes(images, seen)):
            colours = picture if picture.shape[2] == 3 else picture.repeat(3, axis=2)
            tile = Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)
            panel.paste(tile, (left, upper))
            left += side + GAP
    return panel


def _to_bytes(images: Images, seen: torch.Tensor) -> NDArray[np.uint8]:
    """Bytes (N, S, S, C) of normalised images (N, C, S, S); what lies beyond black and white is cut off."""
    flat = seen.permute(0, 2, 3, 1).reshape(len(seen), -1)
    values = ((flat - images.offset) / images.scale).round().clamp(0, 255)
    array: NDArray[np.uint8] = values.view(-1, *images.shape).to(torch.uint8).numpy()
    return array


def _shorten(name: str) -> str:
    return name if len(name) <= 18 else name[:16] + "…"
