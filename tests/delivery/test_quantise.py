"""int8 judges as fp32 does on nearly all images, in smaller files that open like any other of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from tuner.delivery.compressing.quantise import (
    linear_share,
    quantise_dynamic,
    quantise_linear,
    quantise_static,
    state_bytes,
)
from tuner.delivery.exporting.onnx_model import write_onnx
from tuner.delivery.model import Model, open_model, open_torch
from tuner.delivery.pictures import open_run
from tuner.errors import Infeasible


@pytest.fixture(scope="module")
def images(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """The training images of the run."""
    model = open_torch(trained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        dataset = open_run(model.place, model.about)
    return np.asarray(dataset.images[dataset.train])


@pytest.fixture(scope="module")
def source(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as ONNX."""
    file = tmp_path_factory.mktemp("source") / "original.onnx"
    write_onnx(file, open_torch(trained))
    return file


def test_static_int8_agrees_with_torch_on_nearly_all_images(
    model: Model, source: Path, images: NDArray[np.uint8]
) -> None:
    target = source.with_name("int8.onnx")
    quantise_static(source, target, open_model(source).about, images)
    found, expected = open_model(target).logits(images), model.logits(images)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95
    assert not np.array_equal(found, expected) and open_model(target).about.classes == model.about.classes


def test_static_int8_rounds_the_layers_but_neither_the_normalised_images_nor_the_logits(
    source: Path, images: NDArray[np.uint8]
) -> None:
    target = source.with_name("int8-64.onnx")
    quantise_static(source, target, open_model(source).about, images[:64])
    graph = onnx.load(target).graph
    nodes = list(graph.node)
    kinds = [node.op_type for node in nodes]
    assert "QuantizeLinear" not in kinds[: kinds.index("Add")] and nodes[-1].output == ["logits"]
    assert kinds[-1] in ("Gemm", "MatMul", "Add")
    weights = [
        np.abs(onnx.numpy_helper.to_array(t)).max()
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and t.dims
    ]
    assert weights and max(weights) == 64  # 7 bits


def test_dynamic_int8_changes_matrix_products_alone(model: Model, source: Path, images: NDArray[np.uint8]) -> None:
    target = source.with_name("dynamic.onnx")
    quantise_dynamic(source, target, open_model(source).about)
    kinds = [node.op_type for node in onnx.load(target).graph.node]
    assert "MatMulInteger" in kinds and "Conv" in kinds and "ConvInteger" not in kinds
    agreed = open_model(target).logits(images).argmax(1) == model.logits(images).argmax(1)
    assert agreed.mean() > 0.95


def test_torchao_holds_linear_weights_in_a_quarter_of_the_bytes(model: Model, images: NDArray[np.uint8]) -> None:
    changed = quantise_linear(model)
    linear = sum(layer.weight.numel() for layer in model.network.modules() if isinstance(layer, torch.nn.Linear))
    saved = state_bytes(model.network) - state_bytes(changed.network)
    assert linear_share(model.network) == pytest.approx(linear / model.about.params)
    assert saved == 3 * linear - 5 * len(model.about.classes)  # a scale and a zero point for each class
    assert (changed.logits(images).argmax(1) == model.logits(images).argmax(1)).mean() > 0.95


def test_what_onnxruntime_cannot_do_is_said_in_one_line(tmp_path: Path, model: Model) -> None:
    (tmp_path / "no.onnx").write_text("no model")
    with pytest.raises(Infeasible):
        quantise_static(tmp_path / "no.onnx", tmp_path / "made.onnx", model.about, np.zeros((1, 16, 16, 3), np.uint8))
    assert not (tmp_path / "made.onnx").exists()
