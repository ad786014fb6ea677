"""Kind `recurrence`: cells that `torch.nn` lacks altogether, over a sequence, with one layer in one direction.

The equations are written as in their papers: MGU, Zhou et al. 2016, "Minimal gated unit for recurrent neural networks"; minGRU and
minLSTM, Feng et al. 2024, "Were RNNs all we needed?", the forms without logarithms; sLSTM, Beck et al. 2024, "xLSTM". With heads, which
are from the last paper too, the recurrent weights of each gate are a block-diagonal matrix, which is written out here.
"""

import numpy as np
import torch
from torch.nn.functional import layer_norm, logsigmoid

from . import reference_cells
from .case import gradients, leaf, tensors_under, write
from .given import sequence


def received(options, p, of, x, gate):
    """The contribution of x (`of` is `ih`) or of h (`hh`) to gate number `gate` of two, without its bias."""
    return of_gates(options, p, of, x, [(p[f"weight_{of}"].chunk(2)[gate], lambda gain: gain.chunk(2)[gate])])


def of_gates(options, p, of, x, groups):
    """The contribution of x or of h to gates. Each group of gates (weights and a part of the gain) is normalised separately."""
    sums = []
    for weight, gain in groups:
        a = x @ weight.T
        if options.get("layer_norm"):
            a = layer_norm(a, a.shape[-1:], gain(p[f"norm_{of}"]), None, options["norm_eps"])
        sums.append(a)
    return torch.cat(sums, dim=-1)


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


def min_lstm(options, p, x, h):
    hidden = h.shape[-1]
    parts = [slice(0, 2 * hidden), slice(2 * hidden, None)]
    groups = [(p["weight_ih"][part], lambda gain, part=part: gain[part]) for part in parts]
    a = of_gates(options, p, "ih", x, groups) + p.get("bias_ih", 0.0)
    f, i, n = torch.sigmoid(a[:, :hidden]), torch.sigmoid(a[:, hidden : 2 * hidden]), a[:, 2 * hidden :]
    return [f / (f + i) * h + i / (f + i) * n], []


def slstm(options, p, x, h, c, n, m):
    of_all = {of: [(p[f"weight_{of}"], lambda gain: gain)] for of in ("ih", "hh")}
    a = of_gates(options, p, "ih", x, of_all["ih"]) + of_gates(options, p, "hh", h, of_all["hh"]) + p.get("bias_ih", 0.0)
    a_i, a_f, a_z, a_o = a.chunk(4, dim=-1)
    u = (a_f if options.get("exponential_forget") else logsigmoid(a_f)) + m
    # At the beginning there is nothing to remember, whatever m is.
    remembered = n != 0
    m = torch.where(remembered, torch.maximum(u, a_i), a_i)
    i, f = torch.exp(a_i - m), torch.exp(u - m)
    c, n = f * c + i * torch.tanh(a_z), f * n + i
    near = torch.where(remembered, (u - a_i).abs(), float("inf")).min(dim=-1).values
    return [torch.sigmoid(a_o) * c / n, c, n, m], [near.detach()]


reference_cells.STEPS |= {"MGU": mgu, "minGRU": min_gru, "minLSTM": min_lstm, "sLSTM": slstm}
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3, "MGU": 2, "minGRU": 2, "minLSTM": 3, "sLSTM": 4}
STATES = {"LSTM": "hc", "sLSTM": "hcnm"}
WITHOUT_PRODUCT = ["minGRU", "minLSTM"]


def written_out(weight, gates, heads):
    """`[G H, K / heads]` as `[G H, K]`: for each gate, the heads' blocks along the diagonal."""
    return torch.cat([torch.block_diag(*gate.chunk(heads)) for gate in weight.chunk(gates)])


def run_recurrence(case, given):
    parameters = {name: p.requires_grad_() for name, p in tensors_under(given, "state_dict.").items()}
    parts = STATES.get(case["cell"], "h")
    leaves = {name: leaf(given, f"input.{name}") for name in ("x", *(f"{part}0" for part in parts))}
    zeros = torch.zeros(leaves["x"].shape[1], case["hidden_size"], dtype=torch.float64)
    state = [zeros if leaves[f"{part}0"] is None else leaves[f"{part}0"] for part in parts]
    lengths = torch.from_numpy(given["input.lengths"]) if "input.lengths" in given else None
    seen = dict(parameters)
    if case["heads"] > 1:
        seen["weight_hh"] = written_out(parameters["weight_hh"], GATES[case["cell"]], case["heads"])
    y, state, margin = reference_cells.unroll(case["cell"], case, seen, leaves["x"], state, lengths)
    outputs = {"y": y} | {f"{part}n": last for part, last in zip(parts, state)}
    return gradients(leaves, parameters, outputs, given), margin


