"""The figures as files: PNG for READMEs and slides, SVG for papers; on two cores by two processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.page import pages
from analysis.plots import FIGURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120  # 10 inches wide: 1,200 pixels
KINDS = ("png", "svg")
ALONE = 3  # figures that one process draws in the time that a second one needs to begin
PATIENCE = 60  # seconds for the other process after this one is done
LARGEST_SVG = 2_000_000  # bytes; a larger one has its marks as an image, its texts and axes still as such
# A name may hold dollars. Text stays text: it can be searched, and edited. The salt makes the same file every time.
STYLE: dict[Any, Any] = {"text.parse_math": False, "font.size": 11, "svg.fonttype": "none", "svg.hashsalt": "hypertune"}


def write_figures(
    computed: Mapping[str, Any], out: Path, kinds: Sequence[str] = ("png",), dpi: int = DPI
) -> tuple[Path, ...]:
    """Draws what was computed (name in FIGURES -> its tuple) into out/NAME.KIND, those with something to draw.

    kinds are png and svg. What an earlier report left there and is not drawn now is removed. Returns the files, in the
    order of the figures.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name, it in computed.items() if not it.note]
    files = tuple(out / f"{name}.{kind}" for name in names for kind in kinds)
    for stale in {out / f"{name}.{kind}" for name in FIGURES for kind in KINDS} - set(files):
        stale.unlink(missing_ok=True)
    import matplotlib.figure  # before the fork: once for both

    del matplotlib
    draw = partial(_draw, computed, out, tuple(kinds), dpi)
    if len(names) <= ALONE or not _can_fork():
        draw(names)
        return files
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, such as a spinner's
        other = multiprocessing.get_context("fork").Process(target=_quietly, args=(draw, names[1::2]), daemon=True)
        other.start()
    try:
        draw(names[::2])
        other.join(PATIENCE)
    finally:
        # The child may hang in a lock that some thread held when it was made: rare, and no reason to wait for ever.
        if other.is_alive():
            other.kill()
            other.join()
    if other.exitcode != 0:
        draw(names[1::2])
    return files


def _quietly(draw: Callable[[Sequence[str]], None], names: Sequence[str]) -> None:
    """In the other process: what it cannot write, this one will try again and say."""
    try:
        draw(names)
    except OSError:
        os._exit(1)


def _can_fork() -> bool:
    """Linux with a second core. Elsewhere a second process would import everything again, longer than it would help."""
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


def _draw(computed: Mapping[str, Any], out: Path, kinds: Sequence[str], dpi: int, names: Sequence[str]) -> None:
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        for name in names:
            figure = FIGURES[name].draw_static(computed[name])
            figure.suptitle(FIGURES[name].title, x=0.01, ha="left", weight="bold")  # it leaves the page without words
            for kind in kinds:
                save = partial(_save_svg, figure) if kind == "svg" else partial(figure.savefig, dpi=dpi, format="png")
                pages.put(out / f"{name}.{kind}", save)


def _save_svg(figure: Figure, path: Path) -> None:
    from matplotlib.collections import Collection
    from matplotlib.lines import Line2D

    without = {"Date": None, "Creator": None}
    figure.savefig(path, format="svg", metadata=without)
    if path.stat().st_size > LARGEST_SVG:
        for axes in figure.axes:
            for mark in axes.get_children():
                if isinstance(mark, Collection | Line2D):
                    mark.set_rasterized(True)
        figure.savefig(path, format="svg", metadata=without, dpi=DPI)
