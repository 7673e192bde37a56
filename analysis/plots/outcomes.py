"""What became of trials: one word and one colour each, the same in every figure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import style


class Outcome(NamedTuple):
    """How it is called and drawn."""

    words: str
    colour: str


OUTCOMES = {
    "finished": Outcome("finished", style.CATEGORIES[0]),
    "stopped": Outcome("stopped early", style.PALE),
    "lost": Outcome("diverged or failed", style.CATEGORIES[3]),
    "interrupted": Outcome("interrupted", style.CATEGORIES[1]),
    "running": Outcome("running", style.CATEGORIES[2]),
    "later": Outcome("went on later", style.CATEGORIES[4]),
}
_OF_STATE = {"diverged": "lost", "failed": "lost", "out_of_memory": "lost"}


def of(states: pd.Series[str]) -> NDArray[np.str_]:
    """The key in OUTCOMES of each state: diverged, failed and out_of_memory are lost."""
    return states.replace(_OF_STATE).to_numpy(dtype=np.str_)
