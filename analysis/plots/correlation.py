"""Correlation heatmap: how the searched settings go together, and each with the result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.plots.dimensions import Dimension, dimensions, texts
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

Floats = NDArray[np.floating[Any]]
Codes = NDArray[np.integer[Any]]

FEWEST = 5  # pairs; below that any association is chance

Kind = Literal["spearman", "ratio", "cramer"]
WORDS: dict[Kind, str] = {
    "spearman": "Spearman's rank correlation",
    "ratio": "correlation ratio of the ranks",
    "cramer": "Cramér's V",
}


class Cell(NamedTuple):
    """One pair of `n` trials with both. value: -1..1 for spearman, else 0..1; None where it cannot be told."""

    row: str
    column: str
    kind: Kind
    value: float | None
    n: int
    note: str = ""

    @property
    def text(self) -> str:
        """As printed: a sign only where there can be one."""
        if self.value is None:
            return ""
        value = round(self.value, 2) + 0.0  # no minus zero
        return f"{value:+.2f}".replace("-", "−") if self.kind == "spearman" and value else f"{value:.2f}"


class Correlation(NamedTuple):
    """What is drawn: the lower triangle, its last row the metric. names: rows and columns in order, the metric last."""

    names: tuple[str, ...]
    cells: tuple[Cell, ...]
    note: str = ""


def compute(results: Results) -> Correlation:
    """Associations between all searched columns that varied, and of each with the trials' rank by matched epochs.

    Ordered columns: Spearman. Unordered with ordered: correlation ratio on ranks. Unordered pairs: Cramér's V. A pair
    counts the trials in which both were in use. Diverged trials count, as the last of the ranks.
    """
    dims = dimensions(results)
    score = fidelity.standing(results)
    if not dims:
        return Correlation((), (), "No setting varied between the trials.")
    if score.notna().sum() < FEWEST:
        return Correlation((), (), f"Fewer than {FEWEST} trials have a value: too few to tell what goes together.")
    columns: list[tuple[str, Dimension | None, pd.Series[Any]]] = [
        (dim.label, dim, results.trials[dim.column]) for dim in dims
    ]
    columns.append((style.metric(results).label + " (rank)", None, score))
    cells = [_cell(columns[i], columns[j]) for i in range(1, len(columns)) for j in range(i)]
    return Correlation(tuple(name for name, _, _ in columns), tuple(cells))


def _cell(
    row: tuple[str, Dimension | None, pd.Series[Any]], column: tuple[str, Dimension | None, pd.Series[Any]]
) -> Cell:
    (name, dim, values), (other, other_dim, other_values) = row, column
    ordered, other_ordered = dim is None or dim.ordered, other_dim is None or other_dim.ordered
    kind: Kind = "spearman" if ordered and other_ordered else "ratio" if ordered or other_ordered else "cramer"
    both = values.notna() & other_values.notna()
    n = int(both.sum())
    if n < FEWEST:
        return Cell(name, other, kind, None, n, "too few trials")
    a, b = values[both], other_values[both]
    if kind == "spearman":
        value = spearman(_numbers(a), _numbers(b))
    elif kind == "cramer":
        value = cramers_v(_codes(a), _codes(b))
    else:
        groups, numbers = (b, a) if ordered else (a, b)
        value = correlation_ratio(_codes(groups), _numbers(numbers))
    if math.isnan(value):
        return Cell(name, other, kind, None, n, "one of the two did not vary")
    return Cell(name, other, kind, value, n)


def _numbers(values: pd.Series[Any]) -> Floats:
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)


def _codes(values: pd.Series[Any]) -> Codes:
    return pd.factorize(np.array(texts(values), dtype=object))[0]


def _ranks(values: Floats) -> Floats:
    return pd.Series(values).rank().to_numpy(dtype=float)


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation, in -1..1; NaN where one does not vary. A logarithm would not change it."""
    if len(a) < 2:
        return math.nan
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size else math.nan


def correlation_ratio(groups: Codes, values: Floats) -> float:
    """How much of the ranks' spread lies between the groups: eta in 0..1, freed of its bias; NaN if it cannot be told.

    Plain eta is high by chance alone where groups are small (0.36 expected for 4 groups of 6): Kelley's correction
    (1935), eta² lessened to 1 - (1 - eta²)(n - 1)/(n - k), takes that away; below 0 it is 0.
    """
    ranks = _ranks(values)
    n, k = len(ranks), len(np.unique(groups))
    if k < 2 or n <= k:
        return math.nan
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if not total:
        return math.nan
    within = sum(float(((r - r.mean()) ** 2).sum()) for r in (ranks[groups == g] for g in np.unique(groups)))
    return math.sqrt(max(0.0, 1 - within / total * (n - 1) / (n - k)))


def cramers_v(a: Codes, b: Codes) -> float:
    """Association of two categories, in 0..1, its bias corrected (Bergsma, 2013); NaN if it cannot be told."""
    table = pd.crosstab(a, b).to_numpy(dtype=float)
    n, (rows, columns) = table.sum(), table.shape
    if rows < 2 or columns < 2 or n < 2:
        return math.nan
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / n
    phi2 = float(((table - expected) ** 2 / expected).sum() / n)
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return min(1.0, math.sqrt(phi2 / smaller)) if smaller > 0 else math.nan


