from types import MappingProxyType

import pytest
import torch

from tuner.errors import BadInput
from tuner.training.precision import resolve_precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")],
)
def test_auto_is_bf16_where_the_processor_has_it(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(capabilities))
    assert resolve_precision("auto", "cpu") == expected


def test_a_precision_that_is_asked_for_is_taken() -> None:
    assert [resolve_precision(name, "cpu") for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("fp16", "cuda") == "fp16"


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(BadInput, match=r"train\.precision fp16 needs a GPU, this trial trains on cpu"):
        resolve_precision("fp16", "cpu")
