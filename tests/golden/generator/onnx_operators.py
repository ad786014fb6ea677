"""Kind `onnx`: the ONNX operators RNN, LSTM and GRU, run by ONNX Runtime, forward only.

ONNX Runtime computes them only in F32.
"""

import functools

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from . import conventions, reference_cells
from .case import tolerance, worst, write
from .given import GATES, sequence

# The gates' order in ONNX's W, R and B, in the letters of PyTorch's gates; ONNX calls g c, and n h.
ORDER = {"RNN": "h", "GRU": "zrn", "LSTM": "iofg"}
# ONNX's names of the activations. The first of an activation's numbers is alpha, the second beta.
NAMES = {
    "tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "affine": "Affine", "leaky_relu": "LeakyRelu",
    "thresholded_relu": "ThresholdedRelu", "scaled_tanh": "ScaledTanh", "hard_sigmoid": "HardSigmoid", "elu": "Elu",
    "softsign": "Softsign", "softplus": "Softplus",
}  # fmt: skip
# The operator's inputs, in order, and the tensors of a case.
INPUTS = {
    "X": "input.x", "W": "onnx.W", "R": "onnx.R", "B": "onnx.B", "sequence_lens": "input.lengths",
    "initial_h": "input.h0", "initial_c": "input.c0", "P": "onnx.P",
}  # fmt: skip


