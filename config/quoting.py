"""Text with and without the quotes of Hydra's grammar."""

from __future__ import annotations

import re

QUOTES = {"'": "'", '"': '"', "‘": "’", "“": "”", "„": "“", "`": "`"}


def quote(text: str) -> str:
    """Hydra's single-quoted form of any text."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def unquote(text: str) -> str:
    """Text without the quotes that Hydra or a pasted shell command put around it."""
    text = text.strip()
    if len(text) < 2 or QUOTES.get(text[0]) != text[-1]:
        return text
    inner, mark = text[1:-1], text[-1]
    if mark not in "'\"":
        return inner
    return re.sub(rf"(\\+)({mark}|$)", lambda m: "\\" * (len(m[1]) // 2) + m[2], inner)
