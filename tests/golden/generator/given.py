"""Given tensors of recurrent networks."""

import numpy as np

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def recurrent_parameters(
    rng, module, inputs, hidden, bias=True, gain=0.8, projection=0, suffix="_l0", prefix="state_dict.", gates=None
):  # fmt: skip
    """Normal weights: `gain` is roughly the standard deviation of a gate's inputs from x and from h."""
    rows = (gates or GATES[module]) * hidden
    parameters = {
        f"weight_ih{suffix}": rng.normal(size=(rows, inputs)) * gain / np.sqrt(inputs),
        f"weight_hh{suffix}": rng.normal(size=(rows, projection or hidden)) * gain / np.sqrt(projection or hidden),
    }
    if projection:
        parameters[f"weight_hr{suffix}"] = rng.normal(size=(projection, hidden)) / np.sqrt(hidden)
    if bias:
        parameters[f"bias_ih{suffix}"] = rng.normal(size=rows) * 0.5
        parameters[f"bias_hh{suffix}"] = rng.normal(size=rows) * 0.5
    return {prefix + name: x for name, x in parameters.items()}


def sequence(
    rng, inputs, sizes, batch, steps=None, *, leading=(), directions=1, state=True, lengths=None, mask=None, resets=None, scale=1.0,
    junk=1e30, backward=True,
):  # fmt: skip
    """x, the state, lengths, and, if `backward`, the gradients of the outputs.

    `sizes` has the state's parts and their sizes, and `state` says whether they are given, or which of them (`"h"`). Without `steps` it
    is one step of a cell, which has no output y.
    """
    given_parts = state if isinstance(state, str) else "".join(sizes) if state else ""
    time = [] if steps is None else [steps]
    given = {"input.x": rng.normal(size=[*time, batch, inputs]) * scale}
    for part, size in sizes.items():
        if part in given_parts:
            given[f"input.{part}0"] = rng.normal(size=[*leading, batch, size]) * 0.5
        if backward:
            given[f"grad_output.{part}n"] = rng.normal(size=[*leading, batch, size])
    if time and backward:
        given["grad_output.y"] = rng.normal(size=[steps, batch, directions * sizes["h"]])
    if resets is not None:
        given["input.resets"] = np.array(resets, dtype=np.int64)
    if lengths is not None or mask is not None:
        padding = np.zeros([steps, batch], dtype=bool)
        if lengths is not None:
            given["input.lengths"] = np.array(lengths, dtype=np.int64)
            padding |= np.arange(steps)[:, None] >= given["input.lengths"]
        if mask is not None:
            given["input.mask"] = np.array(mask, dtype=np.int64)
            padding |= given["input.mask"] == 0
        padding = padding[..., None]
        given["junk"] = {
            key: {"where": padding, "values": rng.normal(size=given[key].shape) * junk}
            for key in ("input.x", "grad_output.y")
            if key in given
        }
    return given
