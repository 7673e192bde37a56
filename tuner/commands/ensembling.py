"""Ensembling: what trials reach together, what that costs, and whether their weights fit together: on one screen."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from tuner.errors import BadInput
from tuner.terminal import print_table, progress, show

SOUP = "soup"
"""Folder of the soup in that of the ensemble."""


def make(path: Path, *, most: int, out: Path | None, device: str) -> dict[str, Any]:
    """An ensemble and a soup of a run's trials; what was measured, and where they are: null what was not worth saving.

    Raises:
        BadInput: the run, its trials, or the folder.
    """
    from tuner.delivery.place import ENSEMBLE, Place, find_model
    from tuner.delivery.target import make_ready

    run = path.absolute()
    if not (run / "run.json").is_file():
        place = find_model(path)
        if place.run is None:
            raise BadInput(f"{path} lies in no run; an ensemble is made of a run's trials: name its folder")
        run = place.run
    from tuner.delivery.ensembles import ensemble, members, soup

    folder = out.absolute() if out else Place(run, "ensemble", run).folder("ensemble")
    make_ready(folder, ENSEMBLE)
    with progress() as tell:
        candidates = members.gather(run, device=device, progress=tell)
        made = ensemble.make(candidates, folder, most, device=device, progress=tell)
        soups = soup.make(candidates, made.best, folder / SOUP, device=device, progress=tell)
    return {
        "run": str(run),
        "folder": made.folder and str(made.folder),
        **made.measured,
        "soups": [{**asdict(each), "folder": each.folder and str(each.folder)} for each in soups],
    }


def tell(told: dict[str, Any]) -> None:
    """Print what `make` gives."""
    best = next(each for each in told["candidates"] if each["name"] == told["best"])
    count, images = told["ensemble"]["members"], f"{told['images']:,} validation images"
    typer.echo(f"{Path(told['run']).name}: {len(told['candidates'])} trials with their weights, on {images}")
    rows = [(c["name"], f"{c['accuracy']:.1%}", f"{c['loss']:.3f}", str(c["weight"] or "")) for c in told["candidates"]]
    print_table(("trial", "accuracy", "log loss", "votes"), rows, numbers=(1, 2, 3))
    typer.echo("")
    if told["folder"]:
        typer.echo(
            f"together {count} of them reach {told['ensemble']['accuracy']:.1%} (log loss "
            f"{told['ensemble']['loss']:.3f}), the best alone, {best['name']}, {best['accuracy']:.1%}"
        )
        typer.echo(gain(told))
        typer.echo(cost(told["cost"]))
    else:
        typer.echo(f"together no two judge better than {best['name']} alone; no ensemble was written")
    for line in soup_lines(told["soups"], best):
        typer.echo(line)
    for text in told["left_out"]:
        typer.echo(f"note     {text}")
    saved = [told["folder"], *(each["folder"] for each in told["soups"])]
    for each in filter(None, saved):
        typer.echo(f"next     hypertune evaluate {show(Path(each))}")


def gain(told: dict[str, Any]) -> str:
    """What an ensemble gains, chosen on one half and measured on the other."""
    found = told["gain"]["accuracy"]
    value, low, high = (100 * found[name] for name in ("value", "low", "high"))
    verdict = "" if low > 0 else "; that may be chance" if high > 0 else "; that is worse"
    return (
        f"gain     {value:+.1f} points of accuracy (95%: {low:+.1f} to {high:+.1f}), chosen on one half of the images "
        f"and measured on the other{verdict}"
    )


def cost(told: dict[str, Any]) -> str:
    """What an ensemble costs, beside one network."""
    many, one = told["ensemble"], told["best"]
    return (
        f"cost     {many['forward_passes']} networks for one: {many['bytes'] / 1e6:,.1f} MB for "
        f"{one['bytes'] / 1e6:,.1f}, {many['p50_ms']:,.1f} ms a batch of 64 for {one['p50_ms']:,.1f}"
    )


def soup_lines(soups: list[dict[str, Any]], best: dict[str, Any]) -> list[str]:
    """What became of averaging weights."""
    if not soups:
        return [f"soup     none: no other trial has the architecture of {best['name']}"]
    lines = []
    for each in soups:
        low, high = 100 * each["gain"]["low"], 100 * each["gain"]["high"]
        reached = f"the weights of {', '.join(each['names'])} averaged reach {each['accuracy']:.1%}"
        beside = f"{best['name']} alone {best['accuracy']:.1%} (95%: {low:+.1f} to {high:+.1f} points)"
        if each["folder"]:
            verdict = "as fast as one network, and no worse on the images that chose it"
        elif high < 0:
            verdict = "their weights do not fit together; not saved"
        else:
            verdict = "no gain; not saved" if each["gain"]["value"] < 0 else "the other soup is better; not saved"
        lines.append(f"soup     {reached}, {beside}: {verdict}")
    return lines
