#!/usr/bin/env python3
"""Functions that document panics and lack `#[track_caller]`: their panics would name a line of this crate, not the user's.

    python3 .ci/callers.py           lists them
    python3 .ci/callers.py --fix     adds the attribute
    python3 .ci/callers.py --check   fails if there are any
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent / "src"
# Kernels are called once a step or more often, and only by this crate.
SKIPPED = ROOT / "kernels"
ITEM = re.compile(r"^\s*(pub(\([a-z ]+\))? )?(const )?fn ")


def functions(lines):
    """(line of the function, indentation) of each function that documents panics without the attribute."""
    panics = attributed = False
    for number, line in enumerate(lines):
        text = line.strip()
        if text.startswith("///"):
            panics |= text == "/// # Panics"
        elif text.startswith("#["):
            attributed |= text == "#[track_caller]"
        else:
            if panics and not attributed and ITEM.match(line):
                yield number, line[: len(line) - len(line.lstrip())]
            panics = attributed = False


def main():
    found = 0
    for path in sorted(path for path in ROOT.rglob("*.rs") if SKIPPED not in path.parents):
        lines = path.read_text().split("\n")
        places = list(functions(lines))
        found += len(places)
        if sys.argv[1:] == ["--fix"]:
            for number, indentation in reversed(places):
                lines.insert(number, indentation + "#[track_caller]")
            path.write_text("\n".join(lines))
        else:
            for number, _ in places:
                print(f"{path.relative_to(ROOT.parent)}:{number + 1}: {lines[number].strip()}")
    if sys.argv[1:] == ["--check"] and found:
        sys.exit("these functions document panics and lack #[track_caller]: python3 .ci/callers.py --fix")


main()
