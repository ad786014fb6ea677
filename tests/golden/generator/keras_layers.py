"""Kind `keras`: SimpleRNN, LSTM and GRU, run by Keras, forward only.

On PyTorch, Keras computes its products in F32, whatever the policy is (`keras.src.backend.common.dtypes`).
"""

import keras
import numpy as np
import torch

from . import conventions
from .case import tolerance, worst, write
from .given import GATES, sequence

# The gates' order in Keras's kernels and biases, in the letters of PyTorch's gates.
ORDER = {"SimpleRNN": "h", "GRU": "zrn", "LSTM": "ifgo"}
WEIGHTS = ["kernel", "recurrent_kernel", "bias"]


def prefixes(case):
    return ["keras.forward.", "keras.backward."] if case["bidirectional"] else ["keras."]


def by_keras(case, given):
    options = {"reset_after": case["reset_after"]} if case["module"] == "GRU" else {}
    if "recurrent_activation" in case:
        options["recurrent_activation"] = case["recurrent_activation"]
    layer = getattr(keras.layers, case["module"])(
        case["hidden_size"], activation=case["nonlinearity"], use_bias=case["use_bias"],
        return_sequences=case["return_sequences"], return_state=case["return_state"],
        go_backwards=case["go_backwards"], **options,
    )  # fmt: skip
    layer = keras.layers.Bidirectional(layer, merge_mode="concat") if case["bidirectional"] else layer
    given = {name: x.astype(np.float32) for name, x in given.items()}
    x = given["input.x"].transpose(1, 0, 2)  # Keras has the batch first
    layer.build(x.shape)
    tensors = [prefix + name for prefix in prefixes(case) for name in WEIGHTS]
    layer.set_weights([given[name] for name in tensors if name in given])
    # The forward direction's h and c, then the backward direction's.
    state = [
        given[f"input.{part}0"][direction]
        for direction in range(1 + case["bidirectional"])
        for part in "hc"
        if f"input.{part}0" in given
    ]
    with torch.no_grad():
        outputs = layer(x, initial_state=state) if state else layer(x)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    y, *state = [output.numpy() for output in outputs]
    results = {"output.y": y.transpose(1, 0, 2) if case["return_sequences"] else y}
    if case["return_state"]:
        parts = 2 if case["module"] == "LSTM" else 1
        results |= {f"output.{part}n": np.stack(state[i::parts]) for i, part in enumerate("hc"[:parts])}
    return {name: x.astype(np.float64) for name, x in results.items()}


def by_cells(case, given):
    """The results of the reference cells, with parameters in PyTorch's layouts."""
    module, order = case["module"], ORDER[case["module"]]
    wanted = conventions.ORDER[module.removeprefix("Simple")]
    parameters = []
    for prefix in prefixes(case):
        own = {"weight_ih": given[prefix + "kernel"].T, "weight_hh": given[prefix + "recurrent_kernel"].T}
        if case["use_bias"]:
            own |= dict(zip(["bias_ih", "bias_hh"], np.atleast_2d(given[prefix + "bias"])))
        parameters.append({name: conventions.reordered(x, order, wanted) for name, x in own.items()})
    options = {"reset": "after" if case["reset_after"] else "before", "nonlinearity": case["nonlinearity"]}
    options |= {key: case["nonlinearity"] for key in ("candidate_activation", "output_activation")}
    options["gate_activation"] = case.get("recurrent_activation", "sigmoid")
    x = given["input.x"][::-1].copy() if case["go_backwards"] else given["input.x"]
    results, margin = conventions.reference(case, options, parameters, x, given)
    if not case["return_sequences"]:
        results["y"] = np.concatenate(list(results["hn"]), axis=-1)
    kept = results if case["return_state"] else ["y"]
    return {f"output.{name}": results[name] for name in kept}, margin


def run_keras(case, given):
    results = by_keras(case, given)
    want, margin = by_cells(case, given)
    assert want.keys() == results.keys() and worst(results, want) < tolerance(case) / 10, case
    return results, margin


def other_layers(case):
    others = {} if case["bidirectional"] else {"the other go_backwards": {"go_backwards": not case["go_backwards"]}}
    if case["module"] == "SimpleRNN":
        others["the other nonlinearity"] = {"nonlinearity": "relu" if case["nonlinearity"] == "tanh" else "tanh"}
    if "recurrent_activation" in case:
        others["the other recurrent_activation"] = {"recurrent_activation": "sigmoid"}
        if case["nonlinearity"] != "tanh":
            others["the other activation"] = {"nonlinearity": "tanh"}
    if case["module"] == "GRU" and not case["use_bias"]:
        others["the other reset_after"] = {"reset_after": not case["reset_after"]}
    return others


