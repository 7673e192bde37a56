"""Plain: text from outside, such as names of files, as screens, files and spreadsheets take it without harm."""

from __future__ import annotations


def readable(text: str) -> str:
    """A path, or words with one in it, as text that any file and screen takes: bytes that are no UTF-8 as \\udcNN."""
    return text.encode("utf-8", "backslashreplace").decode()


def harmless(text: str) -> str:
    """A cell of a table, with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
