#!/usr/bin/env python3
"""Checks that the documents agree with the repository.

- Files that Markdown links to, or names in backticks with a folder, exist.
- The README's first program is examples/quickstart.rs; with --run, it prints what the README shows, up to 0.1.
- Lists and numbers: features, the Rust version, optimizers, losses, crates, the how-to pages and the examples.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
faults = []


def check(holds, fault):
    if not holds:
        faults.append(fault)


def read(path):
    return (ROOT / path).read_text()


def documents():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.splitlines()]


def check_files(document):
    text = read(document)
    folder = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path = target.split("#")[0]
        if path and not re.match(r"[a-z]+:", path) and "::" not in path:
            check((folder / path).exists(), f"{document}: a link to {path}, which does not exist")
    # Patterns (`tests/{a,b}`, `src/*.rs`) and outputs of a run (`out/…`) are not files of the repository.
    for name in re.findall(r"`((?:src|tests|examples|benches|docs|fuzz|\.ci|\.github)/[\w./-]+)`", text):
        check((ROOT / name).exists() or (folder / name).exists(), f"{document}: {name} does not exist")


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def check_first_program(readme):
    program = read("examples/quickstart.rs").split("\n\n", 1)[1].strip()
    check(f"```rust\n{program}\n```" in readme, "README.md: its program is not that of examples/quickstart.rs")
    shown = re.search(r"--example quickstart` prints\s+```text\n(.*?)```", readme, re.S)
    check(shown, "README.md: no output of the first program")
    if shown and "--run" in sys.argv:
        command = ["cargo", "run", "--locked", "--quiet", "--release", "--example", "quickstart"]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        shown, printed = numbers(shown[1]), numbers(printed)
        same = len(shown) == len(printed) and all(abs(a - b) <= 0.1 for a, b in zip(shown, printed))
        check(same, f"README.md: the first program prints {printed}, not {shown}")


def count_of(pattern, text):
    word = re.search(pattern, text)
    return word and (NUMBERS.index(word[1]) if word[1] in NUMBERS else int(word[1]))


def crates(*features):
    tree = ["cargo", "tree", "--locked", "--package", "gradflow", "-e", "normal", "--prefix", "none"]
    command = [*tree, "--target", "x86_64-unknown-linux-gnu", *features]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return len({line.split(" (")[0] for line in lines.splitlines() if line}) - 1  # without gradflow


def check_numbers(readme):
    manifest = read("Cargo.toml")
    features = set(re.findall(r"^([\w-]+) = ", manifest.split("[features]")[1].split("\n[")[0], re.M)) - {"default"}
    listed = set(re.findall(r"^\| `([\w-]+)` \| (?:yes|no) \|", readme, re.M))
    check(listed == features, f"README.md: features {sorted(listed)}, Cargo.toml: {sorted(features)}")
    version = re.search(r'rust-version = "(.*)"', manifest)[1]
    check(f"Rust {version} or later" in readme, f"README.md: not the Rust version of Cargo.toml, {version}")

    sources = [path.read_text() for path in (ROOT / "src").rglob("*.rs")]
    modules = [path.stem for path in (ROOT / "src/optim").glob("*.rs") if "optimizer! {" in path.read_text()]
    exports = read("src/optim/mod.rs")
    optimizers = sum(len(re.search(rf"pub use {m}::(.*);", exports)[1].split(",")) for m in modules)
    check(count_of(r"(\w+) optimizers", readme) == optimizers, f"README.md: there are {optimizers} optimizers")
    losses = sum(len(re.findall(r"^impl<[^>]*>\s+Loss<[^>]*(?:<[^>]*>)*[^>]*>\s+for \w+", s, re.M)) for s in sources)
    check(count_of(r"(\w+) losses", readme) == losses, f"README.md: there are {losses} losses")

    lean, full = crates("--no-default-features"), crates()
    check(count_of(r"(\d+) crates without file formats", readme) == lean, f"README.md: {lean} crates without features")
    check(count_of(r"drop (\d+) dependencies", readme) == full - lean, f"README.md: safetensors brings {full - lean}")


def check_lists():
    guide = read("src/guide.rs")
    for page in sorted((ROOT / "docs/how-to").glob("*.md")):
        check(f"docs/how-to/{page.name}" in guide, f"src/guide.rs: {page.name} is not in the guide")
    examples = {path.stem for path in (ROOT / "examples").glob("*.rs")}
    examples |= {path.parent.name for path in (ROOT / "examples").glob("*/main.rs")}
    gallery, ci = read("examples/README.md"), read(".ci/run")
    for example in sorted(examples):
        check(example in gallery, f"examples/README.md: {example} is missing")
        check(example in ci or example == "quickstart", f".ci/run: {example} is never run")


readme = read("README.md")
for document in documents():
    check_files(document)
check_first_program(readme)
check_numbers(readme)
check_lists()
for fault in faults:
    print(fault, file=sys.stderr)
print(f"documents: {len(faults)} faults")
sys.exit(bool(faults))
