"""Kinds `rnn` and `cell`: PyTorch's recurrent modules over sequences, and for one step."""

import numpy as np
import torch
from torch import nn

from . import reference_cells
from .case import gradients, leaf, tensors_under, tolerance, worst, write
from .given import recurrent_parameters, sequence


def check_cells(case, given, want):
    """Checks that the reference cells agree with PyTorch; returns how near relu's pre-activations come to 0."""
    cell, step = case["module"].removesuffix("Cell"), case["kind"] == "cell"
    tensors = tensors_under(given, "state_dict.")

    def parameters(suffix):
        return {name.removesuffix(suffix): x for name, x in tensors.items() if name.endswith(suffix)}

    of_layers = [
        [parameters("" if step else f"_l{layer}{end}") for end in ["", "_reverse"][: 1 + case.get("bidirectional", 0)]]
        for layer in range(case.get("num_layers", 1))
    ]
    lead = (lambda x: x[None]) if step else (lambda x: x)
    state = {part: lead(torch.from_numpy(given[f"input.{part}0"])) for part in "hc" if f"input.{part}0" in given}
    lengths = torch.from_numpy(given["input.lengths"]) if "input.lengths" in given else None
    x = lead(torch.from_numpy(given["input.x"]))
    y, final, margin = reference_cells.layers(cell, case, of_layers, x, state, lengths)
    got = dict(zip(["output.y", "output.hn", "output.cn"], [y.numpy(), *(part.numpy() for part in final)]))
    got = {name: (x[0] if step else x) for name, x in got.items() if name in want}
    assert worst(got, {name: want[name] for name in got}) < min(tolerance(case) / 10, 1e-12), case
    return margin


def run_rnn(case, given):
    options = {"nonlinearity": case["nonlinearity"]} if case["module"] == "RNN" else {}
    options |= {"proj_size": case["proj_size"]} if case["module"] == "LSTM" else {}
    module = getattr(nn, case["module"])(
        case["input_size"], case["hidden_size"], case["num_layers"], bias=case["bias"],
        bidirectional=case["bidirectional"], dtype=torch.float64, **options,
    )  # fmt: skip
    module.load_state_dict(tensors_under(given, "state_dict."))
    leaves = {name: leaf(given, f"input.{name}") for name in ("x", "h0", "c0")}
    lengths = given.get("input.lengths")
    x = leaves["x"]
    if lengths is not None:
        x = nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
    state = leaves["h0"] if case["module"] != "LSTM" or leaves["h0"] is None else (leaves["h0"], leaves["c0"])
    y, state = module(x, state)
    if lengths is not None:
        y, _ = nn.utils.rnn.pad_packed_sequence(y, total_length=len(leaves["x"]))
    outputs = {"y": y} | dict(zip(("hn", "cn"), state if case["module"] == "LSTM" else [state]))
    results = gradients(leaves, module.named_parameters(), outputs, given)
    return results, check_cells(case, given, results)


def run_marked(case, given):
    """Runs the reference cells for a mask, resets or lengths of 0, which PyTorch's modules do not support."""
    parameters = {name: p.requires_grad_() for name, p in tensors_under(given, "state_dict.").items()}
    ends = ["", "_reverse"][: 1 + case["bidirectional"]]
    of_layers = [
        [
            {name.removesuffix(f"_l{k}{end}"): p for name, p in parameters.items() if name.endswith(f"_l{k}{end}")}
            for end in ends
        ]
        for k in range(case["num_layers"])
    ]
    leaves = {name: leaf(given, f"input.{name}") for name in ("x", "h0", "c0")}
    state = {part: leaves[f"{part}0"] for part in "hc" if leaves[f"{part}0"] is not None}
    marks = {name: torch.from_numpy(given[f"input.{name}"]).bool() for name in ("mask", "resets") if f"input.{name}" in given}
    lengths = torch.from_numpy(given["input.lengths"]) if "input.lengths" in given else None
    y, final, margin = reference_cells.layers(case["module"], case, of_layers, leaves["x"], state, lengths, **marks)
    outputs = {"y": y} | dict(zip(("hn", "cn"), final))
    return gradients(leaves, parameters, outputs, given), margin


def run_cell(case, given):
    options = {"nonlinearity": case["nonlinearity"]} if case["module"] == "RNNCell" else {}
    module = getattr(nn, case["module"])(
        case["input_size"], case["hidden_size"], bias=case["bias"], dtype=torch.float64, **options
    )
    module.load_state_dict(tensors_under(given, "state_dict."))
    leaves = {name: leaf(given, f"input.{name}") for name in ("x", "h0", "c0")}
    is_lstm = case["module"] == "LSTMCell"
    state = leaves["h0"] if not is_lstm or leaves["h0"] is None else (leaves["h0"], leaves["c0"])
    state = module(leaves["x"], state)
    outputs = dict(zip(("hn", "cn"), state if is_lstm else [state]))
    results = gradients(leaves, module.named_parameters(), outputs, given)
    return results, check_cells(case, given, results)


# --- Given tensors. ---


