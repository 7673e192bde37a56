"""What the pages for users say is so: quoted messages are in the code, named commands and files are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tuner.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CODE = "".join(path.read_text() for room in ("tuner", "analysis") for path in sorted((ROOT / room).rglob("*.py")))
TABLES = (ROOT / "docs/troubleshooting.md").read_text()
QUOTED = [
    text
    for line in TABLES.splitlines()
    if line.startswith("| `")
    for text in re.findall(r"`([^`]+)`", line.split("|")[1])
]
NOT_OURS = {"hypertune needs Python 3.11 or newer", "hypertune: command not found", "make run", "1e-4", "/tmp"}


@pytest.mark.parametrize("text", sorted(set(QUOTED) - NOT_OURS))
def test_a_quoted_message_is_one_that_the_program_says(text: str) -> None:
    assert text in CODE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    known = {str(command.name or command.callback.__name__).replace("_", "-") for command in app.registered_commands}  # type: ignore[union-attr]
    named = set(re.findall(r"(?:^|`)hypertune ([a-z][a-z-]+)", page.read_text(), re.MULTILINE))
    assert named - {"needs"} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link
