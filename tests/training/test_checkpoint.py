import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.errors import BadInput
from tuner.training.checkpoint import load, save

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3, dtype=torch.int64), "c": torch.eye(3)[:, :2].T}
STATE: dict[str, Any] = {"epoch": 3, "scaler": {}}


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", TENSORS, STATE)
    tensors, state = load(tmp_path / "checkpoint")
    assert state == STATE
    assert {name: t.tolist() for name, t in tensors.items()} == {name: t.tolist() for name, t in TENSORS.items()}
    assert sorted(p.name for p in (tmp_path / "checkpoint").iterdir()) == ["state.json", "weights.safetensors"]


def test_a_newer_one_replaces_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for epoch in range(3):
        save(tmp_path / "checkpoint", TENSORS, {"epoch": epoch})
    assert load(tmp_path / "checkpoint")[1] == {"epoch": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_crash_while_replacing_leaves_a_whole_one(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "checkpoint", TENSORS, {"epoch": 1})
    real, done = Path.rename, list[Path]()

    def crash(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return real(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", crash)
        save(tmp_path / "checkpoint", TENSORS, {"epoch": 2})
    assert load(tmp_path / "checkpoint")[1] == {"epoch": 1}
    save(tmp_path / "checkpoint", TENSORS, {"epoch": 3})
    assert load(tmp_path / "checkpoint")[1] == {"epoch": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def change_the_state(path: Path) -> None:
    content = json.loads(path.read_text())
    content["state"]["epoch"] = 99
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("weights.safetensors", flip_a_byte, "was changed after it was written"),
        (
            "weights.safetensors",
            lambda path: path.write_bytes(path.read_bytes()[:-4]),
            r"has \d+ bytes, \d+ were written",
        ),
        ("weights.safetensors", Path.unlink, "weights.safetensors is missing"),
        ("state.json", change_the_state, "was changed after it was written"),
        ("state.json", lambda path: path.write_text('{"state": {'), "is no state of a checkpoint"),
        ("state.json", lambda path: path.write_text("[]"), "is no state of a checkpoint"),
    ],
)
def test_damage_is_named(file: str, damage: Any, message: str, tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", TENSORS, STATE)
    damage(tmp_path / "checkpoint" / file)
    with pytest.raises(BadInput, match=message):
        load(tmp_path / "checkpoint")


def test_a_checkpoint_that_never_was_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no checkpoint"):
        load(tmp_path / "checkpoint")


def test_a_state_that_is_no_strict_json_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", TENSORS, STATE)
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path / "checkpoint", TENSORS, {"loss": float("nan")})
    assert load(tmp_path / "checkpoint")[1] == STATE
