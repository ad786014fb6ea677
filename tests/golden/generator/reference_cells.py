"""Recurrent cells in plain torch, with the options that `torch.nn` lacks: the reference of kind `variant`.

Every sequence case of another kind is also run through them, so that PyTorch, ONNX Runtime and Keras confirm everything in here that
they support too.

The parameters that are present decide which options are on; the others are `coupled`, `reset`, `nonlinearity`, `*_activation`, `clip`
and `zoneout_*`. An activation is its name, or a list of its name and its numbers.
"""

import torch
from torch.nn.functional import layer_norm

EPS = 1e-5

# By name: the activation with its numbers, the points at which its slope jumps, and the numbers in Keras.
ACTIVATIONS = {
    "tanh": (torch.tanh, lambda: [], []),
    "sigmoid": (torch.sigmoid, lambda: [], []),
    "relu": (torch.relu, lambda: [0.0], []),
    "identity": (lambda a: a, lambda: [], []),
    "linear": (lambda a: a, lambda: [], []),
    "affine": (lambda a, slope, offset: slope * a + offset, lambda slope, offset: [], None),
    "hard_sigmoid": (
        lambda a, slope, offset: torch.clamp(slope * a + offset, 0.0, 1.0),
        lambda slope, offset: [-offset / slope, (1.0 - offset) / slope],
        [1 / 6, 0.5],
    ),
    "scaled_tanh": (lambda a, scale, slope: scale * torch.tanh(slope * a), lambda scale, slope: [], None),
    "leaky_relu": (lambda a, slope: torch.where(a > 0, a, slope * a), lambda slope: [0.0], [0.2]),
    "thresholded_relu": (
        lambda a, threshold: torch.where(a > threshold, a, torch.zeros_like(a)), lambda threshold: [threshold], None,
    ),
    "elu": (lambda a, alpha: torch.where(a > 0, a, alpha * torch.expm1(a.clamp(max=0.0))), lambda alpha: [0.0], [1.0]),
    "softsign": (lambda a: a / (1 + a.abs()), lambda: [], []),
    "softplus": (lambda a: torch.logaddexp(a, torch.zeros_like(a)), lambda: [], []),
    "gelu": (torch.nn.functional.gelu, lambda: [], []),
    "silu": (torch.nn.functional.silu, lambda: [], []),
}  # fmt: skip


def activated(activation, a, near, clip=None):
    """f(a), with a clipped. Appends a's distance from a kink, row by row, to the list `near`."""
    name, *numbers = activation if isinstance(activation, (list, tuple)) else [activation]
    value, kinks, by_keras = ACTIVATIONS[name]
    numbers = numbers or by_keras
    kinks = torch.tensor(kinks(*numbers) + ([clip, -clip] if clip else []), dtype=torch.float64)
    if len(kinks):
        near.append((a[..., None] - kinks).abs().flatten(1).min(dim=-1).values)
    return value(a.clamp(-clip, clip) if clip else a, *numbers)


def received(p, of, x, rows=slice(None)):
    """The contribution of x (`of` is `ih`) or of h (`hh`) to gates."""
    a, bias = x @ p[f"weight_{of}"][rows].T, p.get(f"bias_{of}")
    bias = None if bias is None else bias[rows]
    if f"norm_{of}" in p:
        return layer_norm(a, a.shape[-1:], p[f"norm_{of}"][rows], bias, EPS)
    return a if bias is None else a + bias


def rnn(options, p, x, h):
    a, near = received(p, "ih", x) + received(p, "hh", h), []
    return [activated(options.get("nonlinearity", "tanh"), a, near, options.get("clip"))], near


def gru(options, p, x, h):
    hidden = h.shape[-1]
    gates, candidate = slice(0, 2 * hidden), slice(2 * hidden, None)
    clip, near = options.get("clip"), []
    a = received(p, "ih", x, gates) + received(p, "hh", h, gates)
    r, z = activated(options.get("gate_activation", "sigmoid"), a, near, clip).chunk(2, dim=-1)
    from_x = received(p, "ih", x, candidate)
    if options.get("reset", "after") == "after":
        a = from_x + r * received(p, "hh", h, candidate)
    else:
        a = from_x + received(p, "hh", r * h, candidate)
    n = activated(options.get("candidate_activation", "tanh"), a, near, clip)
    return [(1 - z) * n + z * h], near


