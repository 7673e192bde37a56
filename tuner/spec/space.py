"""Space: what a space file opens to search, as a tree whose leaves may be distributions, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import BadInput, Problem
from tuner.spec.build import Builder
from tuner.spec.changes import apply_sets
from tuner.spec.check import check, mistakes, walk
from tuner.spec.distributions import Plain
from tuner.spec.edit import set_values
from tuner.spec.parameter import Choose, Condition, Parameter, Start
from tuner.spec.references import check_same_as, check_search
from tuner.spec.space_file import read, read_text
from tuner.spec.starts import read_starts
from tuner.spec.trial_config import SpaceConfig, TrialConfig

__all__ = ["Choose", "Condition", "Parameter", "Space", "Start", "load_space", "parse_space"]


@dataclass(frozen=True)
class Space:
    """A checked space file.

    `text` is the user's own text with --set applied; `fixed` is the whole configuration with every parameter at its
    first option or low end: read `search`, `resources`, `data` (but augment and image_size), `name` and `seed` there.
    """

    text: str
    source: str
    tree: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    starts: tuple[Start, ...]
    fixed: SpaceConfig

    def resolve(self, choose: Choose) -> TrialConfig:
        """Walk the tree, ask `choose` for each parameter that exists under what was chosen so far, give the trial.

        Raises:
            BadInput: a value is none of its parameter's, or the values together break a rule of the configuration.
        """

        def checked(parameter: Parameter) -> Plain:
            value = choose(parameter)
            if not parameter.distribution.contains(value):
                raise BadInput([Problem(self.source, 0, 0, f"{parameter.name}: {value!r} is none of its values")])
            return value

        resolved = walk({key: self.tree[key] for key in TrialConfig.model_fields if key in self.tree}, checked)
        try:
            return TrialConfig.model_validate(resolved.data)
        except ValidationError as error:
            found = [Problem(self.source, 0, 0, f"{m.name}: {m.message}") for m in mistakes(error, resolved)]
            raise BadInput(found) from None

    def to_json(self) -> list[dict[str, Any]]:
        """The parameters as space.json holds them: name, path, distribution (Optuna's form), active_when, ordered."""
        return [
            {
                "name": p.name,
                "path": p.path,
                "distribution": p.distribution.to_optuna_json(),
                "active_when": [
                    {"name": c.name, "values": list(c.values)}
                    if c.above is None
                    else {"name": c.name, "above": c.above}
                    for c in p.active_when
                ],
                "ordered": p.distribution.ordered,
            }
            for p in self.parameters
        ]


def load_space(path: Path | str, sets: Sequence[str] = ()) -> Space:
    """The space of a file, with `NAME=YAML` of --set applied.

    Raises:
        BadInput: every problem of the file and of `sets` at once.
    """
    return parse_space(read_text(Path(path)), str(path), sets)


def parse_space(text: str, source: str, sets: Sequence[str] = ()) -> Space:
    """The space of a text; `source` is what errors call it.

    Raises:
        BadInput: every problem of the text and of `sets` at once.
    """
    root, problems = read(text, source)
    root, _, wrong = apply_sets(root, sets)
    builder = Builder(problems=[*problems, *wrong])
    tree = builder.build(root)
    check_same_as(builder, tree)
    fixed = check(builder, tree)
    if fixed is not None:
        check_search(builder, fixed)
    starts = read_starts(root, builder)
    if builder.problems or fixed is None:
        raise BadInput(_once(builder.problems, source))
    return Space(set_values(text, sets), source, tree, tuple(builder.parameters), starts, fixed)


def _once(problems: Sequence[Problem], source: str) -> list[Problem]:
    """In the order of the text, --set last; the same said of one place under two names, by an alias, once."""
    found: dict[tuple[str, int, int, str], Problem] = {}
    for problem in problems:
        rule = problem.message.partition(": ")[2] if problem.line else problem.message
        found.setdefault((problem.source, problem.line, problem.column, rule), problem)
    return sorted(found.values(), key=lambda p: (p.source != source, p))
