#!/usr/bin/env python3
"""Counts the unsafe code in each file of src; with --check, fails unless docs/unsafe.md has the same counts.

A row of its tables stands for one block or implementation, or for several of one kind if it says so ("(3)"); functions are
listed by name, those of a trait once.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOC = ROOT / "docs" / "unsafe.md"


def counts():
    found = {}
    for path in sorted((ROOT / "src").rglob("*.rs")):
        text = re.sub(r"//.*", "", path.read_text())
        blocks = len(re.findall(r"\bunsafe\s*\{", text))
        impls = len(re.findall(r"\bunsafe\s+impl\b", text))
        functions = len(set(re.findall(r"\bunsafe\s+fn\s+([a-z_]\w*)\s*[<(]", text)))
        if blocks or impls or functions:
            found[str(path.relative_to(ROOT / "src"))] = (blocks + impls, functions)
    return found


def documented():
    listed = {}
    for name, section in re.findall(r"^### `([^`]+)`\n(.*?)(?=^#|\Z)", DOC.read_text(), re.M | re.S):
        rows = [row for row in section.splitlines() if row.startswith("| ")][2:]
        blocks = 0
        for row in rows:
            times = re.match(r"\| .*?\((\d+)\) \|", row)
            blocks += int(times.group(1)) if times else 1
        line = re.search(r"^Unsafe functions: (.*)$", section, re.M)
        functions = len(re.findall(r"`[^`]+`", line.group(1))) if line else 0
        listed[name] = (blocks, functions)
    return listed


def main():
    found, listed = counts(), documented() if DOC.exists() else {}
    if "--check" not in sys.argv:
        for name, (blocks, functions) in found.items():
            print(f"{name:36} {blocks:3} blocks and implementations, {functions:2} functions")
        return 0
    wrong = [name for name in sorted(found.keys() | listed.keys()) if found.get(name) != listed.get(name)]
    for name in wrong:
        print(f"docs/unsafe.md: {name}: has {found.get(name)}, lists {listed.get(name)} (blocks, functions)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
