"""What it takes to go on with a search of 1,000 trials: reading, folding and asking again, beyond Ray's own start.

    python benchmarks/resume.py

The folder is written by the conductor from synthetic curves of 10 epochs (asha stops most of them early). Timed in a
fresh process each, five times: read the folder, parse its space, fold its lines into a new conductor, ask for the next
trial. Writes results/benchmarks/resume.json.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from report import machine, spread, write

TRIALS, EPOCHS, REPEATS = 1000, 10, 5
SPACE = """
name: thousand
data: {dataset: digits}
model: {name: cnn, depth: {int: [1, 3]}, width: {choice: [8, 16, 32]}, dropout: {uniform: [0, 0.5]}}
train:
  epochs: 10
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-4, 1.0e-1]}}
      sgd: {lr: {loguniform: [1.0e-3, 0.5]}, momentum: {uniform: [0, 0.99]}}
search: {trials: 2000, sampler: tpe, scheduler: asha}
"""


def fill(folder: Path) -> None:
    """Write the run."""
    from tuner.records.writer import RunFolder
    from tuner.runner.conductor import Conductor
    from tuner.search.preflight import Size
    from tuner.search.sampler import Sampler
    from tuner.spec.search import RandomSampler
    from tuner.spec.space import parse_space

    space, chance = parse_space(SPACE, "space.yaml"), random.Random(0)
    with RunFolder(folder) as writer:
        writer.write_space(space.text, space.to_json())
        writer.write_run(name="thousand", status="running", trials=2000, epochs=EPOCHS)
        sampler = Sampler(space, lambda config: Size(1, 1), RandomSampler())  # quick to fill; tpe takes it up
        conductor = Conductor(space, sampler, writer, trials=TRIALS, full=EPOCHS, seconds=None)
        while job := conductor.next():
            ceiling, epoch, over = chance.random(), 0, False
            while not over:
                epoch += 1
                value = ceiling * (1 - 0.5**epoch)
                row = {"epoch": epoch, "epoch_seconds": 1.0, "val_accuracy": value, "val_macro_f1": value}
                losses = {"train_loss": 1 - value, "val_loss": 1 - value}
                over = conductor.hear(job.trial.id, {**row, **losses}, host="here", pid=1)


CHILD = """
import json, sys, time
from pathlib import Path
from tuner.records.reader import read_record
from tuner.records.writer import RunFolder
from tuner.runner.conductor import Conductor
from tuner.runner.replay import replay
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.space import parse_space
from tuner.spec.search import Tpe

start = time.perf_counter()
path = Path(sys.argv[1])
with RunFolder(path) as folder:
    opened = time.perf_counter()
    record = read_record(path)
    read = time.perf_counter()
    space = parse_space(record.space_text, "space.yaml")
    conductor = Conductor(
        space, Sampler(space, lambda config: Size(1, 1), Tpe()), folder, trials=2000, full=10, seconds=None
    )
    replay(conductor, record, space, changed=False)
    folded = time.perf_counter()
    conductor.sampler.ask()
    end = time.perf_counter()
print(json.dumps({"trials": len(conductor.trials), "lines": len(record.lines), "open": opened - start,
                  "read": read - opened, "fold": folded - read, "ask": end - folded, "all": end - start}))
"""


def main() -> None:
    """Fill a folder, go on with it five times."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "thousand"
        folder.mkdir()
        fill(folder)
        found = []
        for _ in range(REPEATS):
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(folder)], check=True, capture_output=True, text=True
            )
            found.append(json.loads(done.stdout))
    parts = {part: spread([one[part] for one in found]) for part in ("open", "read", "fold", "ask", "all")}
    for part, seconds in parts.items():
        print(f"{part:5} {seconds['median']:.2f} s   ({seconds['low']:.2f} to {seconds['high']:.2f})")
    about = {"trials": found[0]["trials"], "lines": found[0]["lines"], "repeats": REPEATS}
    write("resume", {"machine": machine(), **about, "seconds": parts})


if __name__ == "__main__":
    main()
