"""Writes tuner/spec/transforms.json: which transforms Albumentations has and what their arguments take.

python -m tuner.training.catalogue
"""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from typing import Any, get_args, get_origin

from tuner.spec.transforms import BORDERS, INTERPOLATIONS, LIBRARY, OURS, REFUSED
from tuner.training.per_image import albumentations

# What means nothing for one image with one label, or would change its size or its number of channels.
LEFT_OUT = {
    "always_apply",
    "crop_border",
    "fill_mask",
    "fit_output",
    "keep_size",
    "keypoint_remapping_method",
    "mask",
    "mask_drop_value",
    "mask_interpolation",
    "mask_params",
    "num_output_channels",
    "rotate_method",
    "size",  # that of the images
}


def transforms() -> dict[str, type[Any]]:
    """The library's transforms by name, those that cannot be used included."""
    library = albumentations()
    bases = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}
    found = {name: getattr(library, name) for name in sorted(dir(library)) if name not in bases}
    return {
        name: cls for name, cls in found.items() if inspect.isclass(cls) and issubclass(cls, library.BasicTransform)
    }


def read() -> dict[str, dict[str, list[Any]]]:
    """Name -> argument -> [type, default], as transforms.json holds it."""
    return {name: _arguments(cls) for name, cls in transforms().items() if name not in REFUSED and name not in OURS}


def _arguments(cls: type[Any]) -> dict[str, list[Any]]:
    scope = vars(sys.modules[cls.__module__])
    found = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name == "self" or name in LEFT_OUT:
            continue
        # The annotations are texts, as the library's modules postpone them.
        written = parameter.annotation
        kind = _kind(eval(written, dict(scope)) if isinstance(written, str) else written, name)
        if name == "border_mode":
            kind = " | ".join(BORDERS)
        default = [] if parameter.default is inspect.Parameter.empty else [_plain(name, parameter.default)]
        found[name] = [kind, *default]
    return found


def _kind(annotation: Any, name: str) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in (None, types.NoneType):
        return "null"
    if origin is typing.Literal:
        return " | ".join("null" if value is None else str(_plain(name, value)) for value in inner)
    if origin in (typing.Union, types.UnionType):
        # Posterize's list of a pair a channel is left out: grey and colour images differ in it.
        parts = [_kind(part, name) for part in inner if part != list[tuple[int, int]]]
        return " | ".join(dict.fromkeys(parts))
    if origin in (tuple, list):
        item = inner[0].__name__
        return f"{item}*" if origin is list or inner[-1] is Ellipsis else f"{item}*{len(inner)}"
    if origin is dict:
        return "dict" if inner[1] is Any or "interpolation" in name else "axes"
    return str(annotation.__name__)


def _plain(name: str, value: Any) -> Any:
    """The value as JSON has it, OpenCV's numbers as words."""
    if isinstance(value, dict):
        return {key: _plain(name, inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(name, inner) for inner in value]
    if "interpolation" in name and isinstance(value, int):
        return {number: word for word, number in INTERPOLATIONS.items()}[value]
    if name == "border_mode":
        return {number: word for word, number in BORDERS.items()}[value]
    return value


def main() -> None:
    """Write the file, a line a transform."""
    lines = (f" {json.dumps(name)}: {json.dumps(arguments)}" for name, arguments in read().items())
    LIBRARY.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
