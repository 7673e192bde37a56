"""Pages into files: templates in our style, JSON that is safe inside a page, files never seen half written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis import style


def render(template: str, **context: Any) -> str:
    """The page of a template beside this file; every name in it is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(template).render(themes=style.THEMES, accent=style.ACCENT, font=style.FONT, **context)


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no `</script>` and no comment can occur in it.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def figure_json(figure: Any) -> Any:
    """A Plotly figure as plain values, without its template, which the page gives it by the reader's setting."""
    from plotly.io.json import to_json_plotly

    plain = figure.to_dict()
    plain["layout"].pop("template", None)
    return json.loads(to_json_plotly(plain))


def put(target: Path, write_to: Callable[[Path], Any]) -> None:
    """Has `write_to` write a file beside `target`, then moves it there."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write_to(temporary)
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
