#!/usr/bin/env python3
"""Measures gradflow-mpi on one and two ranks, in turn, and extrapolates to larger clusters with a model.

    cargo build --release --example scaling
    python3 measure.py target/release/examples/scaling [--rounds 5] [--steps 5] [--before "chrt -f 50"]

Each round starts mpirun once for each row, so that rows of 1 and 2 ranks alternate; the best step of all rounds counts. Prints the
tables of README.md. Needs Open MPI (for `--mca`) and two free cores. For networks of 10 and 1 Gbit/s, a separate loopback device with
limited rate is set up (`unshare -n`, `tc`), which needs root. Both directions share the device, so it has twice the rate.
"""

import argparse
import math
import os
import shlex
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--before", default="", help="what stands before mpirun: chrt -f 50, nice …")
arguments = parser.parse_args()

os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
MODELS = {
    "lstm512": "LSTM, I and H 512, T 50, B 64",
    "residual": "eight residual blocks, 512 to 1024, T 50, B 64",
    "char_lm32": "`char_lm`'s model, T 64, B 32",
    "char_lm": "`char_lm`'s model, T 64, B 8",
}
WAYS = [("plain", 1), ("tree", 1), ("tree", 2), ("mpi", 2), ("bf16", 2)]
# Rate limits of the loopback device: "" is unlimited, None is no device at all.
TRANSPORTS = {"shared memory": None, "TCP": "", "TCP, 10 Gbit/s": "20gbit", "TCP, 1 Gbit/s": "2gbit"}
LOOPBACK = "--mca btl tcp,self --mca btl_tcp_if_include lo --mca oob_tcp_if_include lo".split()


def run(ranks, transport, *words):
    rate = TRANSPORTS[transport]
    network = [] if rate is None else LOOPBACK
    command = arguments.before.split() + ["mpirun", "--bind-to", "core", *network, "-n", str(ranks), arguments.program, *words]
    if rate is not None:
        limit = f"tc qdisc add dev lo root tbf rate {rate} burst 256kb latency 50ms && " if rate else ""
        command = ["unshare", "-n", "bash", "-c", f"ip link set lo up && {limit} exec {shlex.join(command)}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[1:] for line in lines if line.startswith("row: ")]


best = {}


def keep(key, times):
    """Keeps the least time of a whole step, and the least time of each of its parts over all steps."""
    times = list(map(float, times))
    best[key] = [min(pair) for pair in zip(best.get(key, [math.inf] * 3), times)]


sizes = {}
for _ in range(arguments.rounds):
    for name, rate in TRANSPORTS.items():
        for model in MODELS:
            for way, ranks in WAYS if rate is None else [("tree", 2)]:
                [[_, _, _, size, *times]] = run(ranks, name, "steps", model, way, str(arguments.steps))
                keep((name, model, way, ranks), times)
                sizes[model] = int(size)
        if not rate:
            for ranks in [1, 2]:
                for _, _, _, size, *times in run(ranks, name, "messages"):
                    keep((name, "message", int(size), ranks), times)
        for _, _, way, _, *times in run(2, name, "buckets", str(arguments.steps)):
            keep((name, "buckets", way), times)


def ms(seconds):
    return f"{1e3 * seconds:.{3 if seconds < 1e-3 else 2 if seconds < 1e-2 else 1}f}"


print("| | gradient | one rank, no shards | one rank, two shards | two ranks | efficiency | communication | its share |")
print("| --- | --- | --- | --- | --- | --- | --- | --- |")
for model, text in MODELS.items():
    plain, one, two = (best["shared memory", model, *key] for key in WAYS[:3])
    print(f"| {text} | {sizes[model] / 1e6:.1f} MB | {ms(plain[0])} | {ms(one[0])} | {ms(two[0])} | {one[0] / two[0] / 2:.3f} "
          f"| {ms(two[2])} | {100 * two[2] / two[0]:.1f} % |")

print("\n| | tree | MPI's all-reduce | tree, bfloat16 |\n| --- | --- | --- | --- |")
for model, text in MODELS.items():
    row = [best["shared memory", model, way, 2] for way in ["tree", "mpi", "bf16"]]
    print(f"| {text} | " + " | ".join(f"{ms(whole)}, {ms(sent)}" for whole, _, sent in row) + " |")

print("\n| eight residual blocks, two ranks | " + " | ".join(TRANSPORTS) + " |\n| --- |" + " --- |" * len(TRANSPORTS))
for way, text in [("none", "no gradients are sent"), ("after", "`TreeSum`, after the backward pass"), ("during", "`BucketSum`, during it")]:
    print(f"| {text} | " + " | ".join(ms(best[name, "buckets", way][0]) for name in TRANSPORTS) + " |")

# t(n, R) = 2 log2(R) a + 2 n (R - 1) / R / b + n m: latency, bandwidth, and the work of the memory on n bytes.
large = 1 << 25
memory = best["shared memory", "message", large, 1][2] / large
fitted = {}
for name in ["shared memory", "TCP"]:
    latency = best[name, "message", 4, 2][2] / 2  # one message for the weights, one for the gradient
    slope = (best[name, "message", large, 2][2] - 2 * latency) / large
    fitted[name] = (latency, 1 / (slope - memory))
    print(f"\n{name}: a = {1e6 * latency:.1f} µs, b = {fitted[name][1] / 1e9:.2f} GB/s; m = {1e9 * memory:.3f} ns/B")


def seconds(size, ranks, latency, bandwidth):
    levels = math.log2(ranks)
    return 3 * levels * latency + 2 * size * (ranks - 1) / ranks / bandwidth + size * memory


for name, rate in [("TCP, 10 Gbit/s", 1.25e9), ("TCP, 1 Gbit/s", 0.125e9)]:
    fitted[name] = (fitted["TCP"][0], 0.9 * rate)
print("\n| two ranks: model, measured | " + " | ".join(fitted) + " |\n| --- |" + " --- |" * len(fitted))
for model, text in MODELS.items():
    cells = [f"{ms(seconds(sizes[model], 2, *fitted[name]))}, {ms(best[name, model, 'tree', 2][2])}" for name in fitted]
    print(f"| {text} | " + " | ".join(cells) + " |")

NETWORKS = {"10 Gbit/s": (30e-6, 0.9 * 1.25e9), "100 Gbit/s": (3e-6, 0.9 * 12.5e9)}
nodes = [8, 32, 64, 128, 256]
print("\n| on paper: efficiency | " + " | ".join(f"{count}" for count in nodes) + " |")
print("| --- |" + " --- |" * len(nodes))
for model, text in MODELS.items():
    whole, _, sent = best["shared memory", model, "tree", 2]
    compute = whole - sent
    for network, parameters in NETWORKS.items():
        times = [seconds(sizes[model], count, *parameters) for count in nodes]
        print(f"| {text}; {network} | " + " | ".join(f"{compute / (compute + t):.3f} ({ms(t)})" for t in times) + " |")
