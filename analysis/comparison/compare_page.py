"""A comparison as people pass it on: a Markdown table for a README, one HTML page, JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from analysis import style
from analysis.comparison.compare import Comparison, Group
from analysis.comparison.differences import Difference, points
from analysis.comparison.recipe import UNKNOWN
from analysis.comparison.run_row import Row
from analysis.page import pages
from analysis.plots import course

DPI = 130
NOT_LOOKED_AT = "not looked at"
WORDS = ("experiment", "date", "architecture", "schedule", "augmentation")  # columns that hold no numbers
READING = {
    "welch": "± after an improvement: half the 95% interval of the difference of means over seeds (Welch's t).",
    "one repeated": "¹ Only one of the two was repeated: ± is half the 95% interval of a difference of two single "
    "results, if both scatter as that one's seeds do (Student's t).",
    "validation size": "² Noise between seeds is not known: ± is what the size of the validation set alone makes of "
    "it. A smaller difference means nothing, a larger one may.",
    "nothing": "³ Whether this is more than noise cannot be known.",
}
_MARK = {"welch": "", "one repeated": "¹", "validation size": "²", "nothing": "³"}


class Table(NamedTuple):
    """One group as text: a heading a column, a row of cells a run. best: which of the rows; notes: what marks mean."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    runs: tuple[int, ...]
    best: tuple[bool, ...]
    notes: tuple[str, ...]


def table(comparison: Comparison, group: Group) -> Table:
    """The group's rows; columns that no run knows are left out, but never the test accuracy."""
    rows = [comparison.rows[n] for n in group.runs]
    cells = [_cells(row, group.metric) for row in rows]
    heads = [head for head in cells[0] if head == "test" or any(row[head] != UNKNOWN for row in cells)]
    bases = {row.improvement.basis for row in rows if row.improvement}
    return Table(
        tuple(heads),
        tuple(tuple(row[head] for head in heads) for row in cells),
        group.runs,
        tuple(row.best for row in rows),
        tuple(text for basis, text in READING.items() if basis in bases),
    )


def _cells(row: Row, metric: style.Metric) -> dict[str, str]:
    seeds = f" (mean of {len(row.seeds)} seeds {metric.text(sum(row.seeds) / len(row.seeds))})" if row.seeds else ""
    own = metric.name.replace("/", "_") != "val_accuracy"
    epochs = UNKNOWN if row.best_epoch is None else style.number(row.best_epoch)
    return {
        "experiment": row.name,
        "date": _date(row),
        "architecture": row.network,
        "parameters": UNKNOWN if row.parameters is None else style.number(row.parameters),
        "train": _share(row.train),
        "validation": _share(row.validation) + ("" if own else seeds),
        "test": f"of trial {row.tested}" if row.tested else NOT_LOOKED_AT if row.test is None else _share(row.test),
        "gap (points)": UNKNOWN if row.gap is None else f"{100 * row.gap:.1f}".replace("-", "−"),
        **({metric.label: metric.text(row.value) + seeds} if own else {}),
        "epochs": epochs if row.full_epochs is None else f"{epochs} of {style.number(row.full_epochs)}",
        "schedule": row.schedule,
        "augmentation": row.augmentation,
        "improvement (points)" if metric.factor == 100 else "improvement": improvement(row.improvement, metric),
    }


def _date(row: Row) -> str:
    return (row.created or "")[:10] if style.date(row.created) else UNKNOWN


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.1f}%"


def improvement(difference: Difference | None, metric: style.Metric) -> str:
    """`+1.4 ± 1.1`, in points of a percentage, with a mark where the ± is no interval over the seeds of both."""
    if difference is None:
        return UNKNOWN
    size = "" if difference.margin is None else f" ± {points(difference.margin, metric, sign=False)}"
    return f"{points(difference.change, metric)}{size}{_MARK[difference.basis]}".replace(" points", "")


def answer(comparison: Comparison, group: Group) -> str:
    """Which run of a group is best, in one sentence."""
    best = [comparison.rows[n] for n in group.best]
    if not best or len(group.runs) < 2:
        return ""
    means = all(len(comparison.rows[n].seeds) > 1 for n in group.runs if comparison.rows[n].value is not None)
    value = sum(best[0].seeds) / len(best[0].seeds) if means else best[0].value
    reached = f"{group.metric.text(value)} {group.metric.label}" + (" on average over seeds" if means else "")
    names = [row.name for row in best]
    if len(names) > 1:
        return f"{', '.join(names[:-1])} and {names[-1]} reached the same: {reached}."
    return f"Best is {names[0]} with {reached}."


def arrange(shown: Table, without: tuple[str, ...] = ()) -> Table:
    """What was reached first, what it was made of last: for a screen, which may be narrower than the table."""
    first = ("experiment", "validation", "", "improvement", "test", "train", "gap", "parameters", "epochs")
    last = ("architecture", "schedule", "augmentation", "date")
    names = [head.removesuffix(" (points)") for head in shown.heads]
    places = [(*first, *last).index(name if name in (*first, *last) else "") for name in names]  # "": another metric
    kept = [n for n in sorted(range(len(names)), key=places.__getitem__) if names[n] not in without]
    return shown._replace(
        heads=tuple(shown.heads[n] for n in kept), rows=tuple(tuple(row[n] for n in kept) for row in shown.rows)
    )


