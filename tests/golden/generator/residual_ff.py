"""Kind `residual_ff`: pre-norm residual blocks, one after another."""

import numpy as np
from torch import nn

from .case import gradients, leaf, tensors_under, write

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "silu": nn.SiLU}


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
    return gradients(leaves, module.named_parameters(), outputs, given), min(block.margin for block in module)


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


def residual_ff(name, activation, features, hidden, rows, depth, dtype="F64", **given):
    write(
        f"residual_ff_{activation}_{name}", residual(rows, **given), run_residual_ff, kind="residual_ff",
        module="PreNormResidual", activation=activation, depth=depth, features=features, hidden=hidden, norm_eps=1e-5,
        dtype=dtype,
    )  # fmt: skip


def residuals():
    for activation in ACTIVATIONS:
        residual_ff("depth1_n1", activation, 5, 7, 1, 1)
        residual_ff("depth4", activation, 7, 11, 3, 4)
    residual_ff("f17_h33_n7", "silu", 17, 33, 7, 1)
    residual_ff("f17_h33_n7_f32", "gelu", 17, 33, 7, 1, dtype="F32")
    residual_ff("depth3_f32", "tanh", 9, 5, 5, 3, dtype="F32")
    residual_ff("one_feature", "tanh", 1, 3, 4, 2)
    residual_ff("large_input", "sigmoid", 6, 9, 5, 2, scale=30.0)
