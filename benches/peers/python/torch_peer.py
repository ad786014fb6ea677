"""PyTorch, eager: training by `torch.autograd.grad`, inference under `inference_mode`."""

import torch
from torch import nn

from point import Point, parameters

DTYPES = {"f32": torch.float32, "f64": torch.float64}
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


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
    else:
        module = CELLS[point.cell](point.input, point.hidden)
    module.to(dtype).load_state_dict(given)
    return module


class Peer:
    def __init__(self, threads):
        set_threads(threads)

    def version(self):
        blas = "MKL" if torch.backends.mkl.is_available() else "no MKL"
        return f"torch {torch.__version__} ({blas}, {torch.backends.cpu.get_cpu_capability()})"

    def prepare(self, point, given):
        module = module_of(point, given)
        return (Training if point.trains else Inference)(point, module, given)


class Forward:
    """The forward pass; a recurrent module gets a zero state made once, which is faster than having one made a call."""

    def __init__(self, point, module, given):
        self.module = module
        self.x = torch.from_numpy(given["x"])
        self.names = [name for name, _ in module.named_parameters()]
        self.parameters = list(module.parameters())
        self.recurrent = point.cell != "residual"
        if self.recurrent:
            h = torch.zeros(1, point.batch, point.hidden, dtype=self.x.dtype)
            self.state = (h, h.clone()) if point.cell == "lstm" else h

    def forward(self):
        return self.module(self.x, self.state)[0] if self.recurrent else self.module(self.x)


class Inference(Forward):
    @torch.inference_mode()
    def run(self):
        self.forward()

    @torch.inference_mode()
    def outputs(self):
        return {"y": self.forward().numpy()}


class Training(Forward):
    def __init__(self, point, module, given):
        super().__init__(point, module, given)
        self.x.requires_grad_()
        self.dy = torch.from_numpy(given["dy"])
        self.inputs = [self.x, *self.parameters]

    def run(self):
        torch.autograd.grad(self.forward(), self.inputs, self.dy)

    def outputs(self):
        y = self.forward()
        grads = torch.autograd.grad(y, self.inputs, self.dy)
        names = ["dx", *(f"grad.{name}" for name in self.names)]
        return {"y": y.detach().numpy(), **{name: grad.contiguous().numpy() for name, grad in zip(names, grads)}}