def short(comparison: Comparison, group: Group) -> Table:
    """The columns that a terminal has room for; the best marked with a star."""
    shown = arrange(table(comparison, group), without=("train", "gap", "schedule", "augmentation", "date"))
    rows = zip(shown.rows, shown.best, strict=True)
    return shown._replace(rows=tuple((row[0] + " *" * best, *row[1:]) for row, best in rows))


# ---------------------------------------------------------------- Markdown


def to_markdown(comparison: Comparison) -> str:
    """One table a group, the best in bold, what ± means under it; every name escaped. Ends with a newline."""
    parts = []
    for group in comparison.groups:
        shown = table(comparison, group)
        lines = [shown.heads, tuple("---" if head in WORDS else "---:" for head in shown.heads)]
        for row, best in zip(shown.rows, shown.best, strict=True):
            strong = {"experiment", "validation", group.metric.label} if best else set()
            cells = zip(shown.heads, map(_escape, row), strict=True)
            lines.append(tuple(f"**{cell}**" if head in strong else cell for head, cell in cells))
        drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        said = [text for text in (group.reason, answer(comparison, group)) if text]
        parts += [*(_escape(text) for text in said), drawn, *shown.notes]
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    """Text that GitHub shows as it is: on one line, no markup, no HTML, no cell's end, no link."""
    line = re.sub(r"[\s\x00-\x1f]+", " ", text).strip()
    line = re.sub(r"([\\`*\[\]<>|~$&!#])", r"\\\1", line)
    line = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)  # inside a word it means nothing
    return re.sub(r":(?=//)", r"\\:", line.replace("www.", r"www\.")) or UNKNOWN


# ---------------------------------------------------------------- HTML


def write(comparison: Comparison, out: Path) -> Path:
    """Writes compare.html, its table as compare.md and the first group's figure as course.png; returns the page.

    Raises:
        OSError: the folder cannot be written.
    """
    page = _page(comparison)
    out.mkdir(parents=True, exist_ok=True)
    pages.put(out / "compare.md", lambda path: path.write_text(to_markdown(comparison), encoding="utf-8"))
    _write_figure(comparison.groups[0], out / "course.png")
    pages.put(out / "compare.html", lambda path: path.write_text(page, encoding="utf-8"))
    return out / "compare.html"


def _write_figure(group: Group, target: Path) -> None:
    import warnings

    import matplotlib

    if group.course.note or len(group.runs) < 2:
        target.unlink(missing_ok=True)
        return
    with warnings.catch_warnings(), matplotlib.rc_context({"text.parse_math": False, "font.size": 11}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        figure = course.draw_static(group.course)
        pages.put(target, lambda path: figure.savefig(path, dpi=DPI, format="png"))


def _page(comparison: Comparison) -> str:
    from plotly.offline import get_plotlyjs

    drawn: dict[str, Any] = {}
    groups = []
    for number, group in enumerate(comparison.groups):
        several = len(group.runs) > 1 and not group.course.note
        plots = [(f"{number}-{by}", by) for by in course.axes_of(group.course)] if several else []
        differences = [d for d in comparison.differences if d.first in group.runs]
        for name, by in plots:
            figure = course.draw(group.course, by).to_dict()
            figure["layout"].pop("template")
            drawn[name] = figure
        groups.append(
            {
                "title": _title(group),
                "reason": group.reason,
                "answer": answer(comparison, group),
                "table": arrange(table(comparison, group), without=("date",)),
                "plots": [name for name, _ in plots],
                "differences": [d.text for d in differences],
                "intervals": sum(d.basis in ("welch", "one repeated") for d in differences),
                "budgets": [_budget(comparison, group, n) for n in range(len(group.budgets))],
            }
        )
    return pages.render(
        "compare.html.jinja",
        rows=comparison.rows,
        looks=[(course.colour(n), course.dash(n)[0]) for n in range(len(comparison.rows))],
        dates=[_date(row) for row in comparison.rows],
        groups=groups,
        words=WORDS,
        asked=[change for change in comparison.changes if change.kind == "asked"],
        found=[change for change in comparison.changes if change.kind == "found"],
        notes=comparison.notes,
        drawn=pages.script_json(drawn),
        templates=pages.script_json({theme: style.template(theme) for theme in style.THEMES}),
        plotly=get_plotlyjs(),
    )


def _title(group: Group) -> str:
    by = f"by {group.metric.label}" if group.metric.name else "without a metric"
    if len(group.runs) == 1:
        return f"One run that compares with no other, {by}" if group.reason else f"One run, {by}"
    on = f", {group.validation:,} validation images" if group.validation else ""
    return f"{len(group.runs)} runs on the same data, {by}{on}"


def _budget(comparison: Comparison, group: Group, n: int) -> tuple[str, list[tuple[str, bool]], str]:
    """What was spent, each run's value and whether it led, who was ahead."""
    budget = group.budgets[n]
    spent = style.duration(budget.spent) if budget.by == "seconds" else f"{budget.spent:,.0f} {budget.by}"
    cells = [
        (group.metric.text(value), run in budget.ahead) for run, value in zip(group.runs, budget.values, strict=True)
    ]
    return f"after {spent}", cells, ", ".join(comparison.rows[run].name for run in budget.ahead)


# ---------------------------------------------------------------- JSON


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Rows, groups, changes, differences and notes as plain values; the points of the figures are left out."""
    return {key: _plain(value) for key, value in comparison._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(part) for key, part in value._asdict().items() if key != "course"}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
