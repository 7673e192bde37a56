"""The last of six hand-made networks against a smaller residual one: starting points of one space, in few epochs.

    python benchmarks/finetuning.py --data CIFAR10    (a folder with train/<class>/ and test/<class>/)

Both are trained as search_spaces/cifar10_finetuning.yaml says, FT-6 at its constant rate, which 200 epochs would have
halved now and then; scored on the 10,000 test images after the last epoch, some seeds each. Writes
results/benchmarks/finetuning.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from report import machine, spread, write
from test_accuracy import score_test

from tuner.spec.distributions import Plain
from tuner.spec.parameter import Parameter
from tuner.spec.space import load_space
from tuner.training.datasets import open_dataset, prepare
from tuner.training.trainer import Trainer

SPACE = Path(__file__).parents[1] / "search_spaces" / "cifar10_finetuning.yaml"


def _give(values: Mapping[str, Plain], parameter: Parameter) -> Plain:
    return values[parameter.name]


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=15_000, help="a tenth of them for validation")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--labels", nargs="+", default=["FT-6", "residual"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = load_space(
        SPACE,
        [
            "data.dataset=image_folder",
            f"data.root={json.dumps(str(arguments.data.resolve()))}",
            f"data.subset={arguments.images}",
            f"train.epochs={arguments.epochs}",
        ],
    )
    prepared = prepare(space.fixed.data, 0)
    images = open_dataset(prepared.folder, space.fixed.data, 0)
    rows: dict[str, Any] = {}
    for start in (start for start in space.starts if start.label in arguments.labels):
        config = space.resolve(partial(_give, start.fixed))
        found, seconds, params = [], [], 0
        for seed in range(arguments.seeds):
            begun = time.perf_counter()
            trainer = Trainer(config.model_copy(update={"seed": seed}), images)
            while trainer.epoch < config.train.epochs and not trainer.ends:
                trainer.run_epoch()
            seconds.append(time.perf_counter() - begun)
            found.append(score_test(trainer.model, config, images, prepared.folder).accuracy)
            params = trainer.params
        rows[start.label] = {"params": params, "test_accuracy": found, "seconds": spread(seconds)}
        shown = ", ".join(f"{value:.1%}" for value in found)
        print(f"{start.label:10} {params:8,} parameters  {shown}  {spread(seconds)['median']:.0f} s", flush=True)
    settings = {name: getattr(arguments, name) for name in ("images", "epochs", "seeds")}
    write("finetuning", {"machine": machine(), **settings, "rows": rows})


if __name__ == "__main__":
    main()
