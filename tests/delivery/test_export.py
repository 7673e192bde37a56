"""Each form gives the network's own probabilities for any batch; what does not is not left; what is odd is refused."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx.external_data_helper import set_external_data
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

from tuner.delivery.exporting import export as exporting
from tuner.delivery.exporting.export import TOLERANCE, export_model
from tuner.delivery.exporting.onnx_model import KEY, add_about, open_onnx, write_onnx
from tuner.delivery.model import Model, Shipped, open_model, open_torch
from tuner.delivery.pictures import open_split
from tuner.delivery.place import Place, find_model
from tuner.delivery.predictions import batches
from tuner.errors import BadInput
from tuner.spec.model import AnyModel
from tuner.training.decode import decode
from tuner.training.networks import make_network


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything of the run's best trial; never written to."""
    folder = tmp_path_factory.mktemp("export") / "export"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert not export_model(open_torch(trained), folder).failed
    return folder


@pytest.fixture
def file(exported: Path, tmp_path: Path) -> Path:
    """A copy of its ONNX file."""
    return Path(shutil.copy(exported / "model.onnx", tmp_path))


def noise(count: int, size: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), 1).numpy()
    return found


def read(folder: Path) -> dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]]:
    """The forms in a folder as somebody reads them who has nothing of ours, but for the network in safetensors."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    program = torch.export.load(folder / "model.pt2").module()
    return {
        "safetensors": open_model(folder).logits,
        "onnx": lambda pixels: session.run(["logits"], {"pixels": pixels})[0],
        "torch": lambda pixels: program(torch.from_numpy(pixels)).detach().numpy(),
    }


@pytest.mark.parametrize("form", ["safetensors", "onnx", "torch"])
def test_each_form_gives_the_probabilities_of_the_trial_for_any_batch(form: str, exported: Path, model: Model) -> None:
    shapes = np.resize(next(batches(open_split(model.place, model.about, "validation", "test"), 64)), (64, 16, 16, 3))
    for count in (1, 3, 64):
        found, truth = read(exported)[form](shapes[:count]), model.logits(shapes[:count])
        np.testing.assert_allclose(probabilities(found), probabilities(truth), rtol=0, atol=TOLERANCE)
    assert probabilities(truth).std() > 500 * TOLERANCE  # it does tell them apart


@pytest.mark.slow
@pytest.mark.parametrize("section", [{"name": "resnet"}, {"name": "backbone", "arch": "resnet18", "weights": "none"}])
def test_other_networks_too(section: dict[str, Any], model: Model, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TypeAdapter[AnyModel](AnyModel).validate_python(section)
    network = make_network(config, classes=3, in_channels=3, image_size=32)
    params = sum(parameter.numel() for parameter in network.parameters())
    about = model.about.model_copy(update={"model": config, "image_size": 32, "params": params})
    other = replace(
        model, about=about, network=Shipped(network, about.mean, about.std).eval(), place=Place(tmp_path, "model")
    )
    assert not export_model(other, tmp_path / "export").failed
    for judge in read(tmp_path / "export").values():
        for count in (1, 3, 64):
            found, truth = probabilities(judge(noise(count, 32))), probabilities(other.logits(noise(count, 32)))
            np.testing.assert_allclose(found, truth, rtol=0, atol=TOLERANCE)


def test_no_file_holds_a_path_of_this_machine(exported: Path) -> None:
    parts = [path.read_bytes() for path in exported.iterdir()]
    with zipfile.ZipFile(exported / "model.pt2") as archive:
        parts += [archive.read(name) for name in archive.namelist()]
    assert not any(part.count(str(Path.cwd()).encode()) + part.count(b"/tuner/") for part in parts)


def test_every_snippet_of_the_card_runs_and_sees_the_same_class(
    exported: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "export"))
    monkeypatch.chdir(folder)
    Image.fromarray(noise(1, 90)[0]).resize((300, 200)).save("photo.jpg")
    truth = model.about.classes[model.logits(decode("photo.jpg", 16, model.about.resize, 3)[None])[0].argmax()]
    snippets = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    for snippet in snippets:
        exec(snippet, {})
    assert len(snippets) == 4 and capsys.readouterr().out.split() == 4 * [truth]


# ---------------------------------------------------------------- what does not pass


class Branching(torch.nn.Module):
    """Takes another way by a value, which no traced program can."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else images.clone())  # type: ignore[no-any-return]


