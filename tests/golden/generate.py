"""Writes the golden cases of this folder, with PyTorch as the reference.

    python tests/golden/generate.py

needs torch, numpy and safetensors. Run by hand, never by CI: the files are committed. Every case draws its numbers
from a seed made of its name, so a case is the same whichever others exist, and all earlier files are replaced.

One file is one case: given tensors (`input.*`, `state_dict.*`, `grad_output.*`), the tensors that must come out
(`output.*`, `grad.*`) and, in the header's metadata under `case`, JSON that says what to do. Sequences are time-major,
`[T, B, features]`. References are computed in double precision, those of F32 cases too: their given tensors are exact
in F32 and what must come out is rounded to it.

A case is only worth having if it can be passed and can be failed, so before it is written

- it must be well-conditioned: one rounding error in every float that is given moves the results by less than a tenth of
  the tolerance that `tests/golden.rs` allows;
- where relu is used, no pre-activation may be near the kink and not all units may be dead (numbers are drawn until
  this holds);
- in a training case, leaving out any one of its options must move the results by far more than the tolerance.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

FOLDER = Path(__file__).parent
DTYPES = {"F32": np.float32, "F64": np.float64}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "silu": nn.SiLU}


def tolerance(case):
    """As in `tests/golden.rs`."""
    return 1e-5 if case["dtype"] == "F32" else 1e-9 if case["kind"] == "train" else 1e-12


# --- The references: given tensors in, the tensors that must come out and the distance from any kink out. ---


def tensors_under(given, prefix):
    return {name.removeprefix(prefix): torch.from_numpy(x) for name, x in given.items() if name.startswith(prefix)}


def leaf(given, name):
    x = given.get(name)
    return None if x is None else torch.from_numpy(x).requires_grad_()


def gradients(leaves, module, outputs, given):
    """`grad.*` of everything that was given, for the `grad_output.*` of each output."""
    dy = [torch.from_numpy(given[f"grad_output.{name}"]) for name in outputs]
    torch.autograd.backward(list(outputs.values()), dy)
    results = {f"output.{name}": y.detach().numpy() for name, y in outputs.items()}
    results |= {f"grad.{name}": x.grad.numpy() for name, x in leaves.items() if x is not None}
    return results | {f"grad.{name}": p.grad.numpy() for name, p in module.named_parameters()}


def relu_margin(case, given):
    """How near the pre-activations of a one-layer relu network come to 0 within the lengths."""
    suffix = "_l0" if case["kind"] == "rnn" else ""
    weight_ih, weight_hh = given["state_dict.weight_ih" + suffix], given["state_dict.weight_hh" + suffix]
    bias = sum((b for name, b in given.items() if name.startswith("state_dict.bias")), np.zeros(1))
    x = given["input.x"] if case["kind"] == "rnn" else given["input.x"][None]
    h = given.get("input.h0", np.zeros((x.shape[1], case["hidden_size"]))).reshape(x.shape[1], -1)
    lengths = given.get("input.lengths", np.full(x.shape[1], len(x)))
    margin = np.inf
    for t, x_t in enumerate(x):
        a = x_t @ weight_ih.T + h @ weight_hh.T + bias
        margin = min(margin, np.abs(a[t < lengths]).min(initial=np.inf))
        h = np.maximum(a, 0)
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
    margin = relu_margin(case, given) if case["nonlinearity"] == "relu" else np.inf
    return gradients(leaves, module, outputs, given), margin


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
    margin = relu_margin(case, given) if case["nonlinearity"] == "relu" else np.inf
    return gradients(leaves, module, outputs, given), margin


class PreNormResidual(nn.Module):
    """`x + fc2(act(fc1(norm(x))))`"""

    def __init__(self, features, hidden, activation, eps):
        super().__init__()
        self.norm = nn.LayerNorm(features, eps=eps)
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, features)
        self.act = ACTIVATIONS[activation]()
        self.margin = np.inf

    def forward(self, x):
        a = self.fc1(self.norm(x))
        if isinstance(self.act, nn.ReLU):
            self.margin = a.abs().min().item()
        return x + self.fc2(self.act(a))


def run_residual_ff(case, given):
    sizes = case["features"], case["hidden"], case["activation"], case["norm_eps"]
    module = nn.Sequential(*(PreNormResidual(*sizes) for _ in range(case["depth"]))).double()
    module.load_state_dict(tensors_under(given, "state_dict."))
    leaves = {"x": leaf(given, "input.x")}
    outputs = {"y": module(leaves["x"])}
    return gradients(leaves, module, outputs, given), min(block.margin for block in module)


def run_train(case, given):
    vocab, hidden, clip = case["vocab"], case["hidden_size"], case["clip"]
    rnn = getattr(nn, case["module"])(vocab, hidden, case["num_layers"])
    model = nn.ModuleDict({"rnn": rnn, "head": nn.Linear(hidden, vocab)}).double()
    model.load_state_dict(tensors_under(given, "state_dict."))
    parameters = list(model.parameters())
    arguments = {key: tuple(x) if isinstance(x, list) else x for key, x in case["optimizer_args"].items()}
    optimizer = getattr(torch.optim, case["optimizer"])(parameters, **arguments)
    state, losses, norms = None, [], []
    for ids in torch.from_numpy(given["input.ids"]):
        optimizer.zero_grad()
        y, state = rnn(nn.functional.one_hot(ids[:-1], vocab).double(), state)
        loss = nn.functional.cross_entropy(model["head"](y).flatten(0, 1), ids[1:].flatten())
        loss.backward()
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        p = float(clip.get("p", 2.0))
        norms.append(nn.utils.get_total_norm([parameter.grad for parameter in parameters], p).item())
        if clip["type"] == "norm":
            nn.utils.clip_grad_norm_(parameters, clip["max"], p)
        elif clip["type"] == "value":
            nn.utils.clip_grad_value_(parameters, clip["max"])
        optimizer.step()
        losses.append(loss.item())
    results = {"output.losses": np.array(losses)}
    if clip["type"] != "none":
        results["output.norms"] = np.array(norms)
    return results | {f"output.state_dict.{name}": x.numpy() for name, x in model.state_dict().items()}, np.inf


RUN = {"rnn": run_rnn, "cell": run_cell, "residual_ff": run_residual_ff, "train": run_train}


# --- What makes a case worth having. ---


def worst(got, want):
    """The largest error of any tensor, relative to the largest element but at least 1: what the test looks at."""
    return max(np.abs(got[name] - x).max() / max(1.0, np.abs(x).max()) for name, x in want.items())


def check_conditioning(name, case, given, want, rng):
    ulp = np.finfo(DTYPES[case["dtype"]]).eps
    for _ in range(4):
        nudged = {
            key: x * (1 + ulp * rng.choice([-1.0, 1.0], x.shape)) if x.dtype == np.float64 else x
            for key, x in given.items()
        }
        error = worst(RUN[case["kind"]](case, nudged)[0], want)
        assert error < tolerance(case) / 10, f"{name}: ill-conditioned: rounding the inputs gives {error:.1e}"


def check_options_show(name, case, given, want):
    """No option of a training case may be one that could be left out unnoticed."""
    arguments = case["optimizer_args"]
    variants = {
        f"{key} left out": case | {"optimizer_args": {k: x for k, x in arguments.items() if k != key}}
        for key in arguments
        if not (key in ("momentum", "dampening") and arguments.get("nesterov"))
    }
    if case["optimizer"] == "AdamW":
        variants["Adam instead of AdamW"] = case | {"optimizer": "Adam"}
    if case["clip"]["type"] != "none":
        variants["no clipping"] = case | {"clip": {"type": "none"}}
    if case["clip"].get("p", 2.0) != 2.0:
        variants["the norm's p left out"] = case | {"clip": {k: x for k, x in case["clip"].items() if k != "p"}}
    for what, variant in variants.items():
        got = RUN["train"](variant, given)[0]
        error = worst(got, {key: x for key, x in want.items() if key != "output.norms"})
        assert error > 1e3 * tolerance(case), f"{name}: {what}: differs by {error:.1e} only"


def write(name, draw, **case):
    """Writes the case that `draw(rng, case)` gives the tensors of, at the first try that no kink is near in."""
    case = {"dtype": "F64", "reference": f"torch {torch.__version__.split('+')[0]}"} | case
    dtype = DTYPES[case["dtype"]]
    floor = 1e-3 if dtype == np.float32 else 1e-6
    for attempt in range(1000):
        rng = np.random.default_rng([zlib.crc32(name.encode()), attempt])
        given = draw(rng, case)
        junk = given.pop("junk", {})
        given = {key: x if x.dtype == np.int64 else x.astype(dtype).astype(np.float64) for key, x in given.items()}
        want, margin = RUN[case["kind"]](case, given)
        if margin > floor and any(x.any() for key, x in want.items() if key.startswith("output.")):
            break
    else:
        raise AssertionError(f"{name}: always near a kink, or zero")
    check_conditioning(name, case, given, want, rng)
    if case["kind"] == "train":
        check_options_show(name, case, given, want)
    assert all(np.isfinite(x).all() for x in want.values()), f"{name}: not finite"
    # Junk last: the reference never sees it.
    for key, padding in junk.items():
        given[key] = np.where(padding["where"], padding["values"], given[key])
    tensors = {key: x if x.dtype == np.int64 else x.astype(dtype) for key, x in (given | want).items()}
    tensors = {key: np.ascontiguousarray(tensors[key]) for key in sorted(tensors)}
    save_file(tensors, FOLDER / f"{name}.safetensors", {"case": json.dumps(case, sort_keys=True)})


# --- Given tensors. ---


def recurrent_parameters(
    rng, module, inputs, hidden, bias=True, gain=0.8, projection=0, suffix="_l0", prefix="state_dict."
):  # fmt: skip
    """Normal weights: `gain` is roughly the standard deviation of what a gate receives from x and from h."""
    rows = GATES[module] * hidden
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


def shift_gates(rng, given, shift, hidden):
    """Pushes `bias_ih` gate by gate (`shift` a list), or every second unit far to either side (a number)."""
    bias = next(x for name, x in given.items() if "bias_ih" in name)
    if isinstance(shift, list):
        bias += np.repeat(shift, hidden)
    else:
        bias[::2] += shift * rng.choice([-1.0, 1.0], bias[::2].shape)


def recurrent(
    inputs, hidden, batch, steps=None, *, state=True, lengths=None, scale=1.0, shift=None, junk=1e30, gain=0.8
):  # fmt: skip
    """Draws a `cell` case (no `steps`) or an `rnn` case of one layer and one direction."""

    def draw(rng, case):
        module = case["module"].removesuffix("Cell")
        of_sequence = steps is not None
        time, layer = ([steps], [1]) if of_sequence else ([], [])
        projection = case.get("proj_size", 0)
        given = recurrent_parameters(
            rng, module, inputs, hidden, bias=case["bias"], gain=gain, projection=projection,
            suffix="_l0" if of_sequence else "",
        )  # fmt: skip
        if shift is not None:
            shift_gates(rng, given, shift, hidden)
        given["input.x"] = rng.normal(size=[*time, batch, inputs]) * scale
        for part in ["h", "c"] if module == "LSTM" else ["h"]:
            size = projection or hidden if part == "h" else hidden
            if state:
                given[f"input.{part}0"] = rng.normal(size=[*layer, batch, size]) * 0.5
            given[f"grad_output.{part}n"] = rng.normal(size=[*layer, batch, size])
        if of_sequence:
            given["grad_output.y"] = rng.normal(size=[steps, batch, projection or hidden])
        if lengths is not None:
            given["input.lengths"] = np.array(lengths, dtype=np.int64)
            padding = (np.arange(steps)[:, None] >= given["input.lengths"])[..., None]
            given["junk"] = {
                key: {"where": padding, "values": rng.normal(size=given[key].shape) * junk}
                for key in ("input.x", "grad_output.y")
            }
        return given

    return draw


def residual(rows, *, scale=1.0):
    def draw(rng, case):
        features, hidden = case["features"], case["hidden"]
        given = {name: rng.normal(size=(rows, features)) for name in ("input.x", "grad_output.y")}
        given["input.x"] *= scale
        for k in range(case["depth"]):
            block = {
                "norm.weight": 1 + 0.3 * rng.normal(size=features),
                "norm.bias": 0.3 * rng.normal(size=features),
                "fc1.weight": rng.normal(size=(hidden, features)) / np.sqrt(features),
                "fc1.bias": 0.5 * rng.normal(size=hidden),
                "fc2.weight": rng.normal(size=(features, hidden)) / np.sqrt(hidden),
                "fc2.bias": 0.5 * rng.normal(size=features),
            }
            given |= {f"state_dict.{k}.{name}": x for name, x in block.items()}
        return given

    return draw


def training(steps_in_batch, batch):
    def draw(rng, case):
        vocab, hidden = case["vocab"], case["hidden_size"]
        given = recurrent_parameters(rng, case["module"], vocab, hidden, prefix="state_dict.rnn.", gain=1.2)
        given["state_dict.head.weight"] = rng.normal(size=(vocab, hidden)) / np.sqrt(hidden)
        given["state_dict.head.bias"] = 0.5 * rng.normal(size=vocab)
        given["input.ids"] = rng.integers(vocab, size=(case["steps"], steps_in_batch + 1, batch))
        return given

    return draw


# --- The cases. ---

# A cell's name in files, PyTorch's module, and the nonlinearity.
CELLS = [("rnn_tanh", "RNN", "tanh"), ("rnn_relu", "RNN", "relu"), ("lstm", "LSTM", "tanh"), ("gru", "GRU", "tanh")]


def cell(name, kind, *sizes, bias=True, dtype="F64", **given):
    """One step: `sizes` are inputs, hidden, batch."""
    module, nonlinearity = next(rest for known, *rest in CELLS if known == kind)
    write(
        f"cell_{kind}_{name}", recurrent(*sizes, **given), kind="cell", module=module + "Cell", bias=bias,
        nonlinearity=nonlinearity, input_size=sizes[0], hidden_size=sizes[1], dtype=dtype,
    )  # fmt: skip


def rnn(name, kind, *sizes, bias=True, projection=0, dtype="F64", **given):
    """A sequence: `sizes` are inputs, hidden, batch, steps."""
    module, nonlinearity = next(rest for known, *rest in CELLS if known == kind)
    write(
        f"{kind}_{name}", recurrent(*sizes, **given), kind="rnn", module=module, bias=bias, nonlinearity=nonlinearity,
        input_size=sizes[0], hidden_size=sizes[1], num_layers=1, bidirectional=False,
        proj_size=projection, dtype=dtype,
    )  # fmt: skip


def residual_ff(name, activation, features, hidden, rows, depth, dtype="F64", **given):
    write(
        f"residual_ff_{activation}_{name}", residual(rows, **given), kind="residual_ff", module="PreNormResidual",
        activation=activation, depth=depth, features=features, hidden=hidden, norm_eps=1e-5, dtype=dtype,
    )  # fmt: skip


def train(name, module, optimizer, clip, *, steps=10, vocab=7, hidden=5, batch=(6, 3), **optimizer_args):
    write(
        f"train_{module.lower()}_{name}", training(*batch), kind="train", module=module, optimizer=optimizer,
        optimizer_args=optimizer_args, clip=clip, steps=steps, vocab=vocab, hidden_size=hidden, num_layers=1,
        carry_state=True,
    )  # fmt: skip


def cells():
    for kind, _, _ in CELLS:
        cell("all_1", kind, 1, 1, 1)
        cell("i9_h17_b7_f32", kind, 9, 17, 7, dtype="F32")
        cell("bare_b17", kind, 3, 5, 17, bias=False, state=False)
    for kind in ["rnn_tanh", "lstm", "gru"]:
        cell("saturated", kind, 5, 7, 3, gain=8.0, scale=5.0)


def sequences():
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
    # Neither biases nor states; junk in the padding that would spread wherever it were read.
    for kind, _, _ in CELLS:
        rnn("bare_nan_padding", kind, 3, 5, 4, 6, lengths=[3, 6, 1, 4], bias=False, state=False, junk=np.nan)
    # A projection of h, narrow and wide.
    rnn("projected", "lstm", 3, 6, 2, 5, projection=4)
    rnn("projected_lengths", "lstm", 9, 17, 5, 8, projection=1, lengths=[3, 8, 1, 7, 7])
    rnn("projected_bare_f32", "lstm", 5, 33, 3, 6, projection=17, bias=False, state=False, dtype="F32")
    # No sequence reaches the last step.
    rnn("lengths_below_t", "lstm", 3, 4, 3, 7, lengths=[4, 1, 5])
    rnn("lengths_below_t", "gru", 3, 4, 3, 7, lengths=[4, 1, 5])
    # Gates shut and open: large weights, large inputs, and biases past where a plain exp overflows.
    for kind in ["rnn_tanh", "lstm", "gru"]:
        rnn("saturated", kind, 5, 7, 3, 6, gain=8.0, scale=5.0)
    for kind in ["lstm", "gru"]:
        rnn("biases_800", kind, 3, 6, 3, 5, shift=800.0)
        rnn("biases_800_lengths_f32", kind, 3, 6, 3, 5, shift=800.0, lengths=[3, 5, 1], dtype="F32")
    # A memory that holds over 40 steps: forget (update) gates open.
    rnn("long_memory", "lstm", 2, 5, 7, 40, shift=[0.0, 4.0, 0.0, 0.0])
    rnn("long_memory", "gru", 2, 5, 7, 40, shift=[0.0, 4.0, 0.0])
    rnn("long_f32", "lstm", 3, 7, 3, 40, dtype="F32")


def residuals():
    for activation in ACTIVATIONS:
        residual_ff("depth1_n1", activation, 5, 7, 1, 1)
        residual_ff("depth4", activation, 7, 11, 3, 4)
    residual_ff("f17_h33_n7", "silu", 17, 33, 7, 1)
    residual_ff("f17_h33_n7_f32", "gelu", 17, 33, 7, 1, dtype="F32")
    residual_ff("depth3_f32", "tanh", 9, 5, 5, 3, dtype="F32")
    residual_ff("one_feature", "tanh", 1, 3, 4, 2)
    residual_ff("large_input", "sigmoid", 6, 9, 5, 2, scale=30.0)


def trainings():
    none = {"type": "none"}

    def norm(most, **p):
        return {"type": "norm", "max": most} | p

    train("sgd", "RNN", "SGD", none, lr=0.5)
    train("sgd_norm", "GRU", "SGD", norm(0.05), lr=0.5)
    train("sgd_momentum_norm", "LSTM", "SGD", norm(0.05), lr=0.5, momentum=0.9)
    train("sgd_dampening", "GRU", "SGD", none, lr=0.5, momentum=0.9, dampening=0.3)
    train("sgd_nesterov_norm_p1", "RNN", "SGD", norm(1.0, p=1.0), lr=0.3, momentum=0.8, nesterov=True)
    train("sgd_weight_decay_value", "LSTM", "SGD", {"type": "value", "max": 0.02}, lr=0.5, weight_decay=0.05)
    train("sgd_dampening_decay_norm_inf", "GRU", "SGD", norm(0.05, p="inf"), steps=12, lr=0.4, momentum=0.7,
          dampening=0.5, weight_decay=0.02)  # fmt: skip
    train("sgd_nesterov_decay_norm_p3", "LSTM", "SGD", norm(0.1, p=3.0), steps=8, lr=0.5, momentum=0.9, nesterov=True,
          weight_decay=0.01)  # fmt: skip
    # Clipping that some steps reach and others do not.
    train("sgd_norm_at_times", "RNN", "SGD", norm(0.5), lr=0.3, momentum=0.5)
    train("adam", "GRU", "Adam", none, steps=8, lr=0.05)
    train("adam_betas_eps_norm", "LSTM", "Adam", norm(0.05, p=2.0), lr=0.03, betas=[0.7, 0.95], eps=1e-3)
    train("adam_weight_decay_value", "RNN", "Adam", {"type": "value", "max": 0.01}, lr=0.05, weight_decay=0.1)
    train("adam_all_norm_inf", "GRU", "Adam", norm(0.02, p="inf"), steps=12, lr=0.02, betas=[0.8, 0.9], eps=1e-4,
          weight_decay=0.05)  # fmt: skip
    train("adam_norm_p1", "LSTM", "Adam", norm(1.0, p=1.0), lr=0.04, betas=[0.5, 0.99], eps=1e-3)
    train("adamw", "RNN", "AdamW", none, lr=0.05)
    train("adamw_weight_decay_norm_p3", "LSTM", "AdamW", norm(0.02, p=3.0), lr=0.02, weight_decay=0.3, eps=1e-2)
    train("adamw_all_value", "GRU", "AdamW", {"type": "value", "max": 0.005}, steps=8, vocab=11, hidden=3, batch=(1, 1),
          lr=0.05, betas=[0.85, 0.97], eps=1e-3, weight_decay=0.2)  # fmt: skip


def main():
    torch.set_num_threads(1)
    for old in FOLDER.glob("*.safetensors"):
        old.unlink()
    for section in (cells, sequences, residuals, trainings):
        section()
    files = list(FOLDER.glob("*.safetensors"))
    print(f"{len(files)} cases, {sum(file.stat().st_size for file in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