def lstm(options, p, x, h, c):
    a = (received(p, "ih", x) + received(p, "hh", h)).chunk(3 if options.get("coupled") else 4, dim=-1)
    a = dict(zip("igo" if options.get("coupled") else "ifgo", a))
    peephole = dict(zip("io" if options.get("coupled") else "ifo", p.get("peephole", ())))
    clip, near = options.get("clip"), []

    def gate(a):
        return activated(options.get("gate_activation", "sigmoid"), a, near, clip)

    i = gate(a["i"] + peephole.get("i", 0.0) * c)
    f = 1 - i if options.get("coupled") else gate(a["f"] + peephole.get("f", 0.0) * c)
    c = f * c + i * activated(options.get("candidate_activation", "tanh"), a["g"], near, clip)
    o = gate(a["o"] + peephole.get("o", 0.0) * c)
    shown = layer_norm(c, c.shape[-1:], p["norm_c.weight"], p["norm_c.bias"], EPS) if "norm_c.weight" in p else c
    # The memory is not clipped before its activation, as in ONNX Runtime.
    h = o * activated(options.get("output_activation", "tanh"), shown, near)
    return [h @ p["weight_hr"].T if "weight_hr" in p else h, c], near


STEPS = {"RNN": rnn, "GRU": gru, "LSTM": lstm}


def backwards(x, lengths):
    """Each sequence from its last valid step to its first; later steps stay in place."""
    t = torch.arange(len(x))[:, None]
    return x[torch.where(t < lengths, lengths - 1 - t, t), torch.arange(x.shape[1])]


def unroll(cell, options, p, x, state, lengths=None, reverse=False, mask=None, resets=None):
    """`cell` over a sequence: y `[T, B, H]`, the last state, and how near pre-activations come to a kink.

    If `mask`, `[T, B]`, is false at a step, the state stays as it is. If `resets` is true, the state before the step is zero; in
    reverse, the state after it.
    """
    lengths = torch.full([x.shape[1]], len(x)) if lengths is None else lengths
    inside = torch.arange(len(x))[:, None] < lengths
    mask = inside if mask is None else inside & mask
    # The steps before which the state is zero, in the order of processing, and whether it is zero at the end.
    resets = torch.zeros_like(inside) if resets is None else inside & resets
    last_reset = torch.zeros_like(resets[0])
    if reverse:
        x, mask, resets = backwards(x, lengths), backwards(mask, lengths), backwards(resets, lengths)
        at_first = resets[(lengths - 1).clamp(min=0), torch.arange(x.shape[1])] & (lengths > 0)
        resets, last_reset = torch.cat([last_reset[None], resets[:-1]]), at_first
        # Steps past the end are not part of the sequence.
        resets = resets & inside
    y, margin = [], float("inf")
    for t, x_t in enumerate(x):
        state = [torch.where(resets[t][:, None], 0.0, part) for part in state]
        valid = mask[t][:, None]
        after, near = STEPS[cell](options, p, x_t, *state)
        for part, name in enumerate("hcnm"[: len(state)]):
            zoneout = options.get(f"zoneout_{name}", 0.0)
            after[part] = zoneout * state[part] + (1 - zoneout) * after[part] if zoneout else after[part]
        state = [torch.where(valid, new, old) for new, old in zip(after, state)]
        y.append(torch.where(valid, state[0], 0.0))
        for rows in near:
            margin = min(margin, rows[valid[:, 0]].min().item() if valid.any() else margin)
    y = torch.stack(y)
    state = [torch.where(last_reset[:, None], 0.0, part) for part in state]
    return backwards(y, lengths) if reverse else y, state, margin


def zero_state(cell, p, batch):
    """`[B, H]`, or for an LSTM `[B, H or P]` and `[B, H]`."""
    h = torch.zeros(batch, p["weight_hh"].shape[1], dtype=torch.float64)
    gates = p["weight_hr"].shape[1] if "weight_hr" in p else h.shape[1]
    return [h, torch.zeros(batch, gates, dtype=torch.float64)] if cell == "LSTM" else [h]


def layers(cell, options, parameters, x, given, lengths=None, mask=None, resets=None):
    """A stack of layers, each a list of one or two directions: `parameters[layer][direction]`.

    `given` has the given states under `h` and `c`, `[layers * directions, B, H]`; the last states are returned in the same form.
    """
    final, margin = [], float("inf")
    for directions in parameters:
        ys = []
        for reverse, p in enumerate(directions):
            state = zero_state(cell, p, x.shape[1])
            state = [given[part][len(final)] if part in given else zero for part, zero in zip("hc", state)]
            y, state, near = unroll(cell, options, p, x, state, lengths, bool(reverse), mask, resets)
            ys.append(y)
            final.append(state)
            margin = min(margin, near)
        x = torch.cat(ys, dim=-1)
    return x, [torch.stack(parts) for parts in zip(*final)], margin
