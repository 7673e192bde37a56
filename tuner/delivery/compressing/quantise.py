"""Quantise: int8 in the place of fp32, for the weights and activations of an ONNX file or linear layers of torch."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tuner.delivery.about import About
from tuner.delivery.exporting.onnx_model import INPUT, OUTPUT, add_about
from tuner.delivery.model import Model, Shipped
from tuner.errors import Infeasible

if TYPE_CHECKING:
    from onnx import GraphProto

CALIBRATION = 512
"""Images whose activations say which range int8 must span."""
BATCH = 64
MATRICES = ["MatMul", "Gemm"]
WEIGHTED = ("Conv", *MATRICES)


def quantise_static(source: Path, target: Path, about: About, images: NDArray[np.uint8]) -> None:
    """An ONNX file with int8 weights and activations, whose ranges are those that `images` (N, S, S, C) give.

    QDQ form, a scale for each channel of the weights. These have 7 bits: with 8 the sums of processors without VNNI
    overflow, and the file would be worse there than it was measured here. Normalisation before the first layer and the
    logits stay fp32: rounded to 256 steps, two classes would often be equal.

    Raises:
        Infeasible: onnxruntime cannot do it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.parts = iter([images[n : n + BATCH] for n in range(0, len(images), BATCH)])

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            part = next(self.parts, None)
            return None if part is None else {INPUT: part}

    with _explained(), tempfile.TemporaryDirectory(prefix="ht-int8-") as scratch:
        ready, made = Path(scratch) / "ready.onnx", Path(scratch) / "made.onnx"
        quant_pre_process(source, ready, skip_symbolic_shape=True)  # shapes, norms folded into their convolutions
        nodes = list(onnx.load(ready).graph.node)
        first = next(n for n, node in enumerate(nodes) if node.op_type in WEIGHTED)
        quantize_static(
            ready,
            made,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in nodes[:first]],
        )
        proto = onnx.load(made)
        _free_logits(proto.graph)
        onnx.save(proto, made)
        add_about(made, about)
        target.write_bytes(made.read_bytes())


def _free_logits(graph: GraphProto) -> None:
    """Take the rounding of the logits out of a graph."""
    makers = {node.output[0]: node for node in graph.node}
    last = makers[OUTPUT]
    if last.op_type == "DequantizeLinear" and makers[last.input[0]].op_type == "QuantizeLinear":
        rounding = makers[last.input[0]]
        makers[rounding.input[0]].output[0] = OUTPUT
        graph.node.remove(last)
        graph.node.remove(rounding)


def quantise_dynamic(source: Path, target: Path, about: About) -> None:
    """An ONNX file whose matrix products are in int8; ranges are found anew for each batch, convolutions stay fp32.

    Raises:
        Infeasible: onnxruntime cannot do it.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _explained(), tempfile.TemporaryDirectory(prefix="ht-int8-") as scratch:
        made, proto = Path(scratch) / "made.onnx", onnx.load(source)
        del proto.graph.value_info[:]  # it turns matrices round and would stumble over their old shapes
        quantize_dynamic(
            proto, made, op_types_to_quantize=MATRICES, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
        )
        add_about(made, about)
        target.write_bytes(made.read_bytes())


def quantise_linear(model: Model) -> Model:
    """A copy whose linear layers have int8 weights (torchao, weights only); it cannot be saved as safetensors of ours.

    Raises:
        Infeasible: it has no linear layer, or torchao cannot do it.
    """
    with _explained():
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        network: Shipped = copy.deepcopy(model.network)
        quantize_(network, Int8WeightOnlyConfig(set_inductor_config=False))
    return Model(model.about, model.place, network, model.device)


def linear_share(network: nn.Module) -> float:
    """How much of a network's parameters linear layers hold, 0 to 1."""
    held = sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Linear))
    return held / max(1, sum(parameter.numel() for parameter in network.parameters()))


def state_bytes(network: nn.Module) -> int:
    """Bytes of all tensors of a network, those inside of quantised ones too."""
    total = 0
    for value in network.state_dict().values():
        inner = value.__tensor_flatten__()[0] if hasattr(value, "__tensor_flatten__") else ()
        parts = [getattr(value, name) for name in inner] or [value]
        total += sum(part.numel() * part.element_size() for part in parts)
    return total


@contextmanager
def _explained() -> Iterator[None]:
    """What these libraries raise in one line, and nothing of what they log on the way: none of it is the user's."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torchao|onnxruntime|onnx|torch)(\..*)?$")
            yield
    except Exception as error:  # they have no common base
        raise Infeasible((str(error).strip() or type(error).__name__).splitlines()[0][:200]) from error
    finally:
        logging.disable(level)
