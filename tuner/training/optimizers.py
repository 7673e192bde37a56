"""Optimisers by name, in the fastest form that torch has for small networks, and who learns at which rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from tuner.spec.train import Adagrad, Adam, AdamW, Muon, NAdam, RmsProp, Sgd, Train
from tuner.training.precision import DTYPES, resolve_precision
from tuner.training.transfer import list_learnable, stages_of

Groups = list[dict[str, Any]]

# One update of a net of 11 tensors on one core: fused 98 us (SGD 51), foreach 226 (71), a loop over tensors 283 (84).
# Adagrad: fused 93, foreach 232. No fused form: RMSprop, foreach 194 us, loop 246; NAdam, foreach 410, loop 514.


def make_optimizer(train: Train, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a network's parameters that ever learn, in groups.

    Each group carries `factor`: its rate is that of the schedule times this. The head's is `head_lr`, the last stage's
    1, each stage below learns at `lr_decay_per_stage` times the rate above it (Howard and Ruder, 2018, section 3.2).
    Stages that are frozen at first are in their groups from the start; without a gradient they do not move.
    """
    config = train.optimizer
    *stages, head = list_learnable(network, train)
    last = len(stages) - 1
    rates = [(config.lr_decay_per_stage ** (last - number), stage) for number, stage in enumerate(stages)]
    matrices = _find_matrices(network, stages) if config.name == "muon" else None
    parts: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for rate, parameters in [*rates, (config.head_lr, head)]:
        for parameter in parameters:
            matrix = matrices is not None and id(parameter) in matrices
            slow = config.adam_lr / config.lr if isinstance(config, Muon) and not matrix else 1.0
            decays = config.decay_all or parameter.ndim > 1
            parts.setdefault((rate * slow, decays, matrix), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "lr": config.lr * factor,
            "factor": factor,
            "weight_decay": config.weight_decay if decays else 0.0,
            **({"matrices": matrix} if matrices is not None else {}),
        }
        for (factor, decays, matrix), parameters in parts.items()
    ]
    return OPTIMIZERS[config.name](config, groups)


def _find_matrices(network: nn.Module, stages: list[list[nn.Parameter]]) -> set[int]:
    """Ids of the weights of full convolutions and linear layers in the body, but the network's first."""
    body = {id(parameter) for stage in stages for parameter in stage}
    layers = (layer for stage in stages_of(network) for layer in stage.modules())
    found = [
        id(layer.weight)
        for layer in layers
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]
    return body.intersection(found[1:])


# ---------------------------------------------------------------- torch's own


def build_adam(config: Adam, groups: Groups) -> torch.optim.Optimizer:
    """Adam with L2 in the gradient."""
    return torch.optim.Adam(groups, betas=config.betas, fused=True)


def build_adamw(config: AdamW, groups: Groups) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay."""
    return torch.optim.AdamW(groups, betas=config.betas, fused=True)


def build_nadam(config: NAdam, groups: Groups) -> torch.optim.Optimizer:
    """Adam with Nesterov's momentum, L2 in the gradient."""
    return torch.optim.NAdam(groups, betas=config.betas, foreach=True)


def build_sgd(config: Sgd, groups: Groups) -> torch.optim.Optimizer:
    """Stochastic gradient descent."""
    optimizer = torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov, fused=True)
    if config.momentum:
        # From the start, as the fused update takes those of all parameters that have a gradient, or none: a stage that
        # is unfrozen later would have none beside others that do. From zero the first step is the gradient, as torch's.
        for parameter in (p for group in groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def build_rmsprop(config: RmsProp, groups: Groups) -> torch.optim.Optimizer:
    """RMSprop."""
    return torch.optim.RMSprop(groups, alpha=config.alpha, momentum=config.momentum, foreach=True)


def build_adagrad(config: Adagrad, groups: Groups) -> torch.optim.Optimizer:
    """Adagrad."""
    return torch.optim.Adagrad(groups, lr_decay=config.lr_decay, fused=True)


# ---------------------------------------------------------------- Muon


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for groups with `matrices`, AdamW (betas 0.9 and 0.999) for the others; all decay is decoupled.

    As torch.optim.Muon, which takes matrices alone; here a convolution's weight counts as one, a row for each output.
    Matrices of a shape are orthogonalised together. For GPUs and small networks: on one core an update of a ResNet-18
    takes about a second, of AdamW 0.01.
    """

    def __init__(self, groups: Groups, momentum: float) -> None:
        super().__init__(groups, {"momentum": momentum})
        device = groups[0]["params"][0].device
        self.dtype = DTYPES[resolve_precision("auto", device)]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; parameters without a gradient stay where they are."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                (self._orthogonal if group["matrices"] else self._adam)(group, parameters)

    def _orthogonal(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        shapes: dict[torch.Size, list[Tensor]] = {}
        for parameter in parameters:
            shapes.setdefault(parameter.flatten(1).shape, []).append(parameter)
        lr, momentum = group["lr"], group["momentum"]
        for (rows, columns), alike in shapes.items():
            grads = _grads(alike)
            buffers = [self._state(p, "momentum_buffer") for p in alike]
            torch._foreach_lerp_(buffers, grads, 1 - momentum)
            updates = torch._foreach_lerp(grads, buffers, momentum)  # Nesterov's
            made = orthogonalize(torch.stack([update.flatten(1) for update in updates]).to(self.dtype))
            torch._foreach_mul_(alike, 1 - lr * group["weight_decay"])
            steps = [each.view(p.shape).to(p.dtype) for each, p in zip(made, alike, strict=True)]
            torch._foreach_add_(alike, steps, alpha=-lr * math.sqrt(max(1, rows / columns)))

    def _adam(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
        adamw(
            parameters,
            _grads(parameters),
            [self._state(p, "exp_avg") for p in parameters],
            [self._state(p, "exp_avg_sq") for p in parameters],
            [],
            [self.state[p]["step"] for p in parameters],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )

    def _state(self, parameter: Tensor, name: str) -> Tensor:
        state: dict[str, Tensor] = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state[name]


def _grads(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def orthogonalize(matrices: Tensor) -> Tensor:
    """Nearly orthogonal matrices (K, rows, columns) from any: singular values become 0.7 to 1.2.

    Five steps of a quintic Newton-Schulz iteration (Jordan et al., 2024; kellerjordan.github.io/posts/muon), which bf16
    is enough for; half the time of fp32 where the processor multiplies it.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    made = matrices.mT if tall else matrices
    made = made / made.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = made @ made.mT
        made = torch.baddbmm(made, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), made, beta=3.4445)
    return made.mT if tall else made


def build_muon(config: Muon, groups: Groups) -> torch.optim.Optimizer:
    """Muon for the matrices of the body, AdamW for the rest."""
    return MuonWithAdamW(groups, config.momentum)


OPTIMIZERS: dict[str, Callable[[Any, Groups], torch.optim.Optimizer]] = {
    "adam": build_adam,
    "adamw": build_adamw,
    "nadam": build_nadam,
    "sgd": build_sgd,
    "rmsprop": build_rmsprop,
    "adagrad": build_adagrad,
    "muon": build_muon,
}
