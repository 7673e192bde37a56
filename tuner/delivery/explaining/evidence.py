"""Evidence: where in an image a network sees a class, by Grad-CAM, Grad-CAM++ or occlusion; the layers that show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isqrt
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.errors import BadInput

Method = Literal["gradcam", "gradcam++", "occlusion"]
METHODS = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "occlusion": "occlusion"}

NO_MAPS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.modules.dropout._DropoutNd, nn.Softmax, nn.Identity)
"""Layers that are never looked at: pools to a given side enlarge a map of one pixel, the others only pass things on."""
WINDOW, STRIDE = 4, 8
"""Occlusion hides a quarter of the side at a time and moves by an eighth: 49 looks at each image."""
LOOKS = 256
"""Occluded images judged at a time."""
ROUND = 1e-15
"""Probabilities nearer to 0 or 1 than float64 tells from them are taken as this near."""


class Layer(NamedTuple):
    """A layer that makes maps: its name in the network, the module, what it made of the image looked at, (C, S, S)."""

    name: str
    module: nn.Module
    maps: Tensor
    reaches: bool
    """Whether the logits depend on the maps; on the last tokens of a transformer, only those on the class token do."""
    even: bool
    """Whether they depend on all places of a map alike, as behind average pooling; Grad-CAM assumes it."""

    @property
    def side(self) -> int:
        """Of its maps, in pixels."""
        return int(self.maps.shape[-1])


def list_layers(network: nn.Module, image: Tensor) -> list[Layer]:
    """The layers that make maps of an image, normalised (1, C, S, S), in the order in which they are done.

    Maps are square and larger than one pixel: (1, C, S, S), (1, S, S, C) as Swin has them, and in networks with
    attention tokens (1, S*S, C), with or without a class token before them. Layers that are used several times are
    left out: what they made cannot be told apart.
    """
    attends = any("attention" in type(layer).__name__.lower() for layer in network.modules())
    made: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    used: Counter[str] = Counter()

    def watch(name: str, layer: nn.Module) -> Any:
        def note(_: nn.Module, given: Any, output: Any) -> None:
            used[name] += 1
            if isinstance(output, Tensor) and (maps := arrange(output, attends)) is not None:
                made.append((name, layer, output, maps.detach().clone()))  # what follows may write into the output

        return layer.register_forward_hook(note)

    handles = [watch(name, layer) for name, layer in network.named_modules() if not isinstance(layer, NO_MAPS)]
    try:
        with torch.enable_grad():
            logits = network(image.detach().clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    made = [one for one in made if used[one[0]] == 1 and one[2].requires_grad]
    grads = torch.autograd.grad(logits.max(), [output for _, _, output, _ in made], allow_unused=True) if made else ()
    layers = []
    for (name, layer, _, maps), grad in zip(made, grads, strict=True):
        found = torch.zeros_like(maps) if grad is None else arrange(grad, attends)
        assert found is not None  # of the shape of the output
        even = torch.allclose(found, found.mean((2, 3), keepdim=True), rtol=1e-3, atol=float(found.abs().max()) / 1e4)
        layers.append(Layer(name.removeprefix("body."), layer, maps[0], bool(found.any()), even))
    return layers


def arrange(output: Tensor, attends: bool = True) -> Tensor | None:
    """What a layer gives as maps (N, C, S, S); None where it is none. attends: whether three axes may be tokens."""
    shape = output.shape
    if output.ndim == 4 and shape[2] == shape[3] > 1:
        return output
    if output.ndim == 4 and shape[1] == shape[2] > 1:
        return output.permute(0, 3, 1, 2)
    if output.ndim == 3 and attends:
        side = isqrt(shape[1])
        if side > 1 and shape[1] - side * side in (0, 1):  # a class token comes first
            return output[:, shape[1] - side * side :].transpose(1, 2).reshape(shape[0], shape[2], side, side)
    return None


def find_layer(layers: Sequence[Layer], method: str) -> Layer:
    """The last layer whose maps the logits depend on: what Grad-CAM is read from.

    Raises:
        BadInput: there is none.
    """
    found = next((layer for layer in reversed(layers) if layer.reaches), None)
    if found is None:
        rule = "it has no layer with maps of the image, such as a convolution makes"
        raise BadInput(
            f"{METHODS[method]} cannot look into this network: {rule}; occlusion needs none: --method occlusion"
        )
    return found


def grad_cam(
    network: nn.Module, images: Tensor, targets: NDArray[np.int64], layer: Layer, *, squares: bool = False
) -> NDArray[np.float32]:
    """Where the maps of `layer` speak for a class: (N, S, S), each from 0, its weakest place, to 1, its strongest.

    images: normalised (N, C, S, S); targets: the class asked for, of each. Selvaraju et al., 2017 (arXiv 1610.02391);
    squares: Grad-CAM++ of Chattopadhay et al., 2018 (arXiv 1710.11063). All 0 where nothing stands out.
    """
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = (GradCAMPlusPlus if squares else GradCAM)(network, [layer.module], arrange)
    # The layer after it may write into its output, which is kept for later: it gets a copy.
    copies = layer.module.register_forward_hook(lambda _, given, output: output.clone())
    try:
        with torch.enable_grad():
            given = images.detach().clone().requires_grad_()
            found: NDArray[np.float32] = cam(given, [ClassifierOutputTarget(int(target)) for target in targets])
    finally:
        copies.remove()
        cam.activations_and_grads.release()
        network.zero_grad(set_to_none=True)
    peak = found.max(axis=(1, 2), keepdims=True)  # near 1, but for evidence so faint that the library rounds it away
    return (found / np.where(peak > 0, peak, 1)).astype(np.float32)


def occlude(network: nn.Module, images: Tensor, targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """How far the log-odds of a class fall on average while a place is grey: (N, S, S); below 0 where they rise.

    A square of a quarter of the side moves over each image, normalised (N, C, S, S); grey is 0, the mean colour of the
    training images. Zeiler and Fergus, 2014 (arXiv 1311.2901), there with the probability, which says nothing where it
    is nearly 1: of a network that is sure nothing ever falls.
    """
    from captum.attr import Occlusion

    channels, side = images.shape[1:3]
    window, stride = max(1, side // WINDOW), max(1, side // STRIDE)
    looks = Occlusion(lambda given: torch.special.logit(network(given).double().softmax(1), eps=ROUND))
    with torch.inference_mode():
        drops: Tensor = looks.attribute(
            images.contiguous(),
            sliding_window_shapes=(channels, window, window),
            strides=(channels, stride, stride),
            target=torch.from_numpy(targets).to(images.device),
            perturbations_per_eval=max(1, LOOKS // len(images)),
        )
    made: NDArray[np.float32] = drops[:, 0].float().cpu().numpy()
    return made
