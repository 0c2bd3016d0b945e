"""Text between markers in Markdown pages: what a script measures stands beside what a person writes."""

from __future__ import annotations

import re
from pathlib import Path


def replace_between(path: Path, marker: str, text: str) -> None:
    """Replace what stands between `<!-- marker -->` and `<!-- /marker -->` in a Markdown file.

    Args:
        path: The file.
        marker: Name of the markers.
        text: New content.

    Raises:
        ValueError: The file has no such markers.
    """
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", re.DOTALL)
    if not pattern.search(old):
        raise ValueError(f"{path} has no markers <!-- {marker} --> and <!-- /{marker} -->")
    path.write_text(pattern.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", old), encoding="utf-8")
