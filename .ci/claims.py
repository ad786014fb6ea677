#!/usr/bin/env python3
"""Runs the examples on several instruction sets and seeds, and prints the result of each of their claims.

    python3 .ci/claims.py --quick                         the quick forms: a quarter of an hour
    python3 .ci/claims.py                                 the full forms: hours
    python3 .ci/claims.py agreement --isa avx2 --seed 5   one example, one run

A run that has a log in --logs is not repeated, so a second call continues the first. For every claim, the table shows in how many runs
it held, and the lowest and highest value of each number. Fails if a claim failed or a run did not end.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ISAS = ["avx512", "avx2", "scalar"]
# The number of seeds that one run of an example uses: in the full form, in the quick form.
EXAMPLES = {
    "gradient_flow": (5, 2),
    "clipping_cliff": (1, 1),
    "lr_range": (1, 1),
    "fewer_bits": (1, 1),
    "data_parallel": (1, 1),
    "forecast": (5, 5),
    "char_lm": (1, 1),
    "temporal_order": (5, 2),
    "copy_memory": (5, 2),
    "state_tracking": (5, 2),
    "seq2seq": (5, 2),
    "pronounce": (5, 2),
    "partially_observed": (5, 2),
    "adding_problem": (5, 2),
    "agreement": (5, 2),
    "depth_sweep": (5, 2),
}
# Forms of an example that have claims of their own.
VARIANTS = {"char_lm": [["--cell", "lstm"], ["--cell", "gru"], ["--cell", "rnn"]]}
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def number(text):
    return float(text.replace(",", ""))


def available():
    """The instruction sets of this machine, or all if they are unknown."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ISAS
    needed = {"avx512": "avx512f", "avx2": "avx2"}
    return [isa for isa in ISAS if isa not in needed or needed[isa] in flags]


def starts(firsts, count):
    """The first seeds of runs of `count` seeds each, which cover the five seeds from each of `firsts` on."""
    found = []
    for seed in sorted(seed for first in firsts for seed in range(first, first + 5)):
        if not found or seed >= found[-1] + count:
            found.append(seed)
    return found


def claims(log):
    """The rows of the table of claims in a log: (claim, published, expected, here, verdict)."""
    lines = log.splitlines()
    for i, line in enumerate(lines):
        if i and re.fullmatch(r"-+(  -+){3,4}", line):
            widths = [len(rule) for rule in line.split("  ")]
            for row in lines[i + 1 :]:
                if not row.strip():
                    return
                cells, at = [], 0
                for width in widths[:4]:
                    cells.append(row[at : at + width].strip())
                    at += width + 2
                yield (*cells, row[at:].strip())


def spread(texts):
    """Texts that differ in their numbers, merged into one with the lowest and highest of each number."""
    shapes = {NUMBER.sub("#", text) for text in texts}
    if len(set(texts)) == 1:
        return texts[0]
    if len(shapes) > 1:
        return " | ".join(sorted(set(texts)))
    columns = iter(list(zip(*(NUMBER.findall(text) for text in texts))))

    def both(_):
        column = next(columns)
        low, high = min(column, key=number), max(column, key=number)
        return low if number(low) == number(high) else f"{low}..{high}"

    return NUMBER.sub(both, texts[0])


def run(binary, name, variant, isa, seed, arguments):
    log = arguments.logs / f"{'-'.join([name, *variant[1::2], isa, str(seed), 'quick' if arguments.quick else 'full'])}.log"
    if not log.exists():
        command = [binary, *variant, "--seed", str(seed), "--out", arguments.logs / log.stem]
        command += ["--quick"] if arguments.quick else []
        start = time.time()
        environment = os.environ | {"GRADFLOW_ISA": isa}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        last = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        text = "\n".join([done.stdout, *last, f"exit {done.returncode}, {time.time() - start:.0f} s", ""])
        log.with_suffix(".part").write_text(text)
        log.with_suffix(".part").rename(log)
    text = log.read_text()
    status = re.search(r"exit (-?\d+), (\d+) s", text)
    print(f"{log.stem}: exit {status[1]}, {status[2]} s", file=sys.stderr, flush=True)
    return text, int(status[1])


def table(name, logs):
    rows = defaultdict(list)
    for text in logs:
        # A title may occur several times.
        times = defaultdict(int)
        for what, _, expected, here, verdict in claims(text):
            what = NUMBER.sub("#", what) if name == "lr_range" else what
            times[what] += 1
            rows[what, times[what]].append((expected, here, verdict))
    for (what, _), runs in rows.items():
        verdicts = [verdict for _, _, verdict in runs if verdict]
        held = f"{verdicts.count('holds')} of {len(verdicts)}" if verdicts else ""
        expected, here = (spread([run[k] for run in runs]) for k in (0, 1))
        print(f"  {what}: {here}" + (f"  [{expected}: {held}]" if held else ""))
    ends = [re.search(r"^ +(LSTM|GRU|RNN) +(\d\.\d+) +after", text, re.M) for text in logs]
    if any(ends):
        for cell in ("LSTM", "GRU", "RNN"):
            bits = [float(end[2]) for end in ends if end and end[1] == cell]
            if bits:
                print(f"  {cell}, bits per character: {min(bits):.3f} to {max(bits):.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help="which [all]")
    parser.add_argument("--quick", action="store_true", help="the quick forms")
    parser.add_argument("--isa", action="append", choices=ISAS, help="an instruction set [all that the machine has]")
    parser.add_argument("--seed", action="append", type=int, help="the first of five seeds [0 and 5]")
    parser.add_argument("--logs", type=Path, default=ROOT / "out" / "claims", help="where logs go [out/claims]")
    parser.add_argument("--binaries", type=Path, help="where the built examples are [they are built]")
    arguments = parser.parse_args()
    unknown = set(arguments.examples) - set(EXAMPLES)
    if unknown:
        parser.error(f"no such example: {', '.join(sorted(unknown))}; there are {', '.join(EXAMPLES)}")
    binaries = arguments.binaries
    if binaries is None:
        subprocess.run(["cargo", "build", "--locked", "--release", "--examples"], cwd=ROOT, check=True)
        target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
        binaries = ROOT / target / "release" / "examples"
    arguments.logs.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in arguments.examples or EXAMPLES:
        count = EXAMPLES[name][arguments.quick]
        logs = []
        for isa in arguments.isa or available():
            for seed in starts(arguments.seed or [0, 5], count):
                for variant in VARIANTS.get(name, [[]]):
                    text, status = run(binaries / name, name, variant, isa, seed, arguments)
                    logs.append(text)
                    if status:
                        failed.append(f"{' '.join([name, *variant])}, {isa}, seed {seed}: status {status}")
        print(f"\n{name}, {len(logs)} runs")
        table(name, logs)
    for failure in failed:
        print(f"FAILED: {failure}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
