"""Kind `variant`: cells with options that `torch.nn` lacks, over a sequence, with one layer in one direction."""

import numpy as np
import torch
from torch import nn

from . import reference_cells
from .case import gradients, leaf, tensors_under, worst, write
from .given import GATES, recurrent_parameters, sequence


def run_variant(case, given):
    parameters = {name: p.requires_grad_() for name, p in tensors_under(given, "state_dict.").items()}
    leaves = {name: leaf(given, f"input.{name}") for name in ("x", "h0", "c0")}
    state = reference_cells.zero_state(case["cell"], parameters, leaves["x"].shape[1])
    state = [zero if leaves[name] is None else leaves[name] for name, zero in zip(("h0", "c0"), state)]
    lengths = torch.from_numpy(given["input.lengths"]) if "input.lengths" in given else None
    y, state, margin = reference_cells.unroll(case["cell"], case, parameters, leaves["x"], state, lengths)
    outputs = {"y": y} | dict(zip(("hn", "cn"), state))
    return gradients(leaves, parameters, outputs, given), margin


def other_variants(case):
    """Options without a parameter; the others show by their parameters' random values."""
    others = {f"{key} left out": {key: 0.0} for key in ("zoneout_h", "zoneout_c") if case.get(key)}
    # Cases without activations and clip have those of Keras and PyTorch.
    for key in ("gate_activation", "candidate_activation", "output_activation"):
        if key in case:
            others[f"the other {key}"] = {key: "softsign" if case[key] != "softsign" else "tanh"}
    if "clip" in case:
        others["clip left out"] = {"clip": None}
    if case["cell"] == "GRU":
        others["the other reset"] = {"reset": "before" if case["reset"] == "after" else "after"}
    if case["cell"] == "RNN":
        others["the other nonlinearity"] = {"nonlinearity": "relu" if case["nonlinearity"] == "tanh" else "tanh"}
    return others


