"""Writes ctc.safetensors: random batches, and the results of PyTorch's CTC loss in float64.

Run by hand; needs PyTorch:

    python tests/training/data/ctc.py             writes it
    python tests/training/data/ctc.py time        prints PyTorch's times for the shapes of benches/losses.rs
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

FILE = Path(__file__).parent / "ctc.safetensors"


def case(random, k):
    steps, batch, classes = random.integers(1, 14), random.integers(1, 5), random.integers(2, 9)
    blank = int(random.integers(classes)) if k % 3 == 0 else 0
    logits = torch.tensor(random.normal(0, [0.5, 3, 40][k % 3], (steps, batch, classes)), requires_grad=True)
    lengths = torch.tensor(random.integers(1, steps + 1, batch))
    lengths[random.integers(batch)] = steps
    # Some do not fit; some are empty; with few classes, most repeat labels.
    counts = torch.tensor(random.integers(0, max(2, steps // 2 + 1), batch))
    others = [label for label in range(classes) if label != blank]
    labels = torch.tensor(random.choice(others, (int(counts.sum()),)), dtype=torch.int64)
    options = {"blank": blank, "zero_infinity": bool(k % 2), "reduction": "sum" if k % 5 == 0 else "mean"}
    loss = torch.nn.functional.ctc_loss(logits.log_softmax(2), labels, lengths, counts, **options)
    loss.backward()
    tensors = {"logits": logits.detach(), "lengths": lengths, "counts": counts, "labels": labels}
    tensors |= {"loss": loss.detach().reshape(1), "gradient": logits.grad}
    return {f"{k}.{name}": tensor.contiguous() for name, tensor in tensors.items()}, {str(k): json.dumps(options)}


def times():
    torch.set_num_threads(1)
    for steps, batch, classes, count in [(50, 16, 40, 12), (200, 16, 40, 60), (200, 64, 40, 60), (500, 16, 100, 120)]:
        logits = torch.randn(steps, batch, classes, requires_grad=True)
        labels = torch.randint(1, classes, (batch, count))
        lengths, counts = torch.full((batch,), steps), torch.full((batch,), count)
        best = float("inf")
        for _ in range(30):
            start = time.perf_counter()
            logits.grad = None
            torch.nn.functional.ctc_loss(logits.log_softmax(2), labels, lengths, counts).backward()
            best = min(best, time.perf_counter() - start)
        print(f"T {steps} B {batch} V {classes} S {count}: {best * 1e3:.3f} ms")


def main():
    if sys.argv[1:] == ["time"]:
        return times()
    random = np.random.default_rng(0)
    tensors, metadata = {}, {}
    for k in range(60):
        more = case(random, k)
        tensors |= more[0]
        metadata |= more[1]
    save_file(tensors, FILE, metadata)


if __name__ == "__main__":
    main()
