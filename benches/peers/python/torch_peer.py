"""PyTorch, eager: training with `torch.autograd.grad`, inference under `inference_mode`."""

from contextlib import nullcontext

import torch
from torch import nn

from point import Point, parameters

DTYPES = {"f32": torch.float32, "f64": torch.float64}
LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
# For single steps: several times as fast as a sequence of one.
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


LAYER = "_l0"  # suffix of a layer's parameter names, which a cell's lack


def set_threads(threads):
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


class PreNormBlock(nn.Module):
    """`x + fc2(gelu(fc1(layer_norm(x))))`"""

    def __init__(self, width, inner):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x):
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))


def module_of(point: Point, given):
    """The module of a point, with the given parameters."""
    dtype = DTYPES[point.dtype]
    given = {name: torch.from_numpy(value) for name, value in parameters(given).items()}
    if point.cell == "residual":
        inner = given["0.fc1.weight"].shape[0]
        module = nn.Sequential(*(PreNormBlock(point.hidden, inner) for _ in range(point.depth)))
    elif point.steps == 1:
        module = CELLS[point.cell](point.input, point.hidden)
        given = {name.removesuffix(LAYER): value for name, value in given.items()}
    else:
        module = LAYERS[point.cell](point.input, point.hidden)
    module.to(dtype).load_state_dict(given)
    return module


class Peer:
    def __init__(self, threads):
        set_threads(threads)

    def version(self):
        blas = "MKL" if torch.backends.mkl.is_available() else "no MKL"
        return f"torch {torch.__version__} ({blas}, {torch.backends.cpu.get_cpu_capability()})"

    def prepare(self, point, given):
        if point.mode == "step":
            from torch_steps import Steps  # which needs this module

            return Steps(point, given, compiled=False)
        module = module_of(point, given)
        return (Training if point.trains else Inference)(point, module, given)


class Forward:
    """The forward pass; a recurrent module gets a zero state that is made once, which is faster than making one in each call."""

    def __init__(self, point, module, given):
        self.module = module
        self.recurrent = point.cell != "residual"
        self.single_step = self.recurrent and point.steps == 1
        self.x = self.squeezed(torch.from_numpy(given["x"]))
        if self.recurrent:
            h = self.squeezed(torch.zeros(1, point.batch, point.hidden, dtype=self.x.dtype))
            self.state = (h, h.clone()) if point.cell == "lstm" else h
            self.has_pair = point.cell == "lstm"

    def squeezed(self, tensor):
        """Without the axis of time if there is a single step."""
        return tensor[0] if self.single_step else tensor

    def given_shape(self, tensor):
        tensor = tensor.detach()
        return (tensor[None] if self.single_step else tensor).contiguous().numpy()

    def forward(self):
        if not self.recurrent:
            return self.module(self.x)
        y = self.module(self.x, self.state)
        return y[0] if self.has_pair or not self.single_step else y


class Inference(Forward):
    mode = torch.inference_mode

    def run(self):
        self.forward()

    @torch.inference_mode()
    def outputs(self):
        return {"y": self.given_shape(self.forward())}


class Training(Forward):
    mode = nullcontext

    def __init__(self, point, module, given):
        super().__init__(point, module, given)
        self.x.requires_grad_()
        self.dy = self.squeezed(torch.from_numpy(given["dy"]))
        self.inputs = [self.x, *module.parameters()]

    def run(self):
        torch.autograd.grad(self.forward(), self.inputs, self.dy)

    def outputs(self):
        y = self.forward()
        dx, *grads = torch.autograd.grad(y, self.inputs, self.dy)
        layer = LAYER if self.single_step else ""
        names = [f"grad.{name}{layer}" for name, _ in self.module.named_parameters()]
        outputs = {name: grad.contiguous().numpy() for name, grad in zip(names, grads, strict=True)}
        return {"y": self.given_shape(y), "dx": self.given_shape(dx), **outputs}
