"""Source: a torchvision classifier with a head of ours, as the template writes it out."""

from __future__ import annotations

from typing import Any

from torch import nn

from tuner.delivery.ejecting.network import write_head
from tuner.spec.model import Backbone
from tuner.training.backbone import BackboneNetwork


def write_backbone(network: BackboneNetwork, config: Backbone, image_size: int) -> tuple[dict[str, Any], str]:
    """What the template needs of the body, and the code of the head."""
    from torchvision.models import get_model

    options: dict[str, Any] = {"weights": None}
    if config.arch in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    elif config.arch.startswith("vit_"):
        options |= {"image_size": image_size}
    elif config.arch.startswith("maxvit"):
        options |= {"input_size": (image_size, image_size)}
    plain = get_model(config.arch, **options)
    known = dict(plain.named_modules())
    dropped = [
        name for name, layer in network.body.named_modules()
        if isinstance(layer, nn.Identity) and not isinstance(known[name], nn.Identity)
    ]  # fmt: skip
    written = ", ".join(f"{name}={value}" for name, value in options.items())
    bare = {name for name, _ in network.body.named_parameters()}
    return {
        "arch": config.arch,
        "call": f"{config.arch}({written})",
        "dropped": dropped,
        "depths": config.stochastic_depth,
        "pretrained": config.weights == "imagenet",
        "parts": network.parts,
        "bare": any(name in bare for names in network.parts for name in names),
    }, write_head(network.head, config)
