"""What may be asked of a run that exists."""

from __future__ import annotations

import pytest

from tuner.errors import BadInput
from tuner.spec.wish import Wish


@pytest.mark.parametrize(
    ("wish", "sets"),
    [
        (Wish(), []),
        (Wish(trials="+20"), ["search.trials=38"]),
        (Wish(trials="40"), ["search.trials=40"]),
        (Wish(time="+1h"), ["search.time=3690s"]),
        (Wish(time="2h"), ["search.time=7200s"]),
    ],
)
def test_more_is_added_to_what_was_and_a_bare_number_is_the_whole(wish: Wish, sets: list[str]) -> None:
    assert wish.extensions(trials=18, spent=90.0) == sets


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(trials="more"), "--trials: write \\+20"),
        (Wish(trials="+0"), "--trials: write \\+20"),
        (Wish(trials="10"), "the run has 18 already, got 10"),
        (Wish(time="+1d"), "no duration: '1d'"),
        (Wish(time="1m"), "has taken 90 s already, got 1m; write \\+1m"),
    ],
)
def test_nothing_is_taken_back(wish: Wish, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        wish.extensions(trials=18, spent=90.0)
