"""Kind `recurrence`: cells that `torch.nn` has not at all, over a sequence of one layer and one direction.

The equations are written as their papers write them: MGU, Zhou et al. 2016, "Minimal gated unit for recurrent neural networks";
minGRU, Feng et al. 2024, "Were RNNs all we needed?", the form without logarithms.
"""

import numpy as np
import torch
from torch.nn.functional import layer_norm

from . import reference_cells
from .case import gradients, leaf, tensors_under, write
from .given import sequence


def received(options, p, of, x, gate):
    """What the `gate`th of two gates receives from x (`of` is `ih`) or from h (`hh`), its bias left out."""
    a = x @ p[f"weight_{of}"].chunk(2)[gate].T
    if not options.get("layer_norm"):
        return a
    return layer_norm(a, a.shape[-1:], p[f"norm_{of}"].chunk(2)[gate], None, options["norm_eps"])


def bias(p, gate):
    return p["bias_ih"].chunk(2)[gate] if "bias_ih" in p else 0.0


def mgu(options, p, x, h):
    f = torch.sigmoid(received(options, p, "hh", h, 0) + received(options, p, "ih", x, 0) + bias(p, 0))
    n = torch.tanh(received(options, p, "hh", f * h, 1) + received(options, p, "ih", x, 1) + bias(p, 1))
    return [(1 - f) * h + f * n], []


def min_gru(options, p, x, h):
    z = torch.sigmoid(received(options, p, "ih", x, 0) + bias(p, 0))
    n = received(options, p, "ih", x, 1) + bias(p, 1)
    return [(1 - z) * h + z * n], []


reference_cells.STEPS |= {"MGU": mgu, "minGRU": min_gru}


def run_recurrence(case, given):
    parameters = {name: p.requires_grad_() for name, p in tensors_under(given, "state_dict.").items()}
    leaves = {name: leaf(given, f"input.{name}") for name in ("x", "h0")}
    h0 = leaves["h0"]
    if h0 is None:
        h0 = torch.zeros(leaves["x"].shape[1], case["hidden_size"], dtype=torch.float64)
    lengths = torch.from_numpy(given["input.lengths"]) if "input.lengths" in given else None
    y, [hn], margin = reference_cells.unroll(case["cell"], case, parameters, leaves["x"], [h0], lengths)
    return gradients(leaves, parameters, {"y": y, "hn": hn}, given), margin


def other_recurrences(case):
    """Options that have no parameter of their own: those show by their random values."""
    others = {"zoneout_h left out": {"zoneout_h": 0.0}} if case["zoneout_h"] else {}
    if case["layer_norm"]:
        others["another norm_eps"] = {"norm_eps": 2 * case["norm_eps"]}
    return others


def recurrent(cell, inputs, hidden, batch, steps, **given_by):
    def draw(rng, case):
        given = {"weight_ih": rng.normal(size=(2 * hidden, inputs)) * 0.8 / np.sqrt(inputs)}
        if cell == "MGU":
            given["weight_hh"] = rng.normal(size=(2 * hidden, hidden)) * 0.8 / np.sqrt(hidden)
        if case["bias"]:
            given["bias_ih"] = rng.normal(size=2 * hidden) * 0.5
        if case["layer_norm"]:
            for of in ["ih", "hh"] if cell == "MGU" else ["ih"]:
                given[f"norm_{of}"] = 1 + 0.3 * rng.normal(size=2 * hidden)
        given = {f"state_dict.{name}": x for name, x in given.items()}
        return given | sequence(rng, inputs, {"h": hidden}, batch, steps, **given_by)

    return draw


def recurrence(name, cell, *sizes, norm_eps=None, zoneout_h=0.0, bias=True, dtype="F64", **given):
    """`sizes` are inputs, hidden, batch, steps."""
    options = {"layer_norm": norm_eps is not None, "zoneout_h": zoneout_h}
    if norm_eps is not None:
        options["norm_eps"] = norm_eps
    prefix = {"MGU": "cell_mgu", "minGRU": "cell_min_gru"}[cell]
    write(
        f"{prefix}_{name}", recurrent(cell, *sizes, **given), run_recurrence, other_recurrences, kind="recurrence",
        cell=cell, bias=bias, input_size=sizes[0], hidden_size=sizes[1], dtype=dtype, **options,
    )  # fmt: skip


def recurrences():
    lengths = {"lengths": [3, 6, 1, 4]}
    for cell in ["MGU", "minGRU"]:
        recurrence("plain", cell, 3, 5, 3, 5)
        recurrence("lengths", cell, 4, 5, 4, 6, **lengths)
        recurrence("bare_nan_padding", cell, 3, 4, 4, 6, bias=False, state=False, junk=np.nan, **lengths)
        recurrence("t1_b1", cell, 3, 4, 1, 1)
        recurrence("i9_h17_b7_f32", cell, 9, 17, 7, 4, dtype="F32")
        recurrence("layer_norm_lengths", cell, 3, 5, 4, 6, norm_eps=1e-5, **lengths)
        recurrence("layer_norm_eps_no_bias", cell, 3, 5, 2, 5, norm_eps=0.1, bias=False)
        recurrence("zoneout", cell, 3, 5, 3, 5, zoneout_h=0.2)
        recurrence("all_lengths_nan_padding", cell, 4, 6, 4, 6, norm_eps=1e-3, zoneout_h=0.35, junk=np.nan, **lengths)
