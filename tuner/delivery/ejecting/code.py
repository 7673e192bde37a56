"""Code: Python calls as trees: compared, changed and written on lines as formatters have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

WIDTH = 100
"""Characters a line."""

ROOM = len("optimizer = ")
"""Of a line for what may stand before a call."""

MOST_ON_A_LINE = 2
"""Layers of a Sequential that share a line, if they fit."""


class Given(NamedTuple):
    """A value in the code. role: what it is, which names it where a block is a function of it."""

    value: Any
    role: str

    def __str__(self) -> str:
        return self.value if isinstance(self.value, str) else repr(self.value)


@dataclass(frozen=True)
class Call:
    """name(arguments, keyword=...), and what follows it."""

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    suffix: str = ""

    @property
    def parts(self) -> tuple[Any, ...]:
        """Arguments in the order in which they are written."""
        return (*self.arguments, *(value for _, value in self.keywords))

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.written())}){self.suffix}"

    def written(self, *, indent: int | None = None) -> list[str]:
        """Each argument as code, on one line, or with `indent` on as many as it takes."""
        names = [""] * len(self.arguments) + [f"{name}=" for name, _ in self.keywords]
        return [
            name + (render(part, indent) if indent is not None else str(part))
            for name, part in zip(names, self.parts, strict=True)
        ]


def list_values(part: Any) -> Iterator[Given]:
    """The values in a tree, in the order in which they are written."""
    if isinstance(part, Given):
        yield part
    elif isinstance(part, Call):
        for inner in part.parts:
            yield from list_values(inner)


def shape_of(part: Any) -> str:
    """The code without its values: equal for what differs in them alone."""
    return str(replace(part, iter(["_"] * sum(1 for _ in list_values(part)))))


def replace(part: Any, values: Iterator[Any]) -> Any:
    """The tree with others in the place of its values."""
    if isinstance(part, Given):
        return next(values)
    if not isinstance(part, Call):
        return part
    arguments = tuple(replace(inner, values) for inner in part.arguments)
    return Call(part.name, arguments, tuple((n, replace(v, values)) for n, v in part.keywords), part.suffix)


def render(part: Any, indent: int) -> str:
    """Code that begins in a line indented so far: on one line, or an argument a line with a comma behind each."""
    one = str(part)
    if not isinstance(part, Call):
        return one
    layers = part.name in ("nn.Sequential", "Dense", "Branches", "Residual")
    deep = any(isinstance(inner, Call) and inner.name in ("nn.Sequential", "Branches") for inner in part.parts)
    short = not (layers and (deep or len(part.arguments) > MOST_ON_A_LINE))
    if short and indent + len(one) + ROOM <= WIDTH:
        return one
    inner = indent + 4
    lines = "".join(f"{' ' * inner}{text},\n" for text in part.written(indent=inner))
    return f"{part.name}(\n{lines}{' ' * indent}){part.suffix}"