def other_recurrences(case):
    """Options without a parameter; the others show by their parameters' random values."""
    others = {"zoneout_h left out": {"zoneout_h": 0.0}} if case["zoneout_h"] else {}
    if case["cell"] == "sLSTM":
        others["the other forget gate"] = {"exponential_forget": not case["exponential_forget"]}
    if case["layer_norm"]:
        others["another norm_eps"] = {"norm_eps": 2 * case["norm_eps"]}
    return others


def recurrent(cell, inputs, hidden, batch, steps, **given_by):
    def draw(rng, case):
        sums, columns = GATES[cell] * hidden, hidden // case["heads"]
        given = {"weight_ih": rng.normal(size=(sums, inputs)) * 0.8 / np.sqrt(inputs)}
        if cell not in WITHOUT_PRODUCT:
            given["weight_hh"] = rng.normal(size=(sums, columns)) * 0.8 / np.sqrt(columns)
        if case["bias"]:
            for of in ["ih", "hh"] if cell in ["RNN", "LSTM", "GRU"] else ["ih"]:
                given[f"bias_{of}"] = rng.normal(size=sums) * 0.5
        if case["layer_norm"]:
            for of in ["ih"] if cell in WITHOUT_PRODUCT else ["ih", "hh"]:
                given[f"norm_{of}"] = 1 + 0.3 * rng.normal(size=sums)
        given = {f"state_dict.{name}": x for name, x in given.items()}
        sizes = dict.fromkeys(STATES.get(cell, "h"), hidden)
        given |= sequence(rng, inputs, sizes, batch, steps, **given_by)
        if "input.n0" in given:
            given["input.n0"] = 1 + np.abs(given["input.n0"])  # a sum of weights
        return given

    return draw


def recurrence(
    name, cell, *sizes, norm_eps=None, zoneout_h=0.0, heads=1, exponential_forget=False, bias=True, dtype="F64", **given,
):  # fmt: skip
    """`sizes` are inputs, hidden, batch, steps."""
    options = {"layer_norm": norm_eps is not None, "zoneout_h": zoneout_h, "heads": heads}
    if cell == "sLSTM":
        options["exponential_forget"] = exponential_forget
    if norm_eps is not None:
        options["norm_eps"] = norm_eps
    prefix = {"minGRU": "cell_min_gru", "minLSTM": "cell_min_lstm"}.get(cell, f"cell_{cell.lower()}")
    write(
        f"{prefix}_{name}", recurrent(cell, *sizes, **given), run_recurrence, other_recurrences, kind="recurrence",
        cell=cell, bias=bias, input_size=sizes[0], hidden_size=sizes[1], dtype=dtype, **options,
    )  # fmt: skip


def recurrences():
    lengths = {"lengths": [3, 6, 1, 4]}
    for cell in ["MGU", "minGRU", "minLSTM", "sLSTM"]:
        recurrence("plain", cell, 3, 5, 3, 5)
        recurrence("lengths", cell, 4, 5, 4, 6, **lengths)
        recurrence("bare_nan_padding", cell, 3, 4, 4, 6, bias=False, state=False, junk=np.nan, **lengths)
        recurrence("t1_b1", cell, 3, 4, 1, 1)
        recurrence("i9_h17_b7_f32", cell, 9, 17, 7, 4, dtype="F32")
        recurrence("layer_norm_lengths", cell, 3, 5, 4, 6, norm_eps=1e-5, **lengths)
        recurrence("layer_norm_eps_no_bias", cell, 3, 5, 2, 5, norm_eps=0.1, bias=False)
        recurrence("zoneout", cell, 3, 5, 3, 5, zoneout_h=0.2)
        recurrence("all_lengths_nan_padding", cell, 4, 6, 4, 6, norm_eps=1e-3, zoneout_h=0.35, junk=np.nan, **lengths)
        if cell not in WITHOUT_PRODUCT:
            recurrence("heads", cell, 3, 6, 3, 5, heads=3)
            recurrence("heads_lengths_nan_padding", cell, 4, 6, 4, 6, heads=2, norm_eps=0.1, junk=np.nan, **lengths)
    for cell in ["RNN", "LSTM", "GRU"]:
        recurrence("heads", cell, 3, 6, 3, 5, heads=3)
        recurrence("heads_i9_h24_b5_f32", cell, 9, 24, 5, 4, heads=4, dtype="F32")
        recurrence("heads_lengths_nan_padding", cell, 4, 6, 4, 6, heads=2, bias=False, junk=np.nan, **lengths)
    recurrence("exponential_forget", "sLSTM", 3, 5, 3, 5, exponential_forget=True)
    recurrence("exponential_forget_all", "sLSTM", 4, 6, 4, 6, exponential_forget=True, heads=2, norm_eps=1e-3,
               zoneout_h=0.2, junk=np.nan, **lengths)  # fmt: skip
