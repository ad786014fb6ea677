#!/usr/bin/env python3
"""Writes text.txt, the default training text of the example char_lm.

The text is a snapshot of this crate's documents, sources and tests: every file below in order of its path, each under a header line
with that path. The same tree gives the same bytes. The snapshot is frozen, so that results do not change with every edit: run this
script only to take a new one.

    python3 examples/data/make_text.py
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATTERNS = ["*.md", "src/**/*.rs", "tests/**/*.rs"]
DOCUMENTS = {"README.md", "DESIGN.md", "CONTRIBUTING.md", "CHANGELOG.md"}


def paths():
    """The files of the text, relative to the root, in an order that depends only on their names."""
    found = {path.relative_to(ROOT).as_posix() for pattern in PATTERNS for path in ROOT.glob(pattern)}
    return sorted(path for path in found if path.endswith(".rs") or path in DOCUMENTS)


def text():
    """The files' contents, each under its header line, separated by blank lines."""
    parts = ((path, (ROOT / path).read_text(encoding="utf-8")) for path in paths())
    return "\n".join(f"==== {path} ====\n{content.rstrip()}\n" for path, content in parts)


if __name__ == "__main__":
    (HERE / "text.txt").write_text(text(), encoding="utf-8", newline="\n")
