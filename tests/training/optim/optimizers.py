"""Writes optimizers.json: results of PyTorch's optimizers and schedules, in f64. Run by hand; mod.rs beside it reads it.

Two parameters, w [3, 2] and b [3], and gradients that depend on them and on the step:
g[k] = 0.3 p[k] + sin(1.3 t + 0.7 k + offset), t from 1, offset 0 for w and 0.4 for b.
"""

import json
import math
import pathlib
import warnings

import torch

warnings.filterwarnings("ignore")
STEPS = 7
# For maxima and products, which settle more slowly.
LONG_STEPS = 500
# NAdam's product has the default type, whatever the type of the parameters.
torch.set_default_dtype(torch.float64)

OPTIMIZERS = [
    ("Sgd", torch.optim.SGD, dict(lr=0.1)),
    ("Sgd", torch.optim.SGD, dict(lr=0.1, weight_decay=0.05)),
    ("Sgd", torch.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0.25, weight_decay=0.05)),
    ("Sgd", torch.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True)),
    ("Adam", torch.optim.Adam, dict(lr=0.05)),
    ("Adam", torch.optim.Adam, dict(lr=0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
    ("AdamW", torch.optim.AdamW, dict(lr=0.05)),
    ("AdamW", torch.optim.AdamW, dict(lr=0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2)),
    ("RmsProp", torch.optim.RMSprop, dict(lr=0.02)),
    ("RmsProp", torch.optim.RMSprop, dict(lr=0.02, alpha=0.9, eps=1e-3, weight_decay=0.1)),
    ("RmsProp", torch.optim.RMSprop, dict(lr=0.02, momentum=0.8)),
    ("RmsProp", torch.optim.RMSprop, dict(lr=0.02, alpha=0.9, centered=True)),
    ("RmsProp", torch.optim.RMSprop, dict(lr=0.02, alpha=0.9, centered=True, momentum=0.8, weight_decay=0.1)),
    ("Adagrad", torch.optim.Adagrad, dict(lr=0.1)),
    ("Adagrad", torch.optim.Adagrad,
     dict(lr=0.1, lr_decay=0.05, initial_accumulator_value=0.3, eps=1e-3, weight_decay=0.1)),
    ("Adam", torch.optim.Adam, dict(lr=0.05, betas=(0.8, 0.7), amsgrad=True)),
    ("Adam", torch.optim.Adam, dict(lr=0.05, betas=(0.9, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True)),
    ("AdamW", torch.optim.AdamW, dict(lr=0.05, betas=(0.8, 0.7), amsgrad=True)),
    ("AdamW", torch.optim.AdamW, dict(lr=0.05, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.2, amsgrad=True)),
    ("NAdam", torch.optim.NAdam, dict(lr=0.05)),
    ("NAdam", torch.optim.NAdam, dict(lr=0.05, betas=(0.8, 0.95), eps=1e-3, momentum_decay=0.3)),
    ("NAdam", torch.optim.NAdam, dict(lr=0.05, weight_decay=0.1, momentum_decay=0.0)),
    ("NAdam", torch.optim.NAdam,
     dict(lr=0.05, betas=(0.8, 0.95), weight_decay=0.2, momentum_decay=0.05, decoupled_weight_decay=True)),
]


def parameters():
    w = torch.tensor([math.cos(1.0 + k) for k in range(6)], dtype=torch.float64).reshape(3, 2)
    b = torch.tensor([0.5 - 0.3 * k for k in range(3)], dtype=torch.float64)
    return [w.requires_grad_(), b.requires_grad_()]


def run(optimizer, tensors, steps=STEPS, first=1):
    for t in range(first, steps + 1):
        for p, offset in zip(tensors, [0.0, 0.4]):
            k = torch.arange(p.numel(), dtype=torch.float64).reshape(p.shape)
            p.grad = 0.3 * p.detach() + torch.sin(1.3 * t + 0.7 * k + offset)
        optimizer.step()
    return [value for p in tensors for value in p.detach().flatten().tolist()]


def moments(optimizer, tensors):
    found = {}
    for name, p in zip(["w", "b"], tensors):
        for moment, value in optimizer.state[p].items():
            if moment != "step" and value is not None:
                found[f"{moment}.{name}"] = value.flatten().tolist()
    return found


def optimizers():
    cases = []
    added = [case for case in OPTIMIZERS if case[0] == "NAdam" or "amsgrad" in case[2]]
    for steps, (name, kind, settings) in [(STEPS, case) for case in OPTIMIZERS] + [(LONG_STEPS, case) for case in added]:
        tensors = parameters()
        optimizer = kind(tensors, **settings)
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
        values = run(optimizer, tensors, steps)
        case = dict(optimizer=name, settings=settings, values=values, moments=moments(optimizer, tensors))
        cases.append(case if steps == STEPS else case | dict(steps=steps))
    # Groups: b without decay, at half the learning rate.
    w, b = parameters()
    optimizer = torch.optim.AdamW(
        [dict(params=[w]), dict(params=[b], lr=0.025, weight_decay=0.0)], lr=0.05, weight_decay=0.2
    )
    return cases, run(optimizer, [w, b])


AVERAGE_AT = [1, 2, 3, 10, 50, 300]


def averages():
    """The average after some updates, one for each step of plain gradient descent."""
    s = torch.optim.swa_utils
    cases = []
    for kind, decay, warm_up, start in [
        ("Ema", 0.999, False, 0), ("Ema", 0.9, False, 0), ("Ema", 0.5, False, 0), ("Ema", 0.2, False, 0), ("Ema", 0.0, False, 0),
        ("Ema", 0.99, True, 0), ("Ema", 0.99, False, 7), ("Ema", 0.95, True, 20), ("Swa", None, False, 0), ("Swa", None, False, 40),
    ]:  # fmt: skip
        def warm(average, p, n, decay=decay):
            d = min(decay, (1 + n.item()) / (10 + n.item()))
            return average * d + p * (1 - d)

        if kind == "Swa":
            how = {}
        else:
            how = dict(avg_fn=warm) if warm_up else dict(multi_avg_fn=s.get_ema_multi_avg_fn(decay))
        tensors = parameters()
        module = torch.nn.ParameterList(tensors)
        optimizer = torch.optim.SGD(tensors, lr=0.1)
        average, found = s.AveragedModel(module, **how), {}
        for t in range(1, AVERAGE_AT[-1] + 1):
            run(optimizer, tensors, t, first=t)
            if t <= start + 1:  # the first counted one is a copy, too
                average = s.AveragedModel(module, **how)
            average.update_parameters(module)
            if t in AVERAGE_AT:
                found[t] = [value for p in average.module for value in p.detach().flatten().tolist()]
        case = dict(kind=kind, warm_up=warm_up, start=start, at=found)
        cases.append(case if decay is None else case | dict(decay=decay))
    return cases


def rates(lr, steps, make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def schedules():
    s = torch.optim.lr_scheduler
    warm = lambda o, then, n, start: s.SequentialLR(o, [s.LinearLR(o, start, 1.0, n), then(o)], [n])
    return {
        "constant(0.1)": rates(0.1, 4, lambda o: s.ConstantLR(o, 1.0)),
        "step(0.1, 3, 0.5)": rates(0.1, 14, lambda o: s.StepLR(o, 3, 0.5)),
        "cosine(0.1, 10, 0.001)": rates(0.1, 25, lambda o: s.CosineAnnealingLR(o, 10, 0.001)),
        "one_cycle(0.1, 20, 0.3, 25.0, 10000.0)": rates(0.1, 20, lambda o: s.OneCycleLR(o, 0.1, 20)),
        "one_cycle(0.3, 13, 0.45, 10.0, 100.0)": rates(
            0.1, 13, lambda o: s.OneCycleLR(o, 0.3, 13, pct_start=0.45, div_factor=10.0, final_div_factor=100.0)
        ),
        "one_cycle(0.3, 5, 0.0, 10.0, 100.0)": rates(
            0.1, 5, lambda o: s.OneCycleLR(o, 0.3, 5, pct_start=0.0, div_factor=10.0, final_div_factor=100.0)
        ),
        "warm_up(5, 0.01) cosine(0.1, 10, 0.001)": rates(
            0.1, 15, lambda o: warm(o, lambda o: s.CosineAnnealingLR(o, 10, 0.001), 5, 0.01)
        ),
        "warm_up(4, 0.25) step(0.1, 3, 0.5)": rates(0.1, 14, lambda o: warm(o, lambda o: s.StepLR(o, 3, 0.5), 4, 0.25)),
    }


cases, groups = optimizers()
lines = lambda items: ",\n".join(items)
pathlib.Path(__file__).with_suffix(".json").write_text(
    f'{{"torch": "{torch.__version__}",\n"optimizers": [\n{lines(json.dumps(case) for case in cases)}],\n'
    f'"groups": {json.dumps(groups)},\n"averages": [\n{lines(json.dumps(case) for case in averages())}],\n"schedules": {{\n'
    + lines(f"{json.dumps(name)}: {json.dumps(rates)}" for name, rates in schedules().items())
    + "}}\n"
)