@functools.cache
def session(module, inputs, **attributes):
    """A model of one node; `inputs` are the names and the shapes of the given tensors."""
    types = {name: TensorProto.INT32 if name == "sequence_lens" else TensorProto.FLOAT for name, _ in inputs}
    operands = [name if name in types else "" for name in INPUTS]
    while not operands[-1]:
        operands.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 3 if module == "LSTM" else 2]
    node = helper.make_node(module, operands, outputs, **attributes)
    ranks = dict(zip(outputs, [4, 3, 3]))
    graph = helper.make_graph(
        [node], module, [helper.make_tensor_value_info(name, types[name], shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in ranks.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_runtime(case, given):
    module, directions = case["module"], 1 + (case["direction"] == "bidirectional")
    attributes = {"hidden_size": case["hidden_size"], "direction": case["direction"]}
    if module == "LSTM":
        attributes["input_forget"] = case["input_forget"]
    if module == "GRU":
        attributes["linear_before_reset"] = case["linear_before_reset"]
    if case["nonlinearity"] == "relu":
        attributes["activations"] = ("Relu",) * directions
    if case.get("activations"):
        of_all = [f if isinstance(f, list) else [f] for f in case["activations"]]
        names, *numbers = zip(*[(f + [None, None])[:3] for f in of_all])
        attributes["activations"] = tuple(NAMES[name] for name in names)
        for key, of_all in zip(["activation_alpha", "activation_beta"], numbers):
            given_numbers = tuple(number for number in of_all if number is not None)
            if given_numbers:
                attributes[key] = given_numbers
    if case.get("clip"):
        attributes["clip"] = case["clip"]
    feed = {name: given[tensor] for name, tensor in INPUTS.items() if tensor in given}
    feed = {name: x.astype(np.int32 if x.dtype == np.int64 else np.float32) for name, x in feed.items()}
    shapes = tuple((name, x.shape) for name, x in feed.items())
    outputs = session(module, shapes, **attributes).run(None, feed)
    return {f"output.{name}": x.astype(np.float64) for name, x in zip(["y", "hn", "cn"], outputs)}


def by_cells(case, given):
    """The results of the reference cells, with parameters in PyTorch's layouts."""
    module, order = case["module"], ORDER[case["module"]]
    coupled = bool(case["input_forget"])
    wanted = "igo" if coupled else conventions.ORDER[module]
    parameters = []
    for direction in range(len(given["onnx.W"])):
        own = {"weight_ih": given["onnx.W"][direction], "weight_hh": given["onnx.R"][direction]}
        if "onnx.B" in given:
            own["bias_ih"], own["bias_hh"] = np.split(given["onnx.B"][direction], 2)
        own = {name: conventions.reordered(x, order, wanted) for name, x in own.items()}
        if "onnx.P" in given:
            rows = conventions.reordered(given["onnx.P"][direction], "iof", "io" if coupled else "ifo")
            own["peephole"] = rows.reshape(-1, case["hidden_size"])
        parameters.append(own)
    options = {"coupled": coupled, "reset": "after" if case["linear_before_reset"] else "before"}
    options["nonlinearity"] = case["nonlinearity"]
    options["clip"] = case.get("clip")
    if case.get("activations"):
        # Those of one direction.
        keys = ["gate_activation", "candidate_activation", "output_activation"] if module != "RNN" else ["nonlinearity"]
        options |= dict(zip(keys, case["activations"]))
    x = given["input.x"]
    if case["direction"] == "reverse":
        lengths = torch.from_numpy(given.get("input.lengths", np.full(x.shape[1], len(x))))

        def turned(x):
            return reference_cells.backwards(torch.from_numpy(x), lengths).numpy()

        results, margin = conventions.reference(case, options, parameters, turned(x), given)
        results["y"] = turned(results["y"])
    else:
        results, margin = conventions.reference(case, options, parameters, x, given)
    steps, batch, _ = x.shape
    # [T, B, directions * H] to [T, directions, B, H]
    y = results["y"].reshape(steps, batch, len(parameters), case["hidden_size"]).transpose(0, 2, 1, 3)
    return {f"output.{name}": x for name, x in (results | {"y": y}).items()}, margin


def run_onnx(case, given):
    results = by_runtime(case, given)
    want, margin = by_cells(case, given)
    assert want.keys() == results.keys() and worst(results, want) < tolerance(case) / 10, case
    return results, margin


def other_operators(case):
    others = {"the other direction": {"direction": "reverse" if case["direction"] == "forward" else "forward"}}
    if case["direction"] == "bidirectional":
        others = {}
    if case["module"] == "LSTM":
        others["the other input_forget"] = {"input_forget": 1 - case["input_forget"]}
    if case["module"] == "GRU":
        others["the other linear_before_reset"] = {"linear_before_reset": 1 - case["linear_before_reset"]}
    if case["module"] == "RNN" and "activations" not in case:
        others["the other nonlinearity"] = {"nonlinearity": "relu" if case["nonlinearity"] == "tanh" else "tanh"}
    if "activations" in case:
        others["activations left out"] = {"activations": None}
    if "clip" in case:
        others["clip left out"] = {"clip": None}
    return others


def operator(name, module, inputs, hidden, batch, steps, direction="forward", *, bias=True, peephole=False, **given):
    flags = {key: given.pop(key, 0) for key in ("input_forget", "linear_before_reset")}
    nonlinearity = given.pop("nonlinearity", "tanh")
    flags |= {key: given.pop(key) for key in ("activations", "clip") if key in given}

    def draw(rng, case):
        directions, rows = 1 + (direction == "bidirectional"), GATES[module] * hidden
        onnx = {
            "W": rng.normal(size=(directions, rows, inputs)) * 0.8 / np.sqrt(inputs),
            "R": rng.normal(size=(directions, rows, hidden)) * 0.8 / np.sqrt(hidden),
        }
        if bias:
            onnx["B"] = rng.normal(size=(directions, 2 * rows)) * 0.5
        if peephole:
            onnx["P"] = rng.normal(size=(directions, 3 * hidden)) * 0.7
        sizes = {"h": hidden} | ({"c": hidden} if module == "LSTM" else {})
        return {f"onnx.{key}": x for key, x in onnx.items()} | sequence(
            rng, inputs, sizes, batch, steps, leading=[directions], backward=False, **given
        )

    write(
        f"onnx_{module.lower()}_{name}", draw, run_onnx, other_operators if steps > 1 else lambda case: {}, kind="onnx",
        module=module, direction=direction, peephole=peephole, nonlinearity=nonlinearity, input_size=inputs,
        hidden_size=hidden, dtype="F32", reference=f"onnxruntime {onnxruntime.__version__}", **flags,
    )  # fmt: skip


def operators():
    lengths = {"lengths": [3, 6, 1, 4]}
    bare = {"bias": False, "state": False}
    both, relu, forget = "bidirectional", {"nonlinearity": "relu"}, {"input_forget": 1}

    operator("forward", "RNN", 3, 5, 3, 5)
    operator("reverse_lengths", "RNN", 3, 5, 4, 6, "reverse", **lengths)
    operator("bi_bare", "RNN", 3, 4, 2, 5, both, **bare)
    operator("relu_reverse", "RNN", 4, 5, 3, 5, "reverse", **relu)
    operator("relu_bi_lengths", "RNN", 3, 5, 4, 6, both, **relu, **lengths)

    operator("forward_lengths", "LSTM", 3, 5, 4, 6, **lengths)
    operator("forward_bare", "LSTM", 3, 4, 2, 5, **bare)
    operator("forward_h0_only", "LSTM", 3, 4, 2, 5, state="h")
    operator("reverse_lengths_no_state", "LSTM", 4, 5, 4, 6, "reverse", state=False, **lengths)
    operator("bi", "LSTM", 3, 5, 3, 5, both)
    operator("bi_lengths_below_t", "LSTM", 3, 4, 3, 7, both, lengths=[4, 1, 5])
    operator("bi_b1_t1", "LSTM", 3, 4, 1, 1, both)
    operator("peephole_lengths", "LSTM", 3, 5, 4, 6, peephole=True, **lengths)
    operator("peephole_reverse_bare", "LSTM", 3, 4, 2, 5, "reverse", peephole=True, **bare)
    operator("peephole_bi_lengths", "LSTM", 3, 4, 4, 6, both, peephole=True, **lengths)
    operator("input_forget", "LSTM", 3, 5, 3, 5, **forget)
    operator("input_forget_reverse_lengths", "LSTM", 4, 5, 4, 6, "reverse", **forget, **lengths)
    operator("input_forget_peephole_bare", "LSTM", 3, 4, 2, 5, peephole=True, **forget, **bare)
    operator("input_forget_peephole_bi_lengths", "LSTM", 3, 4, 4, 6, both, peephole=True, **forget, **lengths)

    for name, reset in [("reset_before", 0), ("reset_after", 1)]:
        cell = {"linear_before_reset": reset}
        operator(f"{name}_lengths", "GRU", 3, 5, 4, 6, **cell, **lengths)
        operator(f"{name}_reverse_bare", "GRU", 3, 4, 2, 5, "reverse", **cell, **bare)
        operator(f"{name}_bi", "GRU", 4, 5, 3, 5, both, **cell)
        operator(f"{name}_bi_lengths_no_state", "GRU", 3, 4, 4, 6, both, state=False, **cell, **lengths)
    operator("reset_before_b1_t1", "GRU", 3, 4, 1, 1, linear_before_reset=0)

    operator("clip_lengths", "RNN", 3, 5, 4, 6, clip=0.75, **lengths)
    operator("clip_bi", "LSTM", 3, 5, 3, 5, both, clip=0.5)
    operator("clip_peephole_input_forget", "LSTM", 3, 5, 3, 5, clip=0.5, peephole=True, **forget)
    hard, elu, leaky = ["hard_sigmoid", 0.25, 0.5], ["elu", 0.75], ["leaky_relu", 0.125]
    scaled, affine, thresholded = ["scaled_tanh", 1.5, 0.5], ["affine", 0.25, 0.5], ["thresholded_relu", 0.25]
    operator("activations", "LSTM", 3, 5, 3, 5, activations=[hard, "softsign", elu])
    mixed = {"activations": [affine, scaled, "softsign"], "clip": 1.5}
    operator("activations_reverse_clip", "LSTM", 3, 5, 4, 6, "reverse", **mixed, **lengths)
    operator("activations_relu", "LSTM", 3, 4, 2, 5, activations=["sigmoid", "relu", "relu"])
    operator("activations_softplus", "LSTM", 3, 4, 2, 5, activations=["sigmoid", "softplus", leaky])
    others = {
        "elu": elu, "softsign": "softsign", "softplus": "softplus", "leaky_relu": leaky, "affine": affine,
        "scaled_tanh": scaled, "thresholded_relu": thresholded, "hard_sigmoid": hard, "sigmoid": "sigmoid",
    }  # fmt: skip
    for name, f in others.items():
        operator(f"activations_{name}", "RNN", 3, 5, 2, 4, activations=[f])
    for name, reset in [("reset_before", 0), ("reset_after", 1)]:
        cell = {"linear_before_reset": reset}
        operator(f"{name}_clip", "GRU", 3, 5, 3, 5, clip=0.5, **cell)
        mixed = {"activations": [hard, scaled], "clip": 1.5}
        operator(f"{name}_activations_lengths", "GRU", 3, 5, 4, 6, **mixed, **cell, **lengths)
        operator(f"{name}_activations_softsign", "GRU", 3, 4, 2, 5, "reverse", activations=[affine, "softsign"], **cell)
