"""The library for notebooks: a method a figure, figures that are returned and neither shown nor saved."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import analysis
from analysis.gallery import Plots
from analysis.plots import FIGURES

pytestmark = pytest.mark.slow

FIXTURE = Path(__file__).parents[1] / "fixtures" / "hypertune_digits"


def test_every_figure_of_the_report_is_a_documented_method() -> None:
    methods = {name for name, _ in inspect.getmembers(Plots, inspect.isfunction) if not name.startswith("_")}
    assert methods == {*FIGURES, "static"}
    assert all(getattr(Plots, name).__doc__ for name in methods)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_returned_in_both_forms_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    results = analysis.load(FIXTURE)
    before = sorted(FIXTURE.rglob("*"))
    assert getattr(results.plot, name)().to_dict()["layout"]
    assert results.plot.static(name).get_axes()
    assert sorted(FIXTURE.rglob("*")) == before


def test_the_interaction_scatter_takes_its_settings_by_name() -> None:
    results = analysis.load(FIXTURE)
    labels = [p.column for p in results.parameters]
    with pytest.raises(ValueError, match="no setting 'nothing'"):
        results.plot.interaction(x="nothing")
    assert labels
