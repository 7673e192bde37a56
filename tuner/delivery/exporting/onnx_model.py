"""ONNX: a model as one file that onnxruntime and others read; written with what it is inside, opened with suspicion."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch.export import Dim, ExportedProgram, export

from tuner.delivery.about import About
from tuner.delivery.model import LARGEST_JSON, Model
from tuner.delivery.place import Place
from tuner.errors import BadInput
from tuner.records.writer import write_whole

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto
    from onnxruntime import InferenceSession

KEY = "hypertune"
"""Under which a file's metadata hold its About, as JSON, without the list of files."""
INPUT, OUTPUT = "pixels", "logits"
OPSET = 20
"""Of February 2024: onnxruntime 1.17 and later read it; it is the first with one operator for GELU."""
LARGEST = 2**31 - 1
"""Bytes of one ONNX file: a protobuf message holds no more."""
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Device -> what onnxruntime calls its part for it. TensorRT is a second way to use the GPU that `cuda` names."""


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file of ours in onnxruntime, ready to judge."""

    about: About
    place: Place
    session: InferenceSession
    device: str = "cpu"

    kind = "onnx"

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes) of images, uint8 (N, image_size, image_size, channels).

        Raises:
            BadInput: onnxruntime cannot compute them, such as for want of memory.
        """
        with _told(self.place.path):
            made: NDArray[np.float32] = self.session.run([OUTPUT], {INPUT: pixels})[0]
        if made.shape != (len(pixels), len(self.about.classes)):
            raise BadInput(f"{self.place.path} is damaged: its logits have the shape {made.shape}")
        return made


# ---------------------------------------------------------------- writing


def trace(model: Model) -> ExportedProgram:
    """The network with its preprocessing as a program for any number of images, without the paths of this machine.

    Raises:
        BadInput: torch cannot follow it, such as code of the user's own that branches on values.
    """
    about = model.about
    network = copy.deepcopy(model.network).cpu().to(memory_format=torch.contiguous_format)  # others are saved in pieces
    pixels = torch.zeros(2, about.image_size, about.image_size, about.channels, dtype=torch.uint8)
    try:
        with _quiet():
            program = export(network, (pixels,), dynamic_shapes={INPUT: {0: Dim("batch", min=1)}})
    except Exception as error:  # torch.export has no common base for what it cannot follow
        raise BadInput(f"{about.name} cannot be exported: torch.export: {_first_line(error)}") from error
    for graph in program.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # lines of files in the user's home
    return program


def write_onnx(
    path: Path, model: Model, *, notes: tuple[str, ...] = (), program: ExportedProgram | None = None
) -> About:
    """Write a model as one ONNX file, weights and About inside: `pixels`, uint8 (batch, S, S, C), to `logits`.

    notes: what was done to it, added to its own. program: `trace(model)`, where it is at hand.

    Raises:
        BadInput: it cannot be said in ONNX, is larger than 2 GB, or cannot be written there.
    """
    about = model.about.model_copy(update={"notes": (*model.about.notes, *notes), "files": {}})
    if (size := 4 * about.params) > LARGEST:
        raise BadInput(f"{about.name}: {size:,} bytes of weights; one ONNX file holds 2 GB: export it as safetensors")
    program = program or trace(model)
    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_shapes={INPUT: {0: "batch"}},
                verbose=False,
            )
    except Exception as error:  # its errors and those of onnxscript have no common base
        raise BadInput(f"{about.name} cannot be exported: torch.onnx: {_first_line(error)}") from error
    assert made is not None  # so it is without a file name
    _write(path, made.model_proto, about)
    return about


def add_about(path: Path, about: About) -> None:
    """Write into an ONNX file what it is, so that `open_onnx` takes it; its input and output must be those of ours.

    Raises:
        BadInput: it is no ONNX file, or of other shapes than `about`.
    """
    proto = _read(path)
    _check_shapes(path, proto, about)
    _write(path, proto, about.model_copy(update={"files": {}}))


def _write(path: Path, proto: ModelProto, about: About) -> None:
    import onnx

    for node in [*proto.graph.node, *(node for function in proto.functions for node in function.node)]:
        del node.metadata_props[:]  # where in which file of this machine each came from
    onnx.helper.set_model_props(proto, {KEY: about.model_dump_json()})
    proto.doc_string = f"{about.name}: {INPUT} uint8 (batch, {about.image_size}, {about.image_size}, {about.channels})"
    try:
        onnx.checker.check_model(proto)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, proto.SerializeToString())
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
    except (onnx.checker.ValidationError, ValueError) as error:
        raise BadInput(f"{about.name} cannot be written as ONNX: {_first_line(error)}") from error


# ---------------------------------------------------------------- opening


def open_onnx(place: Place, *, device: str = "cpu", threads: int | None = None) -> OnnxModel:
    """An ONNX file that `hypertune export` or `hypertune compress` wrote, in onnxruntime.

    device: cpu, cuda (or cuda:1), tensorrt. threads: of the CPU; default: as many as torch takes.

    Raises:
        BadInput: it is damaged, not of ours, keeps its weights elsewhere, or the device is not there.
    """
    import onnxruntime

    path = place.path
    proto = _read(path)
    about = _read_about(path, proto)
    _check_shapes(path, proto, about)
    kind, _, number = device.partition(":")
    wanted = PROVIDERS.get(kind)
    if wanted not in onnxruntime.get_available_providers():
        there = ", ".join(known for known, name in PROVIDERS.items() if name in onnxruntime.get_available_providers())
        more = "" if kind == "cpu" else "; for a GPU install onnxruntime-gpu in place of onnxruntime"
        raise BadInput(f"--device {device}: onnxruntime here knows only {there}{more}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised too
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads leave the cores to others
    provider: Any = wanted if kind == "cpu" else (wanted, {"device_id": number or "0"})
    with _told(path):
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=[provider])
    if session.get_providers()[0] != wanted:  # it falls back to the CPU and goes on
        raise BadInput(f"--device {device}: onnxruntime could not start {wanted}: no GPU, or its libraries are missing")
    return OnnxModel(about, place, session, device)


def _read(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    try:
        if path.stat().st_size > LARGEST:
            raise BadInput(f"{path}: larger than 2 GB; no ONNX file of ours is")
        proto = onnx.load_model_from_string(path.read_bytes())
        if any(map(uses_external_data, _get_all_tensors(proto))):
            raise BadInput(f"{path}: keeps weights in other files, which are not read; write it with them inside")
        onnx.checker.check_model(proto)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise BadInput(f"{path} is no ONNX file, or damaged: {_first_line(error)}") from error
    return proto


def _read_about(path: Path, proto: ModelProto) -> About:
    said = next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)
    if said is None:
        rule = "does not say which classes it knows and what images it takes; take one that `hypertune export` wrote"
        raise BadInput(f"{path} {rule}")
    try:
        if len(said) > LARGEST_JSON:
            raise BadInput(f"{path}: what it says of itself is larger than {LARGEST_JSON >> 20} MiB")
        return About.model_validate_json(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its metadata"
        raise BadInput(f"{path} is damaged or of another version: {where}: {first['msg']}") from error


def _check_shapes(path: Path, proto: ModelProto, about: About) -> None:
    weights = {tensor.name for tensor in proto.graph.initializer}
    given = [value for value in proto.graph.input if value.name not in weights]
    size, tensors = about.image_size, proto.graph
    for found, name, kind, shape in (
        (given, INPUT, "uint8", (None, size, size, about.channels)),
        (list(tensors.output), OUTPUT, "float", (None, len(about.classes))),
    ):
        expected = f"{name} {kind} {_shape(shape)}"
        said = ", ".join(map(_describe, found)) or "nothing"
        if said != expected:
            raise BadInput(f"{path}: its {'input' if name == INPUT else 'output'} is {said}, its model's {expected}")


def _describe(value: ValueInfoProto) -> str:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return f"{value.name} {TensorProto.DataType.Name(tensor.elem_type).lower()} {_shape(sizes)}"


def _shape(sizes: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("batch" if size is None else str(size) for size in sizes) + ")"


# ---------------------------------------------------------------- errors and noise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What onnxruntime raises, in one line; its errors have no base of their own."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime") and not isinstance(error, RuntimeError | MemoryError):
            raise
        raise BadInput(f"{path}: onnxruntime cannot run it: {_first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells of its passes, its graphs and its own old code; its errors say what matters."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.filterwarnings("ignore", module=r"(torch|onnxscript|onnx_ir|copyreg)(\..*)?$")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