def _grids(it: Correlation) -> tuple[Floats, Floats, list[list[str]], list[list[str]]]:
    """Signed values, unsigned values, printed, hover texts: rows without the first name, columns without the last."""
    rows, columns = it.names[1:], it.names[:-1]
    signed = np.full((len(rows), len(columns)), np.nan)
    unsigned = signed.copy()
    printed = [["" for _ in columns] for _ in rows]
    hover = [["" for _ in columns] for _ in rows]
    place = {(cell.row, cell.column): cell for cell in it.cells}
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            cell = place.get((row, column))
            if cell is None:
                continue
            (signed if cell.kind == "spearman" else unsigned)[i, j] = math.nan if cell.value is None else cell.value
            printed[i][j] = cell.text
            about = cell.note or f"{WORDS[cell.kind]} {cell.text}"
            hover[i][j] = f"{style.safe(row)} and {style.safe(column)}<br>{about}<br>{cell.n} trials"
    return signed, unsigned, printed, hover


def draw(it: Correlation) -> Figure:
    """Signed cells on a diverging scale around 0, unsigned ones in grey; the value in each cell."""
    if it.note:
        return canvas.empty(it.note)
    signed, unsigned, printed, hover = _grids(it)
    rows, columns = [style.safe(n) for n in it.names[1:]], [style.safe(n) for n in it.names[:-1]]
    size = 13 if len(rows) <= 8 else 10.5
    common: dict[str, Any] = {"x": columns, "y": rows, "xgap": 2, "ygap": 2, "hoverongaps": False}
    figure = canvas.plot()
    # The first trace takes the template's first heatmap style (diverging), the second its second (grey).
    for z, low, show in ((signed, -1, True), (unsigned, 0, False)):
        text = np.where(np.isnan(z), "", np.array(printed, dtype=object))
        figure.add_heatmap(
            z=z, zmin=low, zmax=1, text=text, texttemplate="%{text}", textfont={"size": size}, customdata=hover,
            hovertemplate="%{customdata}<extra></extra>", showscale=show,
            colorbar={"title": {"text": "signed: both ordered", "side": "right"}, "outlinewidth": 0, "thickness": 12},
            **common,
        )  # fmt: skip
    untold = [c for c in it.cells if c.value is None]
    if untold:
        figure.add_scatter(
            x=[style.safe(c.column) for c in untold], y=[style.safe(c.row) for c in untold], mode="markers",
            marker={"size": 5, "color": style.PALE, "symbol": "line-ew-open"}, showlegend=False,
            customdata=[f"{style.safe(c.row)} and {style.safe(c.column)}<br>{c.note}<br>{c.n} trials" for c in untold],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    across, up = ([style.safe(canvas.cut(n, 28)) for n in names] for names in (it.names[:-1], it.names[1:]))
    aslant = len(columns) > 5 or sum(map(len, across)) > 80
    axis = {"showgrid": False, "ticks": "", "tickmode": "array"}
    figure.update_layout(
        height=110 + 46 * len(rows),
        margin={"t": 16},
        xaxis={**axis, "tickvals": columns, "ticktext": across, "tickangle": -35 if aslant else 0},
        yaxis={**axis, "tickvals": rows, "ticktext": up, "autorange": "reversed"},
    )
    return figure


def draw_static(it: Correlation) -> StaticFigure:
    """The same for paper."""
    import seaborn as sns
    from matplotlib.colors import LinearSegmentedColormap

    if it.note:
        return canvas.empty_static(it.note)
    signed, unsigned, printed, _ = _grids(it)
    rows = len(it.names) - 1
    figure, axes = canvas.sheet(10, max(3.0, 1.6 + 0.55 * rows))
    words = {"annot_kws": {"fontsize": 11 if rows <= 8 else 9}, "fmt": "", "linewidths": 2, "linecolor": "white"}
    for z, colours, low, bar in (
        (signed, style.RED_BLUE["light"], -1, True),
        (unsigned, style.GREYS["light"], 0, False),
    ):
        sns.heatmap(
            pd.DataFrame(z, index=it.names[1:], columns=it.names[:-1]), mask=np.isnan(z), ax=axes, vmin=low, vmax=1,
            cmap=LinearSegmentedColormap.from_list("associations", colours), cbar=bar, annot=np.array(printed),
            cbar_kws={"label": "signed: both ordered", "ticks": [-1, -0.5, 0, 0.5, 1]}, **words,
        )  # fmt: skip
    for cell in it.cells:
        if cell.value is None:
            at = it.names.index(cell.column) + 0.5, it.names.index(cell.row) - 0.5
            axes.text(*at, "too few" if cell.note == "too few trials" else "–", ha="center", va="center",
                      fontsize=10 if rows <= 8 else 7, color=style.THEMES["light"]["muted"])  # fmt: skip
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    axes.set_xticks(
        axes.get_xticks(),
        [canvas.cut(n, 28) for n in it.names[:-1]],
        rotation=35 if rows > 5 else 0,
        ha="right" if rows > 5 else "center",
    )
    axes.set_yticks(axes.get_yticks(), [canvas.cut(n, 28) for n in it.names[1:]])
    axes.set(xlabel="", ylabel="")
    return figure