class Wavering(torch.nn.Module):
    """Never says the same twice."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.randn(3)  # type: ignore[no-any-return]


def change(model: Model, kind: type) -> None:
    network = model.network.network
    network.__class__ = type(kind.__name__, (kind, type(network)), {})


def test_a_form_that_cannot_be_written_is_said_and_the_others_stay(
    model: Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(model, Branching)
    found = export_model(model, tmp_path)
    assert capfd.readouterr() == ("", "")  # not the exporter's graphs
    assert [form.name for form in found.failed] == ["onnx", "torch"] and "torch.export" in found.failed[0].problem
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "model.json", "model.safetensors"]


def test_a_form_whose_probabilities_differ_is_not_left(model: Model, tmp_path: Path) -> None:
    change(model, Wavering)
    found = export_model(model, tmp_path, ["torch"])
    assert "differs by" in found.failed[0].problem and not list(tmp_path.iterdir())


def test_a_failed_form_ends_the_command_with_1(run: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exporting.WRITERS, "onnx", lambda *_: lambda pixels: np.full((len(pixels), 3), np.nan))
    code, out, _ = call("export", run, "--format", "safetensors", "--format", "onnx", "--json")
    forms = json.loads(out)["forms"]
    assert code == 1 and "differs by nan" in forms["onnx"]["problem"] and forms["safetensors"]["problem"] is None
    assert open_model(run / "final" / "export").about.origin.trial == find_model(run).trial


# ---------------------------------------------------------------- the folder


def test_an_export_replaces_an_earlier_one_whole(exported: Path, model: Model, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "export"))
    export_model(model, folder, ["safetensors"])
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.json", "model.safetensors"]
    assert "model.onnx" not in (folder / "README.md").read_text()


def test_what_no_export_wrote_is_not_overwritten(model: Model, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my project")
    with pytest.raises(BadInput, match="no export wrote"):
        export_model(model, tmp_path)
    (tmp_path / "README.md").unlink()
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(BadInput, match=r"model\.onnx that no export wrote"):
        export_model(model, tmp_path)


def test_a_model_is_not_exported_over_itself(exported: Path) -> None:
    with pytest.raises(BadInput, match="the model itself"):
        export_model(open_torch(exported), exported)


def test_outside_a_run_it_is_compared_on_noise_and_says_so(exported: Path, tmp_path: Path) -> None:
    found = export_model(open_torch(exported), tmp_path, ["safetensors"])
    assert (found.images, found.note) == ("64 images of noise", "the model lies in no run")


def test_where_the_images_are_gone_the_card_does_not_say_where_they_lay(run: Path, model: Model) -> None:
    said = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**said, "data": {**said["data"], "root": "/home/somebody/images"}}))
    found = export_model(open_torch(run), run / "final" / "export", ["safetensors"])
    assert "/home/somebody/images" in found.note and not found.failed
    assert "somebody" not in (run / "final" / "export" / "README.md").read_text()


def test_in_a_run_it_is_compared_on_validation_images(exported: Path) -> None:
    assert "compared with the network on 48 validation images" in (exported / "README.md").read_text()


def test_the_command_says_where_the_card_is(run: Path, call: Any) -> None:
    code, out, _ = call("export", run, "--format", "safetensors")
    assert code == 0 and "README.md" in out and "48 validation images" in out
    code, _, err = call("export", run, "--format", "pickle")
    assert code == 2 and "safetensors, onnx, torch" in err


# ---------------------------------------------------------------- ONNX files


def test_an_onnx_file_says_what_it_is(file: Path, model: Model) -> None:
    proto = onnx.load(file)
    assert [(entry.version, entry.domain) for entry in proto.opset_import] == [(20, "")]
    about = open_model(file).about
    assert about.classes == model.about.classes and about.origin.trial == model.about.origin.trial and not about.files


def rewrite(edit: Callable[[Any], object]) -> Callable[[Path], object]:
    def damage(file: Path) -> None:
        proto = onnx.load(file)
        edit(proto)
        file.write_bytes(proto.SerializeToString())

    return damage


def move_out(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")


def ask_for_more(proto: Any) -> None:
    """The graph says 3 classes, its last layer gives 5."""
    weights = next(tensor for tensor in proto.graph.initializer if list(tensor.dims[:1]) == [3])
    weights.dims[0] = 5
    weights.raw_data = weights.raw_data + bytes(2 * len(weights.raw_data) // 3)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "damaged"),
        (lambda file: file.write_bytes(b""), "damaged"),
        (lambda file: file.write_text("no model"), "damaged"),
        (rewrite(lambda proto: proto.ClearField("metadata_props")), "hypertune export"),
        (rewrite(lambda proto: onnx.helper.set_model_props(proto, {KEY: "{}"})), "name: Field required"),
        (rewrite(move_out), "other files"),
        (rewrite(lambda proto: proto.graph.input.add(name="more")), "damaged"),
        (rewrite(lambda proto: setattr(proto.graph.input[0].type.tensor_type, "elem_type", 1)), "pixels float"),
        (rewrite(lambda p: setattr(p.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 9)), "batch, 9"),
        (rewrite(ask_for_more), "damaged|cannot run it"),
        (rewrite(lambda proto: setattr(proto.opset_import[0], "version", 99)), "cannot run it|damaged"),
    ],
)  # fmt: skip
def test_an_odd_onnx_file_is_refused(damage: Callable[[Path], object], said: str, file: Path) -> None:
    damage(file)
    with pytest.raises(BadInput, match=said):
        open_model(file).logits(noise(2))


def test_about_is_added_to_a_file_of_the_right_shapes_only(file: Path, model: Model) -> None:
    rewrite(lambda proto: proto.ClearField("metadata_props"))(file)
    add_about(file, model.about.model_copy(update={"notes": ("int8",)}))
    assert open_model(file).about.notes == ("int8",)
    with pytest.raises(BadInput, match="its output is"):
        add_about(file, model.about.model_copy(update={"classes": ("a", "b")}))


def test_a_device_that_is_not_there_is_refused(file: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has it here")
    with pytest.raises(BadInput, match="onnxruntime-gpu"):
        open_onnx(find_model(file), device="cuda")


def test_threads_are_those_that_were_asked_for(file: Path) -> None:
    session = open_onnx(find_model(file), threads=3).session
    assert session.get_session_options().intra_op_num_threads == 3


def test_more_than_one_file_can_hold_is_refused_before_it_is_traced(model: Model, tmp_path: Path) -> None:
    large = replace(model, about=model.about.model_copy(update={"params": 600_000_000}))
    with pytest.raises(BadInput, match="one ONNX file holds 2 GB"):
        write_onnx(tmp_path / "model.onnx", large)
