"""The winner of a run on the test images, which the search never saw: once, at the end.

    python benchmarks/test_accuracy.py results/small-data

Loads the best trial's weights as they were at its best epoch and scores all test images in fp32.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tuner.records.status import read_status
from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint
from tuner.training.dataset import Dataset
from tuner.training.datasets import open_dataset, open_test, prepare
from tuner.training.images import Images
from tuner.training.metrics import Scores, evaluate
from tuner.training.networks import make_network
from tuner.training.weights import preprocessing


def score(run: Path) -> tuple[str, float, Scores]:
    """The best trial, its validation value, and its scores on the test images."""
    best = read_status(run).best
    assert best is not None, "no trial has an epoch"
    tensors, state = checkpoint.load(run / "trials" / best.trial / "checkpoint_best")
    config = TrialConfig.model_validate(state["config"])
    prepared = prepare(config.data, config.seed)
    data = open_dataset(prepared.folder, config.data, config.seed)  # for the mean and deviation of what was trained on
    shape = {"classes": len(data.classes), "in_channels": data.channels, "image_size": data.image_size}
    network = make_network(config.model, **shape)
    network.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    return best.trial, best.value, score_test(network, config, data, prepared.folder)


def score_test(network: nn.Module, config: TrialConfig, data: Dataset, folder: Path) -> Scores:
    """Scores of a trained network in fp32 on the test images that lie in `folder` beside the training images."""
    pixels, labels = open_test(folder)
    mean, std = preprocessing(config, data.channels) or (None, None)
    images = Images(replace(data, images=pixels), torch.device("cpu"), torch.float32, mean=mean, std=std)
    index = torch.arange(len(labels))
    network.eval()
    with torch.inference_mode():
        logits = torch.cat([network(images.batch(part)) for part in index.chunk(-(-len(index) // 256))])
    return evaluate(logits, torch.from_numpy(labels))


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    trial, value, scores = score(parser.parse_args().run)
    print(f"trial {trial}: validation {value:.4f}, test accuracy {scores.accuracy:.4f}, macro F1 {scores.macro_f1:.4f}")


if __name__ == "__main__":
    main()
