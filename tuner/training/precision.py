"""Which arithmetic a trial computes in: what `auto` becomes on this machine."""

from __future__ import annotations

from typing import Literal

import torch

from tuner.errors import BadInput

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(name: Literal["auto", "fp32", "bf16", "fp16"], device: str | torch.device) -> Precision:
    """The precision that trains: `auto` is bf16 where the device multiplies it natively, else fp32.

    Raises:
        BadInput: fp16 on a CPU, which has no fast arithmetic for it and no gradient scaling here.
    """
    kind = torch.device(device).type
    if name == "fp16" and kind != "cuda":
        raise BadInput(
            f"train.precision fp16 needs a GPU, this trial trains on {kind}",
            hint="write bf16, or auto, or leave it out",
        )
    if name != "auto":
        return name
    return "bf16" if _has_bf16(kind) else "fp32"


def _has_bf16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
