"""Images of the user's own as an npz file, a csv of paths, or a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tuner.errors import BadInput
from tuner.spec.data import Data
from tuner.training.datasets import open_dataset, open_test, prepare
from tuner.training.sources import find_source

PIXELS = np.repeat(np.arange(20, dtype=np.uint8), 64).reshape(20, 8, 8)
LABELS = np.arange(20) % 2
FRUIT = ["apple", "banana"]
Save = Callable[..., Data]


@pytest.fixture
def npz(tmp_path: Path) -> Save:
    def save(**arrays: Any) -> Data:
        np.savez(tmp_path / "images.npz", **arrays)
        return Data(dataset="npz", root=str(tmp_path / "images.npz"))

    return save


def refusal(data: Data) -> str:
    with pytest.raises(BadInput) as caught:
        find_source(data, 0)
    return str(caught.value)


def test_arrays_become_images_with_their_labels(npz: Save, tmp_path: Path) -> None:
    data = npz(images=PIXELS, labels=LABELS + 5)
    prepared = prepare(data, 0, tmp_path / "cache")
    opened = open_dataset(prepared.folder, data, 0)
    assert opened.classes == ("5", "6") and opened.images.shape[1:] == (8, 8, 1)
    brightness = opened.images[np.arange(len(opened.labels))].mean(axis=(1, 2, 3)).round().astype(int)
    assert np.array_equal(brightness % 2, opened.labels) and prepared.facts.test == 4


def test_splits_by_prefix_are_used_as_they_are(npz: Save, tmp_path: Path) -> None:
    """The form of MedMNIST: labels of shape (N, 1)."""
    parts = {"train": slice(0, 10), "val": slice(10, 16), "test": slice(16, 20)}
    arrays = {f"{p}_images": PIXELS[s] for p, s in parts.items()} | {
        f"{p}_labels": LABELS[s, None] for p, s in parts.items()
    }
    facts = prepare(npz(**arrays), 0, tmp_path / "cache").facts
    assert (facts.train, facts.validation, facts.test) == (10, 6, 4)


def test_class_names_beside_the_arrays(npz: Save) -> None:
    named = npz(images=PIXELS, labels=LABELS, classes=np.array(["cat", "dog", "cow"]))
    assert find_source(named, 0).load().classes == ("cat", "dog", "cow")
    worded = npz(images=PIXELS, labels=np.where(LABELS, "x", "a"))
    assert find_source(worded, 0).load().classes == ("a", "x")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": PIXELS / 255, "labels": LABELS}, "must be uint8, 0 to 255, not float64 .*multiply by 255"),
        ({"images": PIXELS[0], "labels": LABELS}, r"must have the shape \(N, height, width\)"),
        ({"images": np.zeros((20, 3, 8, 8), np.uint8), "labels": LABELS}, "move the channels to the end"),
        ({"images": PIXELS, "labels": LABELS[:7]}, "train: 20 images, but 7 labels"),
        ({"images": PIXELS, "labels": LABELS / 2}, "labels must be whole numbers or text"),
        ({"images": PIXELS, "labels": np.eye(20)}, r"of shape \(N,\), not float64 \(20, 20\)"),
        ({"images": PIXELS}, "no array labels"),
        ({"x": PIXELS, "y": LABELS}, "no array images and none labels; it has x, y"),
        ({"images": PIXELS, "labels": LABELS, "train_images": PIXELS}, "both images and train_images"),
        (
            {"train_images": PIXELS, "train_labels": LABELS, "val_images": PIXELS[:, :4], "val_labels": LABELS},
            "the splits differ",
        ),
        ({"images": PIXELS, "labels": LABELS * 0}, "only 1 class"),
        ({"images": PIXELS, "labels": LABELS + 1, "classes": ["a", "b"]}, "labels are 0 to 1"),
        ({"images": PIXELS, "labels": LABELS, "classes": ["a", "a"]}, "classes: a more than once"),
        (
            {"images": PIXELS, "labels": LABELS, "classes": np.array(2)},
            r"classes must be .* of shape \(N,\), not int64",
        ),
        (
            {"images": PIXELS, "labels": np.array(FRUIT)[LABELS], "classes": ["a", "b"]},
            "apple, banana: classes does no",
        ),
    ],
)
def test_arrays_of_another_kind_are_refused(npz: Save, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        find_source(npz(**arrays), 0)


def test_an_unknown_label_in_a_later_split(npz: Save) -> None:
    given = {"train_images": PIXELS, "train_labels": LABELS, "test_images": PIXELS, "test_labels": LABELS + 1}
    assert "test labels: 2: no training image has it" in refusal(npz(**given))


@pytest.mark.parametrize("stranger", ["catfish", "dogfish", "ca"])
def test_text_is_a_class_only_as_a_whole(npz: Save, stranger: str) -> None:
    train, test = np.array(["cat", "dog"])[LABELS], np.array([stranger, "dog"])[LABELS]
    given = {"train_images": PIXELS, "train_labels": train, "test_images": PIXELS, "test_labels": test}
    assert f"test labels: {stranger}: no training image has it" in refusal(npz(**given))


def test_text_in_one_split_and_numbers_in_another(npz: Save) -> None:
    given = {"train_images": PIXELS, "train_labels": LABELS, "test_images": PIXELS, "test_labels": LABELS.astype("U")}
    assert "test labels are <U21, train labels int64; all text, or all numbers" in refusal(npz(**given))


def test_a_file_that_is_no_npz_or_holds_objects(npz: Save, tmp_path: Path) -> None:
    assert "cannot be read" in refusal(npz(images=PIXELS, labels=np.array([{}] * 20, dtype=object)))
    for content in (b"no zip", b""):
        (tmp_path / "images.npz").write_bytes(content)
        said = refusal(Data(dataset="npz", root=str(tmp_path / "images.npz")))
        assert "cannot be read" in said and "pickle" not in said
    assert "cannot be read" in refusal(Data(dataset="npz", root=str(tmp_path / "gone.npz")))
    np.save(tmp_path / "alone.npy", PIXELS)
    message = refusal(Data(dataset="npz", root=str(tmp_path / "alone.npy")))
    assert "a single array without a name; save it and its labels with np.savez" in message


def test_a_compressed_file_that_is_damaged(npz: Save, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "images.npz", images=PIXELS, labels=LABELS)
    content = bytearray((tmp_path / "images.npz").read_bytes())
    content[60:80] = b"\xff" * 20  # inside the first array
    (tmp_path / "images.npz").write_bytes(content)
    assert "cannot be read" in refusal(Data(dataset="npz", root=str(tmp_path / "images.npz")))


@pytest.mark.parametrize("kind", ["npz", "csv", "image_folder"])
def test_the_home_of_nobody_is_a_name_like_any_other(kind: str) -> None:
    assert "~nobody-of-that-name/x" in refusal(Data.model_validate({"dataset": kind, "root": "~nobody-of-that-name/x"}))


# ---------------------------------------------------------------- csv


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Data]:
    """Saves a csv beside the grey images 0.png to 19.png."""
    (tmp_path / "grey").mkdir()
    for value in range(20):
        Image.fromarray(PIXELS[value]).save(tmp_path / "grey" / f"{value}.png")

    def save(text: str) -> Data:
        (tmp_path / "images.csv").write_text(text)
        return Data(dataset="csv", root=str(tmp_path / "images.csv"))

    return save


def lines(header: str, line: str) -> str:
    return "\n".join([header, *(line.format(i=i, c="ab"[i % 2], s="train" if i < 12 else "test") for i in range(20))])


def test_a_csv_lists_paths_beside_it(table: Callable[[str], Data], tmp_path: Path) -> None:
    data = table(lines("path,label", "grey/{i}.png,{c}"))
    opened = open_dataset(prepare(data, 0, tmp_path / "cache").folder, data, 0)
    brightness = opened.images[np.arange(len(opened.labels))].mean(axis=(1, 2, 3)).astype(int)
    assert opened.classes == ("a", "b") and np.array_equal(brightness % 2, opened.labels)


def test_a_csv_with_splits(table: Callable[[str], Data], tmp_path: Path) -> None:
    prepared = prepare(table(lines("label,split,path", "{c},{s},grey/{i}.png")), 0, tmp_path / "cache")
    assert (prepared.facts.train, prepared.facts.validation, prepared.facts.test) == (10, 2, 8)
    assert [int(image.mean()) for image in open_test(prepared.folder)[0]] == list(range(12, 20))  # type: ignore[union-attr]


def test_labels_that_are_numbers_are_in_their_order(table: Callable[[str], Data]) -> None:
    data = table("path,label\n" + "\n".join(f"grey/{i}.png,{(10, 9)[i % 2]}" for i in range(20)))
    assert find_source(data, 0).load().classes == ("9", "10")


def test_labels_that_only_look_like_numbers_are_text(table: Callable[[str], Data]) -> None:
    data = table("path,label\n" + "\n".join(f"grey/{i}.png,{('--3', '4')[i % 2]}" for i in range(20)))
    assert find_source(data, 0).load().classes == ("--3", "4")


def test_paths_of_a_csv_that_no_file_can_have(table: Callable[[str], Data]) -> None:
    message = refusal(table("path,label\ngrey/0.png,a\n~$x.png,a\ngrey/\0.png,b\ngrey/1.png,b"))
    assert "csv:3:0: no such file, or an empty one: " in message and "~$x.png" in message
    assert r"csv:4:0: the path 'grey/\x00.png' has a NUL in it" in message


def test_a_csv_tells_all_its_mistakes_with_their_lines(table: Callable[[str], Data]) -> None:
    text = (
        "path,label,split\ngrey/0.png,a,train\ngrey/1.png,b,train\ngone.png,a,train\ngrey/2.png,,train\n"
        "grey/3.png,a,tset\ngrey/0.png,b,train\ngrey/4.png,c,test"
    )
    message = refusal(table(text))
    for expected in (
        "csv:4:0: no such file, or an empty one: ",
        "csv:5:0: no label",
        "csv:6:0: split must be train, val or test, not 'tset'; did you mean test?",
        "csv:7:0: grey/0.png is on line 2 already",
        "csv:8:0: label 'c': no training image has it, only test",
    ):
        assert expected in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\n", "no column 'path'; it has file, label"),
        ("", "no column 'path'; it is empty"),
        ("path,label\n", "no images are listed"),
        ("path,label\ngrey/0.png,a\n", "only one class, 'a'"),
    ],
)
def test_a_csv_without_what_it_needs(table: Callable[[str], Data], text: str, words: str) -> None:
    assert words in refusal(table(text))


def test_a_changed_file_of_a_csv_is_seen(table: Callable[[str], Data], tmp_path: Path) -> None:
    data = table(lines("path,label", "grey/{i}.png,{c}"))
    before = prepare(data, 0, tmp_path / "cache").facts.fingerprint
    Image.new("L", (8, 8), 255).save(tmp_path / "grey" / "0.png")
    assert prepare(data, 0, tmp_path / "cache").facts.fingerprint != before


# ---------------------------------------------------------------- a function of the user's own


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Data]:
    """A configuration that names a function with this body; `images` and `labels` are there to be returned."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body: str, **fields: Any) -> Data:
        name = f"mine_{abs(hash((body, tmp_path)))}"
        head = "import numpy as np\nimages = np.repeat(np.arange(20, dtype=np.uint8), 64).reshape(20, 8, 8)\n"
        (tmp_path / f"{name}.py").write_text(f"{head}labels = np.arange(20) % 2\ndef load(**arguments):\n    {body}\n")
        return Data.model_validate({"dataset": f"{name}:load", **fields})

    return write


