"""Kind `conv`: `torch.nn.functional.conv1d` over sequences that are padded on the left, by zeros or by a state.

Each sequence of a batch is computed separately, cut to its length, so that the reference never sees padding, which holds large
numbers or NaN in the cases.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .case import gradients, leaf, tensors_under, write


def module_of(case, given):
    module = nn.Conv1d(
        case["input_size"], case["output_size"], case["kernel"], stride=case["stride"], dilation=case["dilation"],
        groups=case["groups"], bias=case["bias"],
    ).double()  # fmt: skip
    if case["weight_norm"]:
        module = nn.utils.weight_norm(module)
    module.load_state_dict(tensors_under(given, "state_dict."))
    return module


def run(case, given):
    module = module_of(case, given)
    leaves = {"x": leaf(given, "input.x"), "state": leaf(given, "input.state")}
    x, state = leaves["x"], leaves["state"]
    steps, batch, width = x.shape
    reach, stride = (case["kernel"] - 1) * case["dilation"], case["stride"]
    lengths = given.get("input.lengths", np.full(batch, steps))
    y = torch.zeros(-(-steps // stride), batch, case["output_size"], dtype=torch.float64)
    last = torch.zeros(reach, batch, width, dtype=torch.float64)
    for b, length in enumerate(lengths):
        before = torch.zeros(reach, width, dtype=torch.float64) if state is None else state[:, b]
        whole = torch.cat([before, x[:length, b]])  # [P + n, I]
        own = module(whole.T[None])[0].T
        assert len(own) == -(-length // stride)
        y[: len(own), b] = own
        last[:, b] = whole[length:]
    outputs = {"y": y} | ({} if reach == 0 else {"state": last})
    return gradients(leaves, module.named_parameters(), outputs, given), np.inf


def tensors(steps, batch, *, lengths=None, state=False, junk=1e30):
    def draw(rng, case):
        width, output, kernel = case["input_size"], case["output_size"], case["kernel"]
        reads, reach = width // case["groups"], (kernel - 1) * case["dilation"]
        out_steps = -(-steps // case["stride"])
        given = {
            "input.x": rng.normal(size=(steps, batch, width)),
            "grad_output.y": rng.normal(size=(out_steps, batch, output)),
        }
        weight = rng.normal(size=(output, reads, kernel)) / np.sqrt(reads * kernel)
        if case["weight_norm"]:
            given["state_dict.weight_v"] = 3 * weight
            given["state_dict.weight_g"] = rng.normal(size=(output, 1, 1))
        else:
            given["state_dict.weight"] = weight
        if case["bias"]:
            given["state_dict.bias"] = 0.5 * rng.normal(size=output)
        if reach > 0:
            given["grad_output.state"] = rng.normal(size=(reach, batch, width))
        if state:
            given["input.state"] = rng.normal(size=(reach, batch, width))
        if lengths is not None:
            given["input.lengths"] = np.array(lengths, np.int64)
            ends = [np.array(lengths), -(-np.array(lengths) // case["stride"])]
            for key, end, count in zip(["input.x", "grad_output.y"], ends, [steps, out_steps]):
                past = np.arange(count)[:, None, None] >= end[None, :, None]
                past = np.broadcast_to(past, given[key].shape)
                given[key] = np.where(past, 0.0, given[key])
                given.setdefault("junk", {})[key] = {"where": past, "values": junk * rng.choice([-1.0, 1.0], past.shape)}
        return given

    return draw


def conv(
    name, sizes, steps=9, batch=3, *, dilation=1, stride=1, groups=1, bias=True, weight_norm=False, dtype="F64", **given
):
    def others(case):
        options = {}
        if case["stride"] == 1 and case["kernel"] > 1 and not given.get("state"):
            # The shape of y stays the same; that of the state does not, so the state is left out.
            options["dilation"] = {"dilation": case["dilation"] + 1}
        return options

    def run_as(case, tensors):
        """Runs the case; with another dilation, the state has another size and is left out of the comparison."""
        if case["dilation"] == dilation:
            return run(case, tensors)
        reach = (case["kernel"] - 1) * case["dilation"]
        zeros = np.zeros((reach, batch, case["input_size"]))
        results, margin = run(case, tensors | {"grad_output.state": zeros})
        if "output.state" in results:
            results["output.state"] = results["output.state"][-(case["kernel"] - 1) * dilation :]
        return results, margin

    input_size, output_size, kernel = sizes
    write(
        f"conv_{name}", tensors(steps, batch, **given), run_as, others, kind="conv", input_size=input_size,
        output_size=output_size, kernel=kernel, dilation=dilation, stride=stride, groups=groups, bias=bias,
        weight_norm=weight_norm, dtype=dtype,
    )  # fmt: skip


def convolutions():
    conv("k1", (3, 4, 1))
    conv("k3", (3, 4, 3))
    conv("k2_d4_no_bias", (5, 3, 2), dilation=4, bias=False)
    conv("k3_d7_beyond_t", (3, 4, 3), steps=5, dilation=7)
    conv("t1_b1", (4, 3, 3), steps=1, batch=1, state=True)
    conv("state", (3, 4, 3), dilation=2, state=True)
    conv("lengths", (3, 4, 4), lengths=[5, 9, 1], junk=np.nan)
    conv("lengths_state", (3, 4, 3), dilation=2, lengths=[2, 8, 5], state=True)
    conv("groups2", (6, 4, 3), groups=2)
    conv("depthwise", (5, 5, 4), dilation=2, groups=5, lengths=[9, 3, 7])
    conv("depthwise_multiplied", (3, 6, 3), groups=3, state=True)
    conv("stride2", (3, 4, 3), stride=2)
    conv("stride3_k2_beyond", (3, 4, 2), stride=3, steps=8)
    conv("stride2_d3_groups", (4, 6, 3), steps=12, dilation=3, stride=2, groups=2, state=True)
    conv("stride3_lengths_no_bias", (3, 5, 5), steps=11, stride=3, bias=False, lengths=[4, 11, 1], junk=np.nan)
    conv("weight_norm", (3, 4, 3), dilation=2, weight_norm=True)
    conv("weight_norm_groups_stride", (4, 6, 2), steps=10, stride=2, groups=2, weight_norm=True, state=True)
    conv("i33_o17_k5_b7_f32", (33, 17, 5), steps=20, batch=7, dilation=2, dtype="F32")
    conv("i16_o40_t200_f32", (16, 40, 3), steps=200, batch=2, dilation=16, lengths=[200, 77], dtype="F32")
    conv("i70_o5_t60", (70, 5, 9), steps=60, batch=2, dilation=3, state=True)
