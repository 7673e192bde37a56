"""Which files a report can consist of, and those that are for other programs: Parquet and strict JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from analysis.page.tables import of_one_kind
from analysis.results import Results

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["html", "png", "svg", "csv", "parquet", "json", "md"]
FORMATS: tuple[Format, ...] = get_args(Format)
DEFAULT: tuple[Format, ...] = ("html", "png", "csv", "json", "md")


def read_formats(texts: Collection[str]) -> frozenset[Format]:
    """Formats by name, several in one text with commas between; the default ones for none.

    Raises:
        ValueError: there is no such format.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"--format {name!r}: there are {', '.join(FORMATS)}")
    return frozenset(cast(list[Format], names)) if names else frozenset(DEFAULT)


def write_parquet(results: Results, frame: pd.DataFrame, path: Path) -> None:
    """One table of the run, trials or epochs, as Parquet; a named index becomes a column.

    A column of mixed kinds becomes text. The run's name, metric and direction stand in the file's metadata.
    """
    import pyarrow as pa
    from pyarrow import parquet

    frame = of_one_kind(frame.reset_index() if frame.index.name else frame)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    about = {"hypertune.run": results.name, "hypertune.metric": results.metric or "", "hypertune.mode": results.mode}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **about})
    parquet.write_table(table, path, compression="zstd")


def write_json(value: Any, path: Path) -> None:
    """Strict JSON, UTF-8, indented; a number that is not finite is null."""
    path.write_text(json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def strict(value: Any) -> Any:
    """A value of plain JSON: tuples as lists, NumPy's numbers as Python's, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