def shift_gates(rng, given, shift, hidden):
    """Shifts `bias_ih` gate by gate (if `shift` is a list), or every second unit far to either side (if a number)."""
    bias = next(x for name, x in given.items() if "bias_ih" in name)
    if isinstance(shift, list):
        bias += np.repeat(shift, hidden)
    else:
        bias[::2] += shift * rng.choice([-1.0, 1.0], bias[::2].shape)


def recurrent(inputs, hidden, batch, steps=None, *, shift=None, gain=0.8, **given_by):
    """Draws a `cell` case (no `steps`) or an `rnn` case."""

    def draw(rng, case):
        module, of_sequence = case["module"].removesuffix("Cell"), steps is not None
        layers, directions = case.get("num_layers", 1), 1 + case.get("bidirectional", False)
        projection = case.get("proj_size", 0)
        sizes = {"h": projection or hidden} | ({"c": hidden} if module == "LSTM" else {})
        given = {}
        for layer in range(layers):
            for end in ["", "_reverse"][:directions]:
                given |= recurrent_parameters(
                    rng, module, directions * sizes["h"] if layer else inputs, hidden, bias=case["bias"], gain=gain,
                    projection=projection, suffix=f"_l{layer}{end}" if of_sequence else "",
                )  # fmt: skip
        if shift is not None:
            shift_gates(rng, given, shift, hidden)
        leading = [layers * directions] if of_sequence else []
        return given | sequence(rng, inputs, sizes, batch, steps, leading=leading, directions=directions, **given_by)

    return draw


# --- The cases. ---

# A cell's name in files, PyTorch's module, and the nonlinearity.
CELLS = [("rnn_tanh", "RNN", "tanh"), ("rnn_relu", "RNN", "relu"), ("lstm", "LSTM", "tanh"), ("gru", "GRU", "tanh")]


def cell(name, kind, *sizes, bias=True, dtype="F64", **given):
    """One step: `sizes` are inputs, hidden, batch."""
    module, nonlinearity = next(rest for known, *rest in CELLS if known == kind)
    write(
        f"cell_{kind}_{name}", recurrent(*sizes, **given), run_cell, kind="cell", module=module + "Cell", bias=bias,
        nonlinearity=nonlinearity, input_size=sizes[0], hidden_size=sizes[1], dtype=dtype,
    )  # fmt: skip


def rnn(name, kind, *sizes, layers=1, bidirectional=False, bias=True, projection=0, dtype="F64", run=run_rnn, **given):
    """A sequence: `sizes` are inputs, hidden, batch, steps."""
    module, nonlinearity = next(rest for known, *rest in CELLS if known == kind)
    write(
        f"{kind}_{name}", recurrent(*sizes, **given), run, kind="rnn", module=module, bias=bias,
        nonlinearity=nonlinearity, input_size=sizes[0], hidden_size=sizes[1], num_layers=layers,
        bidirectional=bidirectional, proj_size=projection, dtype=dtype,
    )  # fmt: skip


def cells():
    for kind, _, _ in CELLS:
        cell("all_1", kind, 1, 1, 1)
        cell("i9_h17_b7_f32", kind, 9, 17, 7, dtype="F32")
        cell("bare_b17", kind, 3, 5, 17, bias=False, state=False)
    for kind in ["rnn_tanh", "lstm", "gru"]:
        cell("saturated", kind, 5, 7, 3, gain=8.0, scale=5.0)


def sequences():
    """One layer, one direction."""
    for kind, _, _ in CELLS:
        rnn("all_1", kind, 1, 1, 1, 1)
        rnn("i9_h17_b7", kind, 9, 17, 7, 5)
        rnn("long_lengths_no_state", kind, 2, 5, 7, 40, lengths=[13, 40, 1, 39, 17, 2, 28], state=False)
        rnn("lengths_f32", kind, 3, 11, 5, 9, lengths=[2, 9, 5, 1, 7], dtype="F32")
    # Hidden sizes just above a vector's width, with the fewest rows.
    rnn("h33_b1_f32", "lstm", 9, 33, 1, 3, dtype="F32")
    rnn("h33_b2_f32", "gru", 9, 33, 2, 3, dtype="F32")
    rnn("h33_b17", "rnn_tanh", 9, 33, 17, 2)
    rnn("h33_b17_f32", "rnn_relu", 9, 33, 17, 2, dtype="F32")
    # Neither biases nor states; junk in the padding that would spread if it were read anywhere.
    for kind, _, _ in CELLS:
        rnn("bare_nan_padding", kind, 3, 5, 4, 6, lengths=[3, 6, 1, 4], bias=False, state=False, junk=np.nan)
    # A projection of h, narrow and wide.
    rnn("projected", "lstm", 3, 6, 2, 5, projection=4)
    rnn("projected_lengths", "lstm", 9, 17, 5, 8, projection=1, lengths=[3, 8, 1, 7, 7])
    rnn("projected_bare_f32", "lstm", 5, 33, 3, 6, projection=17, bias=False, state=False, dtype="F32")
    # No sequence reaches the last step.
    rnn("lengths_below_t", "lstm", 3, 4, 3, 7, lengths=[4, 1, 5])
    rnn("lengths_below_t", "gru", 3, 4, 3, 7, lengths=[4, 1, 5])
    # Gates shut and open: large weights, large inputs, and biases at which a plain exp overflows.
    for kind in ["rnn_tanh", "lstm", "gru"]:
        rnn("saturated", kind, 5, 7, 3, 6, gain=8.0, scale=5.0)
    for kind in ["lstm", "gru"]:
        rnn("biases_800", kind, 3, 6, 3, 5, shift=800.0)
        rnn("biases_800_lengths_f32", kind, 3, 6, 3, 5, shift=800.0, lengths=[3, 5, 1], dtype="F32")
    # A memory that holds over 40 steps: forget (update) gates open.
    rnn("long_memory", "lstm", 2, 5, 7, 40, shift=[0.0, 4.0, 0.0, 0.0])
    rnn("long_memory", "gru", 2, 5, 7, 40, shift=[0.0, 4.0, 0.0])
    rnn("long_f32", "lstm", 3, 7, 3, 40, dtype="F32")


