"""A process takes its share of a card's memory and no more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tuner.packing.cap import cap_memory


@pytest.fixture
def capped(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A card of 80 bytes; the fractions that torch was told."""
    told: list[float] = []
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: SimpleNamespace(total_memory=80))
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", lambda share, device: told.append(share))
    return told


def test_each_job_sets_its_own_cap(capped: list[float]) -> None:
    for memory in (20, 100, None):
        cap_memory(memory)
    assert capped == [0.25, 1.0, 1.0]


def test_without_a_gpu_nothing_is_touched(capped: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    cap_memory(None)
    assert capped == []