def layer(name, module, inputs, hidden, batch, steps, *, bidirectional=False, use_bias=True, **options):
    flags = {"go_backwards": False, "return_sequences": True, "return_state": False, "reset_after": module == "GRU"}
    flags = {key: options.pop(key, default) for key, default in flags.items()}
    nonlinearity = options.pop("nonlinearity", "tanh")
    if "recurrent_activation" in options:
        flags["recurrent_activation"] = options.pop("recurrent_activation")
    cell = module.removeprefix("Simple")

    def draw(rng, case):
        columns, weights = GATES[cell] * hidden, {}
        for prefix in prefixes(case):
            weights[prefix + "kernel"] = rng.normal(size=(inputs, columns)) * 0.8 / np.sqrt(inputs)
            weights[prefix + "recurrent_kernel"] = rng.normal(size=(hidden, columns)) * 0.8 / np.sqrt(hidden)
            if use_bias:
                weights[prefix + "bias"] = rng.normal(size=(2, columns) if flags["reset_after"] else columns) * 0.5
        sizes = {"h": hidden} | ({"c": hidden} if cell == "LSTM" else {})
        return weights | sequence(
            rng, inputs, sizes, batch, steps, leading=[1 + bidirectional], backward=False, **options
        )

    torch_version = torch.__version__.split("+")[0]
    write(
        f"keras_{module.lower()}_{name}", draw, run_keras, other_layers if steps > 1 else lambda case: {}, kind="keras",
        module=module, bidirectional=bidirectional, use_bias=use_bias, nonlinearity=nonlinearity, input_size=inputs,
        hidden_size=hidden, dtype="F32", reference=f"keras {keras.__version__} on torch {torch_version}", **flags,
    )  # fmt: skip


def layers():
    both, backwards, state = {"bidirectional": True}, {"go_backwards": True}, {"return_state": True}
    no_start, no_bias, last = {"state": False}, {"use_bias": False}, {"return_sequences": False}

    layer("forward", "SimpleRNN", 3, 5, 3, 5, **state)
    layer("relu_backwards_no_bias", "SimpleRNN", 4, 5, 2, 6, nonlinearity="relu", **backwards, **no_bias, **no_start)
    layer("bi", "SimpleRNN", 3, 4, 2, 5, **both, **state)

    layer("forward", "LSTM", 3, 5, 3, 5, **state)
    layer("no_bias_last", "LSTM", 3, 4, 2, 5, **no_bias, **last, **no_start)
    layer("backwards", "LSTM", 4, 5, 3, 6, **backwards, **state)
    layer("bi", "LSTM", 3, 4, 3, 5, **both, **state)
    layer("bi_no_bias_last", "LSTM", 3, 4, 2, 5, **both, **no_bias, **last, **state, **no_start)
    layer("bi_b1_t1", "LSTM", 3, 4, 1, 1, **both, **state)

    for name, after in [("reset_after", True), ("reset_before", False)]:
        cell = {"reset_after": after}
        layer(name, "GRU", 3, 5, 3, 5, **cell, **state)
        layer(f"{name}_no_bias_last", "GRU", 3, 4, 2, 5, **cell, **no_bias, **last, **no_start)
        layer(f"{name}_backwards", "GRU", 4, 5, 3, 6, **cell, **backwards)
        layer(f"{name}_bi", "GRU", 3, 4, 2, 5, **cell, **both, **state)

    for f in ["sigmoid", "softsign", "softplus", "elu", "leaky_relu", "gelu", "silu", "linear", "hard_sigmoid"]:
        layer(f"activation_{f}", "SimpleRNN", 3, 4, 2, 4, nonlinearity=f)
    hard = {"recurrent_activation": "hard_sigmoid"}
    layer("hard_sigmoid", "LSTM", 3, 5, 3, 5, **hard, **state)
    layer("hard_sigmoid_elu_bi", "LSTM", 3, 4, 2, 5, nonlinearity="elu", **hard, **both, **state)
    layer("relu", "LSTM", 3, 4, 2, 5, nonlinearity="relu", recurrent_activation="softsign")
    for name, after in [("reset_after", True), ("reset_before", False)]:
        layer(f"{name}_hard_sigmoid", "GRU", 3, 5, 3, 5, reset_after=after, **hard, **state)
        layer(f"{name}_softsign", "GRU", 3, 4, 2, 5, reset_after=after, nonlinearity="softsign", **hard)
