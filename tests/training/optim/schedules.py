"""Writes schedules.safetensors: PyTorch's schedules over hundreds of steps, in f64. Run by hand; schedules.rs beside it reads it.

`schedule.<text>` [STEPS] has the learning rate of each step. `metric.<name>` [STEPS] has the inputs of `ReduceLROnPlateau`, and
`plateau.<name>.<text>` [N, 2] has the calls after which the learning rate changes, with the new learning rate.
"""

import itertools
import math
import pathlib
import warnings

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.optim import lr_scheduler as s

warnings.filterwarnings("ignore")
STEPS = 300


def optimizer(lr):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)


def rates(lr, make):
    o = optimizer(lr)
    schedule = make(o)
    found = []
    for _ in range(STEPS):
        found.append(o.param_groups[0]["lr"])
        o.step()
        schedule.step()
    return np.array(found)


def linear(lr, steps, end):
    """Base rate and schedule: PyTorch's factors are at most 1."""
    top = max(lr, end)
    return top, lambda o: s.LinearLR(o, lr / top, end / top, steps)


def schedules():
    """Maps texts to base rate and schedule."""
    cases = {}
    for lr, steps, end in [(0.1, 100, 0.02), (0.1, 1, 0.0), (0.001, 50, 0.1), (0.3, 299, 0.3), (0.2, 1000, 0.1), (3e-4, 7, 1e-6)]:
        cases[f"linear({lr}, {steps}, {end})"] = linear(lr, steps, end)
    for lr, gamma in [(0.1, 0.99), (0.1, 0.5), (0.001, 1.0), (1e-6, 1.01), (0.3, 0.999)]:
        cases[f"exponential({lr}, {gamma})"] = lr, lambda o, gamma=gamma: s.ExponentialLR(o, gamma)
    for lr, steps, power in [(0.1, 100, 1.0), (0.1, 300, 2.0), (0.1, 400, 0.5), (0.2, 250, 0.9), (0.1, 5, 0.0), (0.1, 1, 3.0), (0.1, 1000, 4.5)]:
        cases[f"polynomial({lr}, {steps}, {power})"] = lr, lambda o, n=steps, power=power: s.PolynomialLR(o, n, power)
    for lr, steps, multiplier, minimum in [
        (0.1, 10, 1, 0.0), (0.1, 10, 2, 0.001), (0.1, 1, 1, 0.01), (0.1, 1, 2, 0.01), (0.2, 7, 3, 0.0), (0.1, 130, 1, 0.02), (0.1, 500, 2, 0.0),
        (0.01, 3, 10, 0.05),
    ]:  # fmt: skip
        make = lambda o, n=steps, m=multiplier, low=minimum: s.CosineAnnealingWarmRestarts(o, n, m, low)
        cases[f"cosine_warm_restarts({lr}, {steps}, {multiplier}, {minimum})"] = lr, make
    for text, n, start in [
        ("linear(0.1, 100, 0.02)", 20, 0.01), ("exponential(0.1, 0.99)", 5, 0.25), ("polynomial(0.1, 300, 2.0)", 50, 0.1),
        ("cosine_warm_restarts(0.1, 10, 2, 0.001)", 13, 0.02), ("cosine_warm_restarts(0.1, 130, 1, 0.02)", 1, 0.5),
    ]:  # fmt: skip
        lr, then = cases[text]
        make = lambda o, then=then, n=n, start=start: s.SequentialLR(o, [s.LinearLR(o, start, 1.0, n), then(o)], [n])
        cases[f"warm_up({n}, {start}) {text}"] = lr, make
    return cases


def metrics():
    t = np.arange(STEPS)
    noise = np.random.default_rng(7).normal(size=STEPS)
    odd = 1.0 / (1 + 0.02 * t) + 0.02 * noise
    odd[[3, 50, 51, 52, 200]], odd[[90, 250]], odd[120] = math.nan, math.inf, -math.inf
    return {
        "falling": 1.0 / (1 + 0.05 * t) + 0.03 * noise,
        "rising": 1.0 - np.exp(-0.02 * t) + 0.01 * noise,
        "stairs": np.floor(10 - t / 37) / 10,
        "below_0": -np.log1p(0.1 * t) + 0.05 * noise,
        "odd": odd,
    }


PLATEAUS = [
    dict(),
    dict(mode="max"),
    dict(factor=0.5, patience=3),
    dict(mode="max", factor=0.9, patience=0),
    dict(patience=5, threshold=0.01, cooldown=4),
    dict(mode="max", patience=4, threshold=0.05, cooldown=2, factor=0.7),
    dict(patience=4, threshold=0.02, threshold_mode="abs", factor=0.3),
    dict(mode="max", patience=2, threshold=0.01, threshold_mode="abs", factor=0.8, cooldown=7),
    dict(patience=1, min_lr=0.01, factor=0.6),
    dict(patience=1, eps=0.005, factor=0.8),
    dict(patience=0, threshold=0.0, factor=0.95, min_lr=1e-4, cooldown=1),
    dict(factor=0.0, patience=20),
    dict(patience=6, min_lr=0.5),
]


def plateau(metric, **settings):
    o = optimizer(0.1)
    schedule = s.ReduceLROnPlateau(o, **settings)
    found, rate = [], 0.1
    for call, value in enumerate(metric):
        schedule.step(value)
        if o.param_groups[0]["lr"] != rate:
            rate = o.param_groups[0]["lr"]
            found.append([call, rate])
    return np.array(found, dtype=np.float64).reshape(len(found), 2)


def plateau_text(mode="min", factor=0.1, patience=10, threshold=1e-4, threshold_mode="rel", cooldown=0, min_lr=0.0, eps="1e-8"):
    best = "inf" if mode == "min" else "-inf"
    return (
        f"reduce_lr_on_plateau(0.1, {mode}, {factor}, {patience}, {threshold}, {threshold_mode}, {cooldown}, {min_lr}, {eps}) "
        f"best({best}, 0, 0)"
    )


seen = metrics()
tensors = {f"schedule.{text.replace('e-0', 'e-')}": rates(*case) for text, case in schedules().items()}
tensors |= {f"metric.{name}": values for name, values in seen.items()}
for (name, values), settings in itertools.product(seen.items(), PLATEAUS):
    tensors[f"plateau.{name}.{plateau_text(**settings)}"] = plateau(values, **settings)
file = pathlib.Path(__file__).with_suffix(".safetensors")
save_file(tensors, file, {"reference": f"torch {torch.__version__.split('+')[0]}"})
print(f"{len(tensors)} tensors, {file.stat().st_size} bytes, {sum(len(x) for k, x in tensors.items() if k.startswith('plateau'))} reductions")
