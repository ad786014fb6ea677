"""Writes random cases of the kinds `rnn` and `cell`, with PyTorch as the reference, in the format of the golden cases.

    python tests/golden/random_cases.py FOLDER --seed 1 --count 200     writes 200 cases into FOLDER
    python tests/golden/random_cases.py FOLDER --seed 1 --only 17 42    writes two of them
    cargo test … -- --nocapture | python tests/golden/random_cases.py --summary

Needs torch, numpy and safetensors. Each case is drawn from the seed and its number alone, so it can be written again by its name, which
begins with both: `random_1_17_…`. `README.md` describes how to run the cases.
"""

import argparse
import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import numpy as np
import torch

from generator import case
from generator.given import GATES
from generator.recurrent import CELLS, recurrent, run_cell, run_rnn

LARGEST = 130
# Sizes at which kernels take another path: the widths of vectors, and multiples of them.
EDGES = [8, 16, 32, 64, 128]
# The most numbers in a file: 3.2 MB in F64.
NUMBERS = 400_000
TOLERANCES = {"F64": 1e-11, "F32": 3e-5}
# The least distance of relu's pre-activations from 0: more than rounding can move them.
FLOORS = {"F64": 1e-10, "F32": 1e-5}
LAYOUTS = ["batch_first", "features_first", "every_second", "reversed"]


def size(rng):
    """A small size, one near an edge, or any, each with equal probability."""
    how = rng.integers(3)
    if how == 0:
        return int(rng.integers(1, 9))
    if how == 1:
        return int(min(rng.choice(EDGES) + rng.integers(-1, 3), LARGEST))
    return int(rng.integers(1, LARGEST + 1))


def numbers(options, batch, steps):
    """Number of values in a case, given and expected."""
    inputs, hidden = options["input_size"], options["hidden_size"]
    module = options["module"].removesuffix("Cell")
    layers, directions = options.get("num_layers", 1), 1 + options.get("bidirectional", False)
    out = options.get("proj_size", 0) or hidden
    parameters = 0
    for layer in range(layers):
        received = directions * out if layer else inputs
        parameters += directions * (GATES[module] * hidden * (received + out + 2) + hidden * options.get("proj_size", 0))
    return 2 * parameters + 2 * steps * batch * (inputs + directions * out) + 8 * layers * directions * batch * hidden


def draw(rng):
    """The options of a case, the arguments of `recurrent` to draw its tensors, and the words for its name."""
    kind, module, nonlinearity = CELLS[rng.integers(len(CELLS))]
    of_sequence = rng.random() < 0.85
    hidden, batch = size(rng), size(rng)
    steps = size(rng) if of_sequence else None
    options = {
        "kind": "rnn" if of_sequence else "cell", "module": module if of_sequence else module + "Cell",
        "nonlinearity": nonlinearity, "input_size": size(rng), "hidden_size": hidden, "bias": bool(rng.random() < 0.75),
        "dtype": str(rng.choice(["F64", "F32"])),
    }  # fmt: skip
    options["tolerance"] = TOLERANCES[options["dtype"]]
    given = {"state": bool(rng.random() < 0.7), "gain": float(rng.choice([0.5, 0.8, 1.1]))}
    given["scale"] = float(rng.choice([1.0, 5.0], p=[0.8, 0.2]))
    if of_sequence:
        options["num_layers"] = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
        options["bidirectional"] = bool(rng.random() < 0.4)
        projected = module == "LSTM" and hidden > 1 and rng.random() < 0.4
        options["proj_size"] = int(rng.integers(1, hidden)) if projected else 0
        if rng.random() < 0.6:
            longest = steps if rng.random() < 0.7 else int(rng.integers(1, steps + 1))
            given["lengths"] = [int(length) for length in rng.integers(1, longest + 1, batch)]
            given["junk"] = float(rng.choice([1e30, np.nan]))
    if rng.random() < 0.6:
        options["memory_layout"] = str(rng.choice(LAYOUTS))
    words = [
        kind if of_sequence else f"{kind}_cell", options["dtype"].lower(),
        f"{options['num_layers']}layer" if options.get("num_layers", 1) > 1 else "",
        "bi" if options.get("bidirectional") else "", f"p{options['proj_size']}" if options.get("proj_size") else "",
        f"i{options['input_size']}", f"h{hidden}", f"b{batch}", f"t{steps}" if of_sequence else "",
        "lengths" if "lengths" in given else "", "" if options["bias"] else "no_bias",
        "" if given["state"] else "no_state", options.get("memory_layout", ""),
    ]  # fmt: skip
    fits = numbers(options, batch, steps or 1) <= NUMBERS
    return options, (batch, steps), given, "_".join(filter(None, words)), fits


def write(seed, number):
    """Writes case `number`: the first one that is small enough and fit to be compared. Returns how many were unfit."""
    rng, unfit = np.random.default_rng([seed, number]), 0
    while True:
        options, sizes, given, words, fits = draw(rng)
        if not fits:
            continue
        name = f"random_{seed}_{number}_{words}"
        tensors = recurrent(options["input_size"], options["hidden_size"], *sizes, **given)
        run = run_rnn if options["kind"] == "rnn" else run_cell
        try:
            case.write(name, tensors, run, attempts=3, floor=FLOORS[options["dtype"]], **options)
        except case.Unfit:
            unfit += 1
            continue
        return unfit


def summary(lines):
    """Reads the golden test's output: the number of random cases of each kind and type, and the largest error."""
    line_of_case = re.compile(r"(random_\d+_\d+_(\w+?)_(f32|f64)_\w+)\s+(\S+)\s+(\S+)\s+(ok|FAIL)")
    errors, failed = {}, []
    for line in lines:
        if found := line_of_case.match(line.removeprefix("test ")):
            name, kind, dtype, error, _, verdict = found.groups()
            errors.setdefault((kind, dtype), []).append(float("nan" if error == "-" else error))
            failed += [line.strip()] if verdict == "FAIL" else []
    print("| kind | type | cases | largest error |\n| --- | --- | --- | --- |")
    for (kind, dtype), of_kind in sorted(errors.items()):
        print(f"| `{kind}` | {dtype} | {len(of_kind)} | {np.max(of_kind):.1e} |")
    print(f"\n{sum(map(len, errors.values()))} cases, {len(failed)} failed", *failed, sep="\n")
    return not errors or bool(failed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER")
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if arguments.summary:
        sys.exit(summary(sys.stdin))
    if arguments.folder is None:
        parser.error("no folder to write into")
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    case.FOLDER = arguments.folder
    unfit = 0
    for number in arguments.only or range(arguments.count):
        for old in arguments.folder.glob(f"random_{arguments.seed}_{number}_*.safetensors"):
            old.unlink()
        unfit += write(arguments.seed, number)
    files = list(arguments.folder.glob("*.safetensors"))
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    print(f"{len(files)} cases, {megabytes:.1f} MB; {unfit} were ill-conditioned or near a kink, and drawn again")
    print(f"torch {torch.__version__}")


if __name__ == "__main__":
    main()