def test_a_function_returns_images_and_labels(function: Callable[..., Data], tmp_path: Path) -> None:
    data = function("return images, labels")
    facts = prepare(data, 0, tmp_path / "cache").facts
    assert facts.classes == ("0", "1") and facts.train + facts.validation + facts.test == 20


def test_a_function_returns_splits_and_class_names(function: Callable[..., Data]) -> None:
    body = "return {'train': (images, labels), 'test': (images[:6], labels[:6]), 'classes': ['no', 'yes']}"
    piles = find_source(function(body), 0).load()
    assert piles.classes == ("no", "yes") and piles.test is not None and len(piles.test.labels) == 6


def test_a_function_returns_paths(function: Callable[..., Data], tmp_path: Path, table: Callable[[str], Data]) -> None:
    body = "return [f'{arguments[\"root\"]}/{i}.png' for i in range(20)], ['ab'[i % 2] for i in range(20)]"
    data = function(body, root=str(tmp_path / "grey"))
    opened = open_dataset(prepare(data, 0, tmp_path / "cache").folder, data, 0)
    brightness = opened.images[np.arange(len(opened.labels))].mean(axis=(1, 2, 3)).astype(int)
    assert np.array_equal(brightness % 2, opened.labels)


def test_arguments_reach_the_function_and_decide_what_is_kept(function: Callable[..., Data], tmp_path: Path) -> None:
    body = "return images[:arguments['count']], labels[:arguments['count']]"
    first, second = (function(body, arguments={"count": count}) for count in (10, 16))
    prepared = [prepare(data, 0, tmp_path / "cache") for data in (first, second, first)]
    assert prepared[0] == prepared[2] and prepared[0].folder != prepared[1].folder
    assert [p.facts.train + p.facts.validation + p.facts.test for p in prepared[:2]] == [10, 16]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('nothing')", "load() fails: KeyError: 'nothing'"),
        ("return 3", "must return (images, labels) for train, not int"),
        ("return {'test': (images, labels)}", "returns no train"),
        ("return {'train': (images, labels), 'validation': 3}", "returns validation; it may return train, val, test"),
        ("return images.astype(float), labels", "must be uint8"),
        ("return [3, 4], [0, 1]", "paths of files, not a list of int"),
        ("return [], []", "not list"),
        ("return {'train': (images, labels), 'classes': 2}", "classes must be whole numbers or text of shape (N,)"),
        ("return {'train': (images, labels), 'classes': ['a', None]}", "classes must be whole numbers or text"),
        ("return images, [[1], [2, 3]] * 10", "train labels must be whole numbers or text of shape (N,), not list: "),
    ],
)
def test_a_function_that_breaks_its_promise(function: Callable[..., Data], body: str, words: str) -> None:
    assert words in refusal(function(body))


def test_a_path_that_no_file_can_have(function: Callable[..., Data], tmp_path: Path) -> None:
    data = function("return ['~$x.png', 'a\\0.png'] * 10, labels", image_size=8)
    with pytest.raises(BadInput, match="20 of 20 images cannot be read"):
        prepare(data, 0, tmp_path / "cache")


def test_a_function_that_is_not_there() -> None:
    assert "data.dataset" in refusal(Data(dataset="no_such_module_at_all:load"))