def check_against_torch():
    """Checks the reference cells against `torch.nn`, outputs and gradients, with the options that PyTorch's parameters can express.

    `generator/reference_cells.py` says what the cases of the other kinds check.
    """
    rng = np.random.default_rng(0)
    inputs, hidden, batch, steps = 3, 5, 4, 6
    for module, projection in [("RNN", 0), ("GRU", 0), ("LSTM", 0), ("LSTM", 2)]:
        draw = recurrent(inputs, hidden, batch, steps, lengths=[3, 6, 1, 4])
        options = {"cell": module, "bias": True, "projection": projection}
        given = draw(rng, options)
        got, _ = run_variant(options, given)
        arguments = {"proj_size": projection} if projection else {}
        rnn = getattr(nn, module)(inputs, hidden, dtype=torch.float64, **arguments)
        rnn.load_state_dict({f"{name}_l0": p for name, p in tensors_under(given, "state_dict.").items()})
        leaves = {name: leaf(given, f"input.{name}") for name in ("x", "h0", "c0")}
        lengths = torch.from_numpy(given["input.lengths"])
        packed = nn.utils.rnn.pack_padded_sequence(leaves["x"], lengths, enforce_sorted=False)
        state = tuple(leaves[part][None] for part in ("h0", "c0") if leaves[part] is not None)
        y, state = rnn(packed, state if module == "LSTM" else state[0])
        y, _ = nn.utils.rnn.pad_packed_sequence(y, total_length=steps)
        outputs = {"y": y} | dict(zip(("hn", "cn"), [part[0] for part in (state if module == "LSTM" else [state])]))
        parameters = {name.removesuffix("_l0"): p for name, p in rnn.named_parameters()}
        want = gradients(leaves, parameters, outputs, given)
        assert want.keys() == got.keys() and worst(got, want) < 1e-13, module

    # A coupled gate is a forget gate with the input gate's parameters negated: 1 - sigmoid(a) = sigmoid(-a).
    draw = recurrent(inputs, hidden, batch, steps)
    coupled = {"cell": "LSTM", "bias": True, "coupled": True, "peephole": True}
    given = draw(rng, coupled)
    plain = {
        name: np.concatenate([x[: len(x) // parts], -x[: len(x) // parts], x[len(x) // parts :]])
        for name, x in given.items()
        if name.startswith("state_dict.")
        for parts in [2 if name.endswith("peephole") else 3]
    }
    want, _ = run_variant(coupled | {"coupled": False}, given | plain)
    got, _ = run_variant(coupled, given)
    shared = ("output.", "grad.x", "grad.h0", "grad.c0")
    assert worst(got, {name: x for name, x in want.items() if name.startswith(shared)}) < 1e-13

    # Zoneout's ends: nothing is kept, and everything is.
    got, _ = run_variant(coupled | {"zoneout_h": 1.0, "zoneout_c": 1.0}, given)
    assert (got["output.hn"] == given["input.h0"]).all() and (got["output.cn"] == given["input.c0"]).all()


# --- Given tensors. ---


def recurrent(inputs, hidden, batch, steps, *, norm_gain=1.0, **given_by):
    """`norm_gain` is roughly the standard deviation of a normalised gate's inputs from x and from h."""

    def draw(rng, case):
        cell, coupled = case["cell"], case.get("coupled", False)
        projection, gates = case.get("projection", 0), GATES[case["cell"]] - coupled
        given = recurrent_parameters(
            rng, cell, inputs, hidden, bias=case["bias"], projection=projection, suffix="", gates=gates
        )
        options = {}
        if case.get("peephole"):
            options["peephole"] = rng.normal(size=(2 if coupled else 3, hidden)) * 0.7
        if case.get("layer_norm"):
            options["norm_ih"] = norm_gain * (1 + 0.3 * rng.normal(size=gates * hidden))
            options["norm_hh"] = norm_gain * (1 + 0.3 * rng.normal(size=gates * hidden))
            if cell == "LSTM":
                options["norm_c.weight"] = 1 + 0.3 * rng.normal(size=hidden)
                options["norm_c.bias"] = 0.3 * rng.normal(size=hidden)
        given |= {f"state_dict.{name}": x for name, x in options.items()}
        sizes = {"h": projection or hidden} | ({"c": hidden} if cell == "LSTM" else {})
        return given | sequence(rng, inputs, sizes, batch, steps, **given_by)

    return draw


# --- The cases. ---

# Every case has all options of its cell; these are the defaults.
OFF = {
    "LSTM": {
        "peephole": False, "coupled": False, "projection": 0, "layer_norm": False, "zoneout_h": 0.0, "zoneout_c": 0.0,
    },
    "GRU": {"reset": "after", "layer_norm": False, "zoneout_h": 0.0},
    "RNN": {"nonlinearity": "tanh", "layer_norm": False, "zoneout_h": 0.0},
}  # fmt: skip

# Only in the cases that have them.
ACTIVATED = {
    "LSTM": {"gate_activation", "candidate_activation", "output_activation", "clip"},
    "GRU": {"gate_activation", "candidate_activation", "clip"},
    "RNN": {"clip"},
}


def variant(name, cell, options, *sizes, bias=True, dtype="F64", **given):
    """`sizes` are inputs, hidden, batch, steps."""
    assert options.keys() <= OFF[cell].keys() | ACTIVATED[cell]
    options = OFF[cell] | options
    if options["layer_norm"]:
        options["norm_eps"] = reference_cells.EPS
    write(
        f"variant_{cell.lower()}_{name}", recurrent(*sizes, **given), run_variant, other_variants, kind="variant",
        cell=cell, bias=bias, input_size=sizes[0], hidden_size=sizes[1], dtype=dtype, **options,
    )  # fmt: skip


def variants():
    lengths = {"lengths": [3, 6, 1, 4]}
    peephole, coupled, norm = {"peephole": True}, {"coupled": True}, {"layer_norm": True}
    zoneout = {"zoneout_h": 0.15, "zoneout_c": 0.4}
    everything = peephole | coupled | norm | zoneout | {"projection": 3}

    variant("peephole", "LSTM", peephole, 3, 5, 3, 5)
    variant("peephole_bare_nan_padding", "LSTM", peephole, 3, 4, 4, 6, bias=False, state=False, junk=np.nan, **lengths)
    variant("coupled_lengths", "LSTM", coupled, 4, 5, 4, 6, **lengths)
    variant("coupled_bare", "LSTM", coupled, 3, 4, 2, 5, bias=False, state=False)
    variant("peephole_coupled_lengths", "LSTM", peephole | coupled, 3, 5, 4, 6, **lengths)
    variant("peephole_projection_lengths", "LSTM", peephole | {"projection": 3}, 3, 5, 4, 6, **lengths)
    variant("coupled_projection", "LSTM", coupled | {"projection": 2}, 4, 5, 3, 5)
    variant("layer_norm", "LSTM", norm, 3, 5, 3, 5)
    variant("layer_norm_lengths_no_state", "LSTM", norm, 4, 4, 4, 6, state=False, **lengths)
    variant("layer_norm_coupled", "LSTM", norm | coupled, 3, 5, 2, 6)
    variant("layer_norm_peephole_lengths", "LSTM", norm | peephole, 3, 5, 4, 6, **lengths)
    variant("layer_norm_projection_b1", "LSTM", norm | {"projection": 4}, 3, 6, 1, 5)
    variant("layer_norm_peephole_coupled_projection", "LSTM", norm | peephole | coupled | {"projection": 3}, 3, 5, 3, 5)
    variant("zoneout_lengths", "LSTM", zoneout, 3, 5, 4, 6, **lengths)
    variant("zoneout_h_only_projection", "LSTM", {"zoneout_h": 0.3, "projection": 3}, 3, 5, 2, 6)
    variant("zoneout_c_only_peephole", "LSTM", {"zoneout_c": 0.5} | peephole, 3, 5, 2, 6)
    variant("all", "LSTM", everything, 4, 6, 3, 7)
    variant("all_lengths_nan_padding", "LSTM", everything, 3, 5, 4, 6, junk=np.nan, **lengths)
    variant("all_t1", "LSTM", everything, 3, 5, 2, 1)
    options = peephole | zoneout | {"projection": 5}
    variant("peephole_projection_zoneout_f32", "LSTM", options, 5, 6, 4, 6, dtype="F32", **lengths)
    # Layer norm is hard on F32: small gains and few steps.
    variant("all_f32", "LSTM", everything, 5, 6, 3, 4, norm_gain=0.3, dtype="F32")

    for reset in ["after", "before"]:
        cell = {"reset": reset}
        variant(f"reset_{reset}_layer_norm_lengths", "GRU", cell | norm, 3, 5, 4, 6, **lengths)
        variant(f"reset_{reset}_zoneout", "GRU", cell | {"zoneout_h": 0.2}, 3, 5, 3, 5)
        variant(f"reset_{reset}_layer_norm_zoneout_b1", "GRU", cell | norm | {"zoneout_h": 0.35}, 4, 6, 1, 6)
    before = {"reset": "before"}
    variant("reset_before", "GRU", before, 3, 5, 3, 5)
    variant("reset_before_lengths", "GRU", before, 4, 5, 4, 6, **lengths)
    variant("reset_before_bare_nan_padding", "GRU", before, 3, 4, 4, 6, bias=False, state=False, junk=np.nan, **lengths)
    variant("reset_before_layer_norm_no_bias_no_state", "GRU", before | norm, 3, 5, 2, 5, bias=False, state=False)
    variant("reset_before_t1_b1", "GRU", before, 3, 4, 1, 1)
    variant("reset_before_f32", "GRU", before, 5, 6, 4, 6, dtype="F32", **lengths)

    for nonlinearity in ["tanh", "relu"]:
        cell = {"nonlinearity": nonlinearity}
        variant(f"{nonlinearity}_layer_norm_lengths", "RNN", cell | norm, 3, 5, 4, 6, **lengths)
        variant(f"{nonlinearity}_zoneout_lengths", "RNN", cell | {"zoneout_h": 0.25}, 3, 5, 4, 6, **lengths)
    variant("tanh_layer_norm_zoneout_no_bias", "RNN", norm | {"zoneout_h": 0.4}, 4, 5, 3, 5, bias=False)
    relu = norm | {"nonlinearity": "relu", "zoneout_h": 0.1}
    variant("relu_layer_norm_zoneout_f32", "RNN", relu, 4, 6, 3, 4, norm_gain=0.3, dtype="F32")

    activations()


def activations():
    """Each activation in each place of a cell, and with the other options."""
    lengths = {"lengths": [3, 6, 1, 4]}
    gates = {
        "hard_sigmoid": ["hard_sigmoid", 0.2, 0.5], "softsign": "softsign", "affine": ["affine", 0.2, 0.5],
        "scaled_tanh": ["scaled_tanh", 0.9, 0.8],
    }  # fmt: skip
    others = {
        "relu": "relu", "elu": ["elu", 0.7], "leaky_relu": ["leaky_relu", 0.3], "softplus": "softplus",
        "softsign": "softsign", "thresholded_relu": ["thresholded_relu", 0.2], "scaled_tanh": ["scaled_tanh", 1.7, 0.6],
        "identity": "identity", "gelu": "gelu", "silu": "silu",
    }  # fmt: skip
    for name, f in others.items():
        variant(f"{name}_clip", "RNN", {"nonlinearity": f, "clip": 1.5}, 3, 5, 3, 5)
    for name, f in gates.items():
        variant(f"gates_{name}", "LSTM", {"gate_activation": f}, 3, 5, 3, 5)
        variant(f"gates_{name}", "GRU", {"gate_activation": f}, 3, 5, 3, 5)
    for name in ["relu", "elu", "softplus", "softsign", "identity", "thresholded_relu"]:
        f = others[name]
        variant(f"candidate_{name}_lengths", "LSTM", {"candidate_activation": f}, 3, 5, 4, 6, **lengths)
        variant(f"output_{name}", "LSTM", {"output_activation": f}, 3, 5, 3, 5)
        variant(f"candidate_{name}", "GRU", {"candidate_activation": f, "reset": "before"}, 3, 5, 3, 5)

    peephole, coupled, norm, clip = {"peephole": True}, {"coupled": True}, {"layer_norm": True}, {"clip": 0.8}
    zoneout = {"zoneout_h": 0.15, "zoneout_c": 0.4}
    hard = {"gate_activation": ["hard_sigmoid", 1 / 6, 0.5]}
    three = hard | {"candidate_activation": "softsign", "output_activation": ["elu", 0.7]}
    two = hard | {"candidate_activation": "softsign"}
    variant("clip_lengths", "LSTM", clip, 3, 5, 4, 6, **lengths)
    variant("clip_peephole_coupled", "LSTM", clip | peephole | coupled, 3, 5, 2, 5)
    variant("activations_peephole_projection", "LSTM", three | peephole | {"projection": 3}, 3, 5, 3, 5)
    bare = {"bias": False, "state": False, "junk": np.nan}
    variant("activations_clip_nan_padding", "LSTM", three | clip, 3, 4, 4, 6, **bare, **lengths)
    everything = three | clip | peephole | coupled | norm | zoneout | {"projection": 3}
    variant("activations_all", "LSTM", everything, 3, 5, 2, 4)
    variant("activations_f32", "LSTM", three | clip, 4, 5, 2, 4, dtype="F32")
    for reset in ["after", "before"]:
        cell = {"reset": reset}
        variant(f"reset_{reset}_clip_lengths", "GRU", cell | clip, 3, 5, 4, 6, **lengths)
        variant(f"reset_{reset}_activations_all", "GRU", cell | two | clip | norm | {"zoneout_h": 0.2}, 3, 5, 2, 4)
        variant(f"reset_{reset}_activations_f32", "GRU", cell | two | clip, 4, 5, 2, 4, dtype="F32")
    options = norm | clip | {"nonlinearity": "softsign", "zoneout_h": 0.2}
    variant("softsign_all_lengths", "RNN", options, 3, 5, 4, 6, **lengths)
    variant("elu_f32", "RNN", {"nonlinearity": ["elu", 0.7]}, 4, 6, 3, 4, dtype="F32")
