"""Averaged weights: as by hand, with statistics of their own, and saved only where that is worth something."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tuner.delivery.ensembles import soup
from tuner.delivery.ensembles.members import Candidates, best_single, gather, validation
from tuner.delivery.model import open_model, open_torch, save_model
from tuner.delivery.pictures import open_split
from tuner.delivery.predictions import judge

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def candidates(trained: Path) -> Candidates:
    return gather(trained)


def test_weights_are_averaged_as_by_hand_and_counters_are_not() -> None:
    first = {"weight": torch.tensor([1.0, 2.0]), "steps": torch.tensor(7)}
    second = {"weight": torch.tensor([3.0, 6.0]), "steps": torch.tensor(9)}
    made = soup.average([first, second])
    assert made["weight"].tolist() == [2.0, 4.0] and made["weight"].dtype == torch.float32 and made["steps"] == 7


def test_only_networks_of_one_architecture_are_averaged(candidates: Candidates) -> None:
    names = [each.name for each in candidates.found]
    one, other = names.index("001"), names.index("003")
    assert sorted(names[n] for n in soup.alike(candidates, one)) == ["001", "002"]
    assert soup.alike(candidates, other) == [other]


@pytest.mark.parametrize("what", ["mean", "std"])
def test_networks_that_see_colours_otherwise_are_not_averaged(candidates: Candidates, what: str) -> None:
    first, second = (each for each in candidates.found if each.name in ("001", "002"))
    darker = tuple(value / 2 for value in getattr(second.about, what))
    other = replace(second, about=second.about.model_copy(update={what: darker}))
    assert soup.alike(replace(candidates, found=(first, second)), 0) == [0, 1]
    assert soup.alike(replace(candidates, found=(first, other)), 0) == [0]


def test_statistics_are_those_of_the_training_images(trained: Path) -> None:
    model = open_torch(trained)
    norms = [layer for layer in model.network.modules() if isinstance(layer, nn.BatchNorm2d)]
    training = open_split(model.place, model.about, "train", "test")
    seen = []
    norms[0].register_forward_hook(lambda layer, given, made: seen.append(given[0].detach()))
    soup.renew_statistics(model.network, training, model.device)
    batches = [batch for batch in seen if len(batch) == min(soup.BATCH, len(training))]
    assert norms[0].running_mean is not None and not model.network.training
    expected = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norms[0].running_mean, expected)


def test_a_soup_of_one_network_twice_is_that_network(candidates: Candidates, tmp_path: Path) -> None:
    best = best_single(candidates.right, candidates.truth)
    twice = Candidates(candidates.run, (candidates.found[best],) * 2, candidates.labels, ())
    (made,) = soup.make(twice, 0, tmp_path / "soup")
    model = open_torch(candidates.found[best].place)
    soup.renew_statistics(model.network, open_split(model.place, model.about, "train", "test"), model.device)
    right = judge(model, validation(candidates)).right
    assert made.kind == "uniform" and made.accuracy == right.mean()  # its statistics are new, and no more
    assert made.gain.value == pytest.approx(right.mean() - candidates.right[best].mean())


def test_a_soups_statistics_are_those_of_the_training_images(
    candidates: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_right = np.zeros((3, len(candidates.labels)), dtype=bool)
    monkeypatch.setattr(Candidates, "right", property(lambda self: nothing_right))  # anything is as good
    soup.make(candidates, [each.name for each in candidates.found].index("001"), tmp_path)
    made = open_torch(tmp_path).network
    found = {name: value.clone() for name, value in made.named_buffers() if "running" in name}
    place = candidates.found[0].place
    soup.renew_statistics(made, open_split(place, candidates.found[0].about, "train", "test"), torch.device("cpu"))
    assert found
    for name, value in found.items():
        torch.testing.assert_close(value, made.get_buffer(name))


def test_a_soup_that_is_no_worse_is_saved_and_judges_as_it_was_tasted(
    candidates: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [each.name for each in candidates.found]
    nothing_right = np.zeros((3, len(candidates.labels)), dtype=bool)
    monkeypatch.setattr(Candidates, "right", property(lambda self: nothing_right))  # anything is as good
    (made,) = soup.make(candidates, names.index("001"), tmp_path / "soup")
    assert made.folder == tmp_path / "soup" and sorted(made.names) == ["001", "002"]
    found, place = open_model(made.folder), candidates.found[0].place
    assert "average of those of trials" in found.about.notes[0]
    assert judge(found, open_split(place, found.about, "validation", "test")).right.mean() == made.accuracy


def test_a_soup_that_is_worse_is_not_saved_and_an_earlier_one_goes(
    candidates: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_right = np.ones((3, len(candidates.labels)), dtype=bool)
    monkeypatch.setattr(Candidates, "right", property(lambda self: all_right))  # nothing can be better
    monkeypatch.setattr(soup._Cook, "taste", lambda self, names: np.zeros(len(candidates.labels), dtype=bool))
    names = [each.name for each in candidates.found]
    save_model(tmp_path, open_torch(candidates.found[0].place), notes=(f"{soup.SAID} 1, 2 (uniform soup)",))
    (made,) = soup.make(candidates, names.index("001"), tmp_path)
    assert made.folder is None and made.gain.high < 0 and not list(tmp_path.iterdir())


def test_a_model_that_is_no_soup_stays_where_none_is_saved(candidates: Candidates, tmp_path: Path) -> None:
    save_model(tmp_path, open_torch(candidates.found[0].place))
    names = [each.name for each in candidates.found]
    assert soup.make(candidates, names.index("003"), tmp_path) == ()  # none is like it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_the_greedy_soup_leaves_out_what_makes_it_worse(
    candidates: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = len(candidates.labels)
    three = Candidates(candidates.run, candidates.found[:1] * 3, candidates.labels, ())
    rights = np.array([np.arange(images) < many for many in (30, 29, 28)])
    tastes = {(0, 1, 2): 10, (0, 1): 20, (0, 2): 35}
    monkeypatch.setattr(Candidates, "right", property(lambda self: rights))
    monkeypatch.setattr(soup._Cook, "taste", lambda self, names: np.arange(images) < tastes[tuple(names)])
    uniform, greedy = soup.make(three, 0, tmp_path / "soup")
    assert (uniform.kind, uniform.accuracy, uniform.folder) == ("uniform", 10 / images, None)
    assert (greedy.kind, greedy.accuracy, greedy.folder) == ("greedy", 35 / images, tmp_path / "soup")


def test_the_command_says_what_became_of_the_soup(run: Path, call: Call) -> None:
    code, out, _ = call("ensemble", run)
    assert code == 0 and "\nsoup     " in out and ("averaged reach" in out or "no other trial" in out)
    told = json.loads(call("ensemble", run, "--json")[1])
    assert all((each["folder"] is None) or (run / "final/ensemble/soup/model.json").is_file() for each in told["soups"])
