"""Writes weight_drop.json: recurrent layers of PyTorch with dropped hidden weights, in float64. Run by hand; weight_drop.rs reads it.

The masks are gradflow's, computed independently: SplitMix64 of the seed, the id, the number of the weight and the element's place.
"""

import json
import pathlib

import torch
from torch import nn

torch.set_default_dtype(torch.float64)
M, GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15
ID = 0x0123456789ABCDEF
T, B, I, H = 5, 2, 2, 3


def mix(key):
    z = (key + GOLDEN) & M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def mask(seed, p, number, shape):
    key = mix((mix(mix(seed) ^ ID) + number) & M)
    kept = [mix((key + GOLDEN * k) & M) >= int(p * 2.0**64) for k in range(shape.numel())]
    return torch.tensor([1 / (1 - p) if k else 0.0 for k in kept]).reshape(shape)


def wave(shape, phase):
    count = torch.Size(shape).numel()
    return torch.tensor([0.8 * torch.sin(torch.tensor(1.3 * k + phase)).item() for k in range(count)]).reshape(shape)


def case(kind, options, p, seed):
    module = getattr(nn, kind)(I, H, **options)
    raw = {}
    for number, (name, parameter) in enumerate(module.named_parameters()):
        raw[name] = wave(parameter.shape, number).requires_grad_()
    dropped = [name for name in raw if name.startswith("weight_hh")]
    masks = {name: mask(seed, p, number, raw[name].shape) for number, name in enumerate(dropped)}
    x = wave((T, B, I), 0.5).requires_grad_()
    used = {name: raw[name] * masks[name] if name in masks else raw[name] for name in raw}
    y, _ = torch.func.functional_call(module, used, (x,))
    gradients = torch.autograd.grad((y * wave(y.shape, 0.25)).sum(), [x, *raw.values()])
    flat = lambda tensor: tensor.detach().flatten().tolist()
    return dict(kind=kind, p=p, seed=seed, layers=options.get("num_layers", 1), both=options.get("bidirectional", False),
                zeros=sum(int((m == 0).sum()) for m in masks.values()), y=flat(y), dx=flat(gradients[0]),
                gradients={name: flat(g) for name, g in zip(raw, gradients[1:])})


cases = [
    case("LSTM", {}, 0.5, 7),
    case("LSTM", {}, 0.2, 12345678901234567890),
    case("RNN", {"num_layers": 2}, 0.5, 0),
    case("GRU", {"num_layers": 2, "bidirectional": True}, 0.4, 3),
]
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
print(len(cases), "cases,", [c["zeros"] for c in cases], path.stat().st_size, "bytes")
