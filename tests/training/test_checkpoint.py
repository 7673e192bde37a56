import errno
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tuner.errors import BadInput
from tuner.training.checkpoint import copy, load, name, newest, prune, save

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


class Killed(BaseException):
    """No handler of errors sees it, as none sees SIGKILL."""


class Torn:
    """A file of which a crash in mid-write leaves half."""

    def __init__(self, file: Any, step: Callable[[], None]) -> None:
        self.file, self.step = file, step

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        self.file.write(data[: len(data) // 2])
        self.step()
        return int(self.file.write(data[len(data) // 2 :]))


OPERATIONS = ("mkdir", "open", "fsync", "rename", "unlink", "rmdir", "link")


def count_operations(patch: pytest.MonkeyPatch, fails: int, how: Literal["fail", "kill"]) -> list[str]:
    """From now on the N-th operation on files fails as on a full disk, or is the last one but for its half done."""
    done: list[str] = []

    def step(name: str) -> None:
        done.append(name)
        if how == "kill" and len(done) >= fails:
            raise Killed
        if len(done) == fails:
            raise OSError(errno.ENOSPC, "No space left on device")

    def wrap(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            step(name)
            result = real(*args, **options)
            return Torn(result, lambda: step("write")) if module is io and "w" in args[1] else result

        patch.setattr(module, name, call)

    for each in OPERATIONS:
        wrap(os, each)
    wrap(io, "open")
    return done


def attempt(action: Callable[[], None], fails: int, how: Literal["fail", "kill"]) -> int:
    """Do it with a crash at its N-th operation on files; 0 when it got through."""
    with pytest.MonkeyPatch.context() as patch:
        done = count_operations(patch, fails, how)
        try:
            action()
        except (Killed, OSError):
            return len(done)
    return 0 if len(done) < fails else len(done)


def crashes(prepare: Callable[[Path], Callable[[], None]], root: Path, how: Literal["fail", "kill"]) -> Iterator[Path]:
    """The folder that each crash of the action leaves, for its first, second, ... operation on files."""
    for fails in itertools.count(1):
        (folder := root / str(fails)).mkdir()
        if not attempt(prepare(folder), fails, how):
            assert fails > 5
            return
        yield folder


@pytest.mark.parametrize("how", ["fail", "kill"])
def test_a_crash_anywhere_while_replacing_leaves_a_whole_one(how: Literal["fail", "kill"], tmp_path: Path) -> None:
    def replace(folder: Path) -> Callable[[], None]:
        save(folder / "checkpoint", TENSORS, {"epoch": 1})
        return lambda: save(folder / "checkpoint", TENSORS, {"epoch": 2})

    epochs = []
    for folder in crashes(replace, tmp_path, how):
        epochs.append(load(folder / "checkpoint")[1]["epoch"])
        attempt(partial(save, folder / "checkpoint", TENSORS, {"epoch": 3}), 9, how)  # and again
        assert load(folder / "checkpoint")[1]["epoch"] in (epochs[-1], 3)
        save(folder / "checkpoint", TENSORS, {"epoch": 3})
        assert load(folder / "checkpoint")[1] == {"epoch": 3}
        assert [path.name for path in folder.iterdir()] == ["checkpoint"]
    assert epochs == sorted(epochs) and set(epochs) == {1, 2}


@pytest.mark.parametrize("how", ["fail", "kill"])
def test_a_crash_anywhere_between_two_epochs_leaves_one_to_go_on_from(
    how: Literal["fail", "kill"], tmp_path: Path
) -> None:
    def go_on(folder: Path, epoch: int) -> None:
        save(folder / name(epoch), TENSORS, {"epoch": epoch})
        prune(folder, 2, last=name(epoch))

    def third(folder: Path) -> Callable[[], None]:
        for epoch in (1, 2):
            go_on(folder, epoch)
        return lambda: go_on(folder, 3)

    for folder in crashes(third, tmp_path, how):
        epoch = int(load(folder / newest(folder)[0])[1]["epoch"])
        assert epoch in (2, 3)
        for later in (epoch + 1, epoch + 2):
            go_on(folder, later)
        assert sorted(path.name for path in folder.iterdir()) == [name(epoch + 1), name(epoch + 2)]


@pytest.mark.parametrize("how", ["fail", "kill"])
def test_a_crash_anywhere_while_copying_leaves_the_whole_copy_or_none(
    how: Literal["fail", "kill"], tmp_path: Path
) -> None:
    save(tmp_path / "source", TENSORS, STATE)
    for folder in crashes(lambda folder: lambda: copy(tmp_path / "source", folder / "given_000003"), tmp_path, how):
        assert not (folder / "given_000003").exists() or load(folder / "given_000003")[1] == STATE
        copy(tmp_path / "source", folder / "given_000003")
        assert load(folder / "given_000003")[1] == STATE
        assert [path.name for path in folder.iterdir()] == ["given_000003"]


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_outlives_its_source(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    save(tmp_path / "source", TENSORS, STATE)
    save(tmp_path / "target", TENSORS, {"epoch": 1})
    copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "source" / "state.json").samefile(tmp_path / "target" / "state.json") == links
    save(tmp_path / "source", {"a": torch.zeros(9)}, {})
    shutil.rmtree(tmp_path / "source")
    tensors, state = load(tmp_path / "target")
    assert state == STATE and set(tensors) == set(TENSORS)


def test_a_copy_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy(tmp_path / "source", tmp_path / "target")
    assert not list(tmp_path.iterdir())


def test_what_is_on_disk_has_its_name_only_after_it_was_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = count_operations(monkeypatch, 0, "fail")
    save(tmp_path / "checkpoint", TENSORS, STATE)
    monkeypatch.undo()
    writes, rename = [i for i, each in enumerate(done) if each == "write"], done.index("rename")
    assert len(writes) == 2 and all("fsync" in done[i:j] for i, j in zip(writes, [*writes[1:], rename], strict=True))
    assert done[:rename].count("fsync") == 3  # both files, and the folder that names them
    assert done[rename:].count("fsync") == 1  # the folder that names that one


def test_numbered_checkpoints_are_listed_newest_first(tmp_path: Path) -> None:
    names = [
        "checkpoint_000009",
        "checkpoint_1000000",
        "checkpoint_000010",
        "checkpoint_best",
        ".checkpoint_000011.new",
    ]
    for each in (*names, "given_000012"):
        (tmp_path / each).mkdir()
    assert newest(tmp_path) == ["checkpoint_1000000", "checkpoint_000010", "checkpoint_000009"]
    assert newest(tmp_path / "nowhere") == []


def test_what_did_not_load_is_pruned_with_what_is_old(tmp_path: Path) -> None:
    for epoch in (3, 4, 5, 8, 9):
        save(tmp_path / name(epoch), TENSORS, STATE)
    prune(tmp_path, 2, last=name(5))
    assert newest(tmp_path) == [name(5), name(4)]


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def put_a_folder_there(path: Path) -> None:
    path.unlink()
    path.mkdir()


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
        ("weights.safetensors", put_a_folder_there, "weights.safetensors cannot be read"),
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
