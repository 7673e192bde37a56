"""Sharing: how many trials share each kind of machine: checked, measured where the file says auto, then decided."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.errors import BadInput
from tuner.packing import curve
from tuner.packing.curve import Curve, Request
from tuner.packing.measure import measure as measure_here
from tuner.packing.mps import check_mps
from tuner.packing.pack import Need, counts_to_try, fix, pack
from tuner.packing.packing import Machine, Packing
from tuner.spec.trial_config import Resources, TrialConfig

Measure = Callable[[Machine, Request], Curve]
"""Measures on a machine of this kind, wherever that is."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Typical:
    """A configuration that a search will train: its estimated memory in MiB, and the folder of its decoded images."""

    config: TrialConfig
    memory_mb: float
    folder: Path


def check_machines(wanted: Resources, machines: Sequence[Machine], *, here: bool) -> str:
    """What trials run on, cpu or cuda; here: whether the machine is this one, and not those of a cluster.

    Raises:
        BadInput: one trial asks for more than any machine has, or for MPS without a GPU.
    """
    cpu, gpu = wanted.cpu, wanted.gpu
    cores, cards = (max((getattr(m, name) for m in machines), default=0) for name in ("cores", "gpus"))
    place = "this machine has" if here else "no machine of the cluster has more than"
    if cpu != "auto" and cpu > cores:
        raise BadInput(f"resources.cpu: {cpu:g} cores a trial, but {place} {cores}; write at most {cores}")
    if gpu != "auto" and gpu > cards:
        have = f"{place} {cards} GPU{'s' * (cards > 1)}"
        if not cards:
            have = "this machine has no GPU" if here else "no machine of the cluster has a GPU"
        most = "0, or auto" if not cards else f"at most {cards}"
        raise BadInput(f"resources.gpu: {gpu:g} a trial, but {have}; write {most}, or run where there are more")
    if gpu != "auto" and gpu > 1 and gpu != int(gpu):
        raise BadInput(f"resources.gpu: {gpu:g} is neither a share of one GPU nor a whole number")
    device = "cuda" if (cards if gpu == "auto" else gpu) else "cpu"
    if wanted.mps and (here or device == "cpu"):
        check_mps(float(device == "cuda"))
    return device


def share_machines(
    wanted: Resources,
    machines: Sequence[Machine],
    device: str,
    trials: int,
    seed: int,
    typical: Typical,
    largest: Typical,
    measure: Measure | None,
    cache: Path,
    progress: Progress | None,
) -> tuple[Packing, ...]:
    """A packing for each kind of machine, in their order; seed: of the split.

    What was measured before, for such a machine and such models, is read from the cache. Where trials run on GPUs, a
    machine without one takes none: they would be slower there by an order of magnitude.

    Raises:
        BadInput: the typical configuration cannot be trained, or no machine has room for one.
        HypertuneError: measuring does not work.
    """
    nodes = sum(machine.nodes for machine in machines)
    most = math.ceil(min(trials, wanted.trials_at_once or trials) / nodes)
    need = Need(max(1.0, typical.memory_mb), max(1.0, largest.memory_mb))
    packings = []
    for machine in machines:
        if device == "cuda" and not machine.gpus:
            idle = fix(machine, wanted.model_copy(update={"gpu": 0}), 0)
            packings.append(Packing(machine, 0, idle.typical, reason="no GPU, so it takes no trials"))
            continue
        counts = counts_to_try(machine, wanted, most)
        if len(counts) == 1:
            packings.append(fix(machine, wanted, most))
            continue
        request = Request(
            trial=typical.config.model_dump_json(),
            largest=largest.config.model_dump_json(),
            folder=str(typical.folder),
            largest_folder=str(largest.folder),
            split_seed=seed,
            device=device,
            cards=machine.gpus if device == "cuda" else 0,
            cores=machine.cores,
            memory=machine.memory,
            counts=counts,
            mps=wanted.mps,
            paths=tuple(str(Path(path).absolute()) for path in sys.path),
        )
        file = curve.place(cache, machine, request)
        found = curve.read(file)
        if found is None:
            found = measure(machine, request) if measure else measure_here(request, progress)
            if not any(point.failed == curve.TOO_SLOW for point in found.points):  # it may be quieter another time
                curve.keep(file, found)
        packings.append(pack(machine, wanted, most, need, found))
    if not any(packing.at_once for packing in packings):
        raise BadInput(f"resources: no machine has both {wanted.cpu} cores and {wanted.gpu} GPUs for one trial")
    return tuple(packings)


def packing_of(packings: Sequence[Packing], machine: Machine, trials: int) -> Packing:
    """How this machine is shared: as planned for its kind; one that came later as the kind with the same cards is.

    Kinds that take no trials are no example: where trials run on GPUs, a machine without one gets none.
    """
    exact = next((packing for packing in packings if replace(packing.machine, nodes=1) == machine), None)
    if exact is not None:
        return replace(exact, machine=machine)
    used = [packing for packing in packings if packing.at_once]
    alike = next((packing for packing in used if packing.machine.gpu == machine.gpu), used[0])
    return fix(machine, Resources(cpu=alike.typical.cpu, gpu=alike.typical.gpu), trials)