def networks():
    """Layers and directions."""
    both = {"bidirectional": True}
    lengths = {"lengths": [3, 6, 1, 4]}
    bare = {"bias": False, "state": False}
    for kind, _, _ in CELLS:
        rnn("2layer", kind, 3, 5, 3, 5, layers=2)
        rnn("3layer_lengths", kind, 4, 3, 4, 6, layers=3, **lengths)
        rnn("bi", kind, 5, 4, 2, 5, **both)
        rnn("bi_lengths_no_state", kind, 3, 4, 4, 6, state=False, **both, **lengths)
        rnn("2layer_bi", kind, 4, 3, 2, 5, layers=2, **both)
        rnn("2layer_bi_lengths", kind, 3, 3, 4, 6, layers=2, **both, **lengths)
        rnn("2layer_bi_bare_nan_padding", kind, 3, 4, 4, 6, layers=2, junk=np.nan, **both, **bare, **lengths)
    for kind in ["lstm", "gru"]:
        rnn("3layer_bi_no_state", kind, 3, 3, 2, 5, layers=3, state=False, **both)
        # No sequence reaches the last step: the reverse direction starts before it in all of them.
        rnn("2layer_bi_lengths_below_t", kind, 3, 3, 3, 7, layers=2, lengths=[4, 1, 5], **both)
    # One sequence, one step.
    for kind in ["rnn_tanh", "lstm", "gru"]:
        rnn("2layer_bi_b1_t1", kind, 3, 3, 1, 1, layers=2, **both)
    rnn("bi_t1", "lstm", 3, 4, 3, 1, **both)
    rnn("2layer_b1", "gru", 3, 4, 1, 6, layers=2)
    rnn("bi_b1_lengths_below_t", "gru", 3, 4, 1, 6, lengths=[4], **both)
    # A projection of h, which is what the next layer and the other direction see.
    rnn("2layer_projected", "lstm", 3, 5, 3, 5, layers=2, projection=2)
    rnn("bi_projected", "lstm", 3, 4, 2, 5, projection=3, **both)
    rnn("2layer_bi_projected_lengths", "lstm", 3, 4, 4, 6, layers=2, projection=2, **both, **lengths)
    rnn("3layer_projected_bare", "lstm", 3, 4, 2, 5, layers=3, projection=1, **bare)
    # F32.
    rnn("2layer_bi_f32", "lstm", 4, 5, 3, 6, layers=2, dtype="F32", **both)
    rnn("2layer_bi_lengths_f32", "gru", 5, 6, 4, 6, layers=2, dtype="F32", **both, **lengths)
    rnn("3layer_bi_f32", "rnn_relu", 4, 5, 3, 5, layers=3, dtype="F32", **both)
    rnn("2layer_bi_projected_f32", "lstm", 4, 6, 3, 6, layers=2, projection=5, dtype="F32", **both)


def marked():
    """Masks, resets and lengths of 0."""
    rng = np.random.default_rng(0)
    resets, mask = rng.random([9, 5]) < 0.3, rng.random([9, 5]) < 0.7
    resets[0, 1] = resets[0, 2] = resets[8, 3] = True
    mask[:, 4] = False
    marks = {"resets": {"resets": resets}, "mask": {"mask": mask}, "empty": {"lengths": [0, 9, 4, 0, 1]}}
    marks["all_marks"] = {"resets": resets, "mask": mask, "lengths": [6, 9, 0, 9, 7]}
    for kind in ["rnn_tanh", "gru", "lstm"]:
        for name, given in marks.items():
            rnn(name, kind, 3, 4, 5, 9, run=run_marked, **given)
            rnn(f"2layer_bi_{name}", kind, 3, 3, 5, 9, layers=2, bidirectional=True, run=run_marked, **given)
        rnn("all_marks_f32", kind, 6, 9, 5, 9, run=run_marked, dtype="F32", **marks["all_marks"])
    rnn("projected_all_marks", "lstm", 3, 5, 5, 9, projection=2, run=run_marked, junk=np.nan, **marks["all_marks"])
