"""`python -m analysis DIR`: a run folder into a report."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, loads, writes, prints where the report is. Returns the exit code: 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="Turn what the trials of a run left into one page, figures and tables."
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="run folder, of hypertune or of Ray Tune")
    parser.add_argument("--out", type=Path, help="folder for the report; default: report/ in the run")
    parser.add_argument("--metric", help="metric to rank by; default: the run's own")
    parser.add_argument("--mode", choices=("max", "min"), help="its direction, where the folder does not say")
    parser.add_argument("--x", help="setting along the interaction scatter")
    parser.add_argument("--color", help="setting that colours it")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(arguments)

    from analysis import Unreadable, load
    from analysis.page import report

    try:
        results = load(options.folder, metric=options.metric, mode=options.mode)
        page = report.write(results, options.out, x=options.x, color=options.color).page
    except (Unreadable, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(page)
    if options.open:
        webbrowser.open(page.absolute().as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())
