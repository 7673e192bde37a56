"""The page of `hypertune explain`: right and wrong images side by side with the evidence, from explain.json alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis import style
from analysis.page import pages

HOW = {
    "gradcam": "Grad-CAM adds up the maps of a layer, each weighed by how much the logit of the class rises with it.",
    "gradcam++": "Grad-CAM++ adds up the maps of a layer, each weighed by where in it the logit of the class rises.",
    "occlusion": (
        "Occlusion hides a square of the image at a time in grey: where the odds of the class fall most, there is the "
        "strongest evidence."
    ),
}


def write(folder: Path) -> Path:
    """Write index.html beside the explain.json in `folder`; returns where.

    Raises:
        ValueError: explain.json is missing, damaged or of another version.
        OSError: the page cannot be written.
    """
    said = _read(folder / "explain.json")
    target = folder / "index.html"
    text = render(said)
    pages.put(target, lambda path: path.write_text(text, encoding="utf-8"))
    return target


def render(said: Mapping[str, Any]) -> str:
    """The page of what explain.json says."""
    images = [_image(image) for image in said["images"]]
    columns = [
        ("Right", [i for i in images if i["right"]], "evenly taken from all right ones"),
        ("Wrong", [i for i in images if i["right"] is False], "the most confident first"),
    ]
    return pages.render(
        "explain.html.jinja",
        name=said["model"]["name"],
        lead=_lead(said, [len(found) for _, found, _ in columns]),
        how=HOW[said["method"]],
        where=_where(said),
        notes=said["notes"],
        scale=", ".join(said["scale"]),
        columns=columns if said["data"]["truth"] else [],
        unknown=[i for i in images if i["right"] is None],
        filters=said["filters"],
        maps=said["maps"],
        files={key: quote(said[key]["picture"]) for key in ("filters", "maps") if said[key]},
        problems=said["data"]["problems"],
        method=said["method_name"],
        other="gradcam" if said["method"] == "occlusion" else "occlusion",
        occludes=said["method"] == "occlusion",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(said, dict) or said.get("format") != 1:
        raise ValueError(f"{path} is damaged or of another version")
    return said


def _lead(said: Mapping[str, Any], shown: list[int]) -> str:
    data, count = said["data"], len(said["images"])
    if not data["truth"]:
        return f"{style.count(count, 'image')} of unknown truth."
    right, wrong = data["right"], data["images"] - data["right"]
    told = [f"{n} of {of:,} {word} ones" for n, of, word in zip(shown, (right, wrong), ("right", "wrong"), strict=True)]
    share = f"{right / data['images']:.1%} of them right"
    return f"{data['images']:,} images of {data['what']}, {share}. Shown are {told[0]} and {told[1]}."


def _where(said: Mapping[str, Any]) -> str:
    """What the evidence was read from, and how fine it can be."""
    size, layer = said["model"]["image_size"], said["layer"]
    if layer is None:
        return f"The square is {max(1, size // 4)} pixels wide, of the {size} that the model sees: nothing finer shows."
    cell = size / layer["side"]
    return (
        f"Read from {layer['name']}, whose {layer['maps']:,} maps have {layer['side']}×{layer['side']} cells. Each "
        f"stands for {cell:.0f} pixels of the {size} a side that the model sees, and nothing finer shows."
    )


def _image(image: Mapping[str, Any]) -> dict[str, Any]:
    said = f"{image['predicted']} {image['confidence']:.1%}"
    wrong = image["right"] is False
    notes = [
        f"nothing stands out for {image[name]}"
        for name, flat in (("predicted", image["flat"]), ("truth", image.get("flat_truth")))
        if flat
    ]
    notes += [
        f"odds of {image[name]} divided by up to {by:,.{0 if by >= 10 else 1}f}"
        for name, by in (("predicted", image["divides"]), ("truth", image.get("divides_truth")))
        if by
    ]
    return {
        "name": image["name"],
        "path": image["path"],
        "file": quote(image["picture"]),
        "panels": quote(image["panels"]),
        "right": image["right"],
        "said": said,
        "truth": f"is {image['truth']} ({image['probability_of_truth']:.1%})" if wrong else "",
        "notes": "; ".join(notes),
        "alt": f"{image['name']}, evidence for {image['predicted']}" + f" and for {image['truth']}" * wrong,
    }
