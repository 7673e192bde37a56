"""Writes changes into a user's YAML keeping structure and comments; copies the ready-made spaces."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

import tuner
from tuner.errors import BadInput
from tuner.spec.changes import Change, Edit, apply_sets
from tuner.spec.nearest import did_you_mean
from tuner.spec.space_file import Node, plain, read, read_text

# They lie beside the packages in a clone and in a wheel alike.
READY_MADE = Path(tuner.__file__).parent.parent / "search_spaces"


def to_yaml(sections: Mapping[str, Any]) -> str:
    """Plain values as YAML."""
    return _dump(dict(sections), YAML())


def set_values(text: str, sets: Sequence[str | Edit]) -> str:
    """The text with each `NAME=YAML` or Edit applied in order, comments and structure kept (grammar R12).

    Raises:
        BadInput: the text is no YAML, or one of `sets` is malformed or speaks of what is not there.
    """
    if not sets:
        return text
    root, _ = read(text, "")
    wanted, changes, problems = apply_sets(root, sets)
    if problems:
        raise BadInput(problems)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000  # never break a line that the user did not break
    yaml.default_flow_style = None
    yaml.indent(**_indents(text))
    data = yaml.load(text)
    for change in changes:
        _make(change, data, yaml)
    written = _dump(data, yaml)
    # Where an alias of what was changed makes the text mean something else, write it all out as it was checked.
    return written if _means(written, wanted) else _dump(plain(wanted), yaml)


def _make(change: Change, data: Any, yaml: YAML) -> None:
    """Make the change in ruamel's round-trip data."""
    *above, last = change.route
    for key in above:
        data = _own(data, key)
    if change.keep is not None:
        body = _own(data, last)
        for key in list(body) if isinstance(body, Mapping) else reversed(range(len(body))):
            if str(key) not in map(str, change.keep):
                del body[key]
        return
    value = yaml.load(change.text)
    for key in reversed(change.missing):
        value = CommentedMap({key: value})
        value.fa.set_flow_style()
    if change.kind and isinstance(value, CommentedMap):
        value.insert(0, "name", change.kind)
    data[last] = value


def _own(container: Any, key: Any) -> Any:
    """What is at the key; where it is shared by an alias or a merge, this place gets a copy of its own."""
    child = container[key]
    if (hasattr(child, "anchor") and child.anchor.value) or getattr(container, "merge", None):
        child = container[key] = copy.deepcopy(child)
        _drop_anchors(child)
    return child


def _drop_anchors(node: Any) -> None:
    if hasattr(node, "anchor"):
        node.anchor.value = None
    for child in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        _drop_anchors(child)


def _indents(text: str) -> dict[str, int]:
    """How far the text indents mappings and the dashes of lists, for ruamel."""
    indented = re.search(r"^( +)[^\s#-]", text, re.MULTILINE)
    dashed = re.search(r"^( *)[^\s#-][^\n]*:[^\S\n]*(?:#[^\n]*)?\n(?:\s*\n)?( *)- ", text, re.MULTILINE)
    offset = max(len(dashed[2]) - len(dashed[1]), 0) if dashed else 2
    return {"mapping": len(indented[1]) if indented else 2, "sequence": offset + 2, "offset": offset}


def _dump(data: Any, yaml: YAML) -> str:
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def _means(text: str, wanted: Node) -> bool:
    try:
        written, problems = read(text, "")
    except BadInput:
        return False
    return not problems and repr(plain(written)) == repr(plain(wanted))


def ready_made() -> tuple[tuple[str, Path, str], ...]:
    """Each ready-made space: its name, its file, and its first comment line as a description."""
    files = sorted(READY_MADE.glob("*.yaml"))
    return tuple((f.stem, f, f.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for f in files)


def copy_space(name: str, target: Path) -> Path:
    """Copy a ready-made space to `target` (a file, or a folder to put it into) and name its schema for editors.

    Raises:
        BadInput: there is no such space, or the target exists or cannot be written.
    """
    spaces = {known: path for known, path, _ in ready_made()}
    wanted = name.removesuffix(".yaml")
    if wanted not in spaces:
        raise BadInput(f"no such space: {name}{did_you_mean(wanted, spaces)}")
    if target.is_dir():
        target = target / f"{wanted}.yaml"
    schema = (READY_MADE / "schema.json").as_uri()
    text = f"# yaml-language-server: $schema={schema}\n{read_text(spaces[wanted])}"
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise BadInput(f"{target}: exists; give another name, or remove it first") from None
    except OSError as error:
        raise BadInput(f"{target}: cannot be written: {error.strerror}") from error
    return target
