#!/usr/bin/env python3
"""Reads the imports of src/ and prints its floors: each folder stands on those below it.

Fails on a cycle (between top-level modules, or between the files of a folder), on an import through the crate root, and,
with --check, unless DESIGN.md shows what is printed.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
# Modules that only re-export, and texts.
NO_FLOOR = {"lib", "prelude", "author", "guide"}
PATH = re.compile(r"(?<![A-Za-z0-9_:])\$?(crate|super)((?:::[A-Za-z0-9_]+)+)")


def module_of(file):
    parts = list(file.relative_to(SRC).with_suffix("").parts)
    return tuple(parts[:-1] if parts[-1] in ("mod", "lib") else parts)


def code_of(file):
    """The text without comments and without unit tests."""
    text = re.sub(r"//.*", "", file.read_text())
    return re.split(r"#\[cfg\(test\)\]\s*mod tests \{", text)[0]


def leaves(tree, prefix=()):
    """`a::{b, c::d}` as [(a, b), (a, c, d)]; a renamed item has its original name."""
    head, brace, rest = tree.strip().partition("{")
    prefix = prefix + tuple(part for part in head.split("::") if part.strip())
    if not brace:
        return [tuple(part.split(" as ")[0].strip() for part in prefix)]
    found, depth, start = [], 0, 0
    rest = rest[: rest.rindex("}")]
    for at, char in enumerate(rest + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if rest[start:at].strip():
                found += leaves(rest[start:at], prefix)
            start = at + 1
    return found


FILES = sorted(f for f in SRC.rglob("*.rs") if "tests" not in f.relative_to(SRC).parts)
MODULES = {module_of(file): file for file in FILES}
CODE = {file: code_of(file) for file in FILES}
USES = {
    file: [(bool(m[1]), leaf) for m in re.finditer(r"(?m)^\s*(pub(?:\([a-z: ]+\))? )?use ([^;]+);", code) for leaf in leaves(m[2])]
    for file, code in CODE.items()
}


def absolute(module, path):
    """A path as written in `module`, as a path from the crate root; None if it leads to another crate."""
    if path[0] == "crate":
        return path[1:]
    module, path = list(module), list(path)
    if path[0] == "self":
        return tuple(module + path[1:])
    if path[0] == "super":
        while path and path[0] == "super":
            module, path = module[:-1], path[1:]
        return tuple(module + path)
    return tuple(module + path) if (*module, path[0]) in MODULES else None


def definition(path, seen=()):
    """The module that defines the item at `path`, seen through re-exports."""
    if path in MODULES:
        return path
    depth = max(n for n in range(len(path)) if path[:n] in MODULES)
    module, name = path[:depth], path[depth]
    if (module, name) in seen:
        return None
    for is_public, use in USES[MODULES[module]]:
        target = absolute(module, use)
        if not is_public or target is None:
            continue
        if use[-1] == name and target != (*module, name):
            return definition(target, (*seen, (module, name)))
        if use[-1] == "*" and (found := definition((*target[:-1], name), (*seen, (module, name)))) not in (None, target[:-1]):
            return found
    if module == ():
        for file, code in CODE.items():
            if re.search(rf"macro_rules! {name}\b", code):
                return module_of(file)
    return module


edges, through_root = set(), []
for file in FILES:
    module = module_of(file)
    named = [path for is_public, path in USES[file] if not is_public]
    named += [(m[1], *m[2][2:].split("::")) for m in PATH.finditer(re.sub(r"(?m)^\s*(pub(?:\([a-z: ]+\))? )?use [^;]+;", "", CODE[file]))]
    for path in named:
        target = absolute(module, path)
        if not target or module == ():
            continue
        home = definition(target)
        is_macro = home is not None and re.search(rf"macro_rules! {target[-1]}\b", CODE[MODULES[home]])
        if path[0] == "crate" and len(target) == 1 and home != target and not is_macro:
            through_root.append(f"{file.relative_to(ROOT)}: crate::{target[0]}, which is in {'::'.join(home)}")
        if home and home != module:
            edges.add((module, home))


def graph_of(folder):
    """Which children of a folder import which; `mod` stands for the items of its mod.rs."""
    graph = {}
    depth = len(folder)
    for module in MODULES:
        if module[:depth] == folder and len(module) > depth:
            graph.setdefault(module[depth], set())
    for a, b in edges:
        if a[:depth] == folder == b[:depth] and a != b:
            a, b = (m[depth] if len(m) > depth else "mod" for m in (a, b))
            if a != b:
                graph.setdefault(a, set()).add(b)
                graph.setdefault(b, set())
    return graph


def cycles(graph):
    """Sets of nodes that reach each other."""

    def reach(node):
        found, todo = set(), [node]
        while todo:
            for after in graph[todo.pop()]:
                if after not in found:
                    found.add(after)
                    todo.append(after)
        return found

    reached = {node: reach(node) for node in graph}
    return {frozenset(m for m in reached[node] if node in reached[m]) for node in graph if node in reached[node]}


faults = [f"through the crate root: {line}" for line in sorted(set(through_root))]
for folder in sorted({module[:-1] for module in MODULES if module} | {()}):
    for cycle in cycles(graph_of(folder)):
        faults.append(f"a cycle in {'/'.join(('src',) + folder)}: " + ", ".join(sorted(cycle)))
        for a, b in sorted(edges):
            depth = len(folder)
            if a[:depth] == folder == b[:depth]:
                ends = [m[depth] if len(m) > depth else "mod" for m in (a, b)]
                if ends[0] != ends[1] and set(ends) <= cycle:
                    faults.append(f"    {'::'.join(a)} -> {'::'.join(b)}")

lines = []
if not any("a cycle in src:" in fault for fault in faults):
    graph, floor = {k: v for k, v in graph_of(()).items() if k not in NO_FLOOR}, {}

    def height(node):
        if node not in floor:
            floor[node] = 1 + max((height(below) for below in graph[node]), default=-1)
        return floor[node]

    for node in graph:
        height(node)
    for level in range(max(floor.values()), -1, -1):
        for node in sorted(node for node in graph if floor[node] == level):
            text = MODULES[(node,)].read_text()
            sentence = " ".join(re.match(r"(?://!.*\n)*", text)[0].replace("//! ", "").split("//!")[0].split())
            lines.append(f"{level}  {node:<11} {sentence}")
print("\n".join(lines))
if faults:
    sys.exit("\n".join(["", *faults]))
if "--check" in sys.argv and "\n".join(lines) not in (ROOT / "DESIGN.md").read_text():
    sys.exit("\nDESIGN.md does not show these floors.")
