#!/usr/bin/env python3
"""Writes the files that `load` reads, from PyTorch's two exporters, with inputs and PyTorch's outputs.

    python3 tests/onnx/torch_files.py tests/onnx/data [NAME …]

Needs torch, onnx, onnxscript and safetensors. Each model is written as `NAME-jit.onnx` (`dynamo=False`) and `NAME-dynamo.onnx`
(`dynamo=True`), and `NAME.safetensors` has `x` and `y`, in gradflow's order of axes.
"""

import sys
import warnings
from pathlib import Path

import onnx
import torch
from safetensors.torch import save_file
from torch import nn

STEPS, BATCH, INPUT, HIDDEN, VOCABULARY = 6, 2, 3, 5, 11


class Sequences(nn.Module):
    """A recurrent layer and a linear one; `batch_first` depends on the layer."""

    def __init__(self, recurrent, output=2):
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(recurrent.hidden_size * (2 if recurrent.bidirectional else 1), output)

    def forward(self, x):
        return self.head(self.recurrent(x)[0])


class Classifier(nn.Module):
    """Token ids, `[B, T]`, to classes, from the last hidden state of each direction."""

    def __init__(self, bidirectional, by_state):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 4)
        self.lstm = nn.LSTM(4, HIDDEN, batch_first=True, bidirectional=bidirectional)
        self.norm = nn.LayerNorm(HIDDEN * (2 if bidirectional else 1))
        self.head = nn.Linear(self.norm.normalized_shape[0], 3)
        self.by_state = by_state

    def forward(self, ids):
        y, (h, _) = self.lstm(self.embedding(ids))
        if not self.by_state:
            y = y[:, -1]
        elif self.lstm.bidirectional:
            y = torch.cat([h[-2], h[-1]], dim=1)
        else:
            y = h[-1]
        return self.head(self.norm(y))


class Blocks(nn.Module):
    """A projection, pre-norm residual blocks, and a mean over time."""

    def __init__(self):
        super().__init__()
        self.input = nn.Linear(INPUT, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 7), nn.GELU(), nn.Linear(7, 4)) for _ in range(2)
        )
        self.gru = nn.GRU(4, HIDDEN)
        self.head = nn.Linear(HIDDEN, 2, bias=False)

    def forward(self, x):
        x = self.input(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.gru(x)[0].mean(dim=0))


class Stateful(nn.Module):
    """The caller passes the state and gets it back, as in a program that reads a stream."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(INPUT, HIDDEN, num_layers=2, batch_first=True)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x, (h, c))
        return self.head(y), h, c


def rows(*layers):
    return nn.Sequential(*layers)


def models():
    """Name, model, kind of input: sequences, time first or batch first, token ids batch first, rows; static: of fixed sizes."""
    for kind in ("LSTM", "GRU", "RNN"):
        layer = getattr(nn, kind)
        name = kind.lower()
        yield name, Sequences(layer(INPUT, HIDDEN)), "time"
        yield f"{name}_two_layers", Sequences(layer(INPUT, HIDDEN, num_layers=2, batch_first=True)), "batch"
        yield f"{name}_both", Sequences(layer(INPUT, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)), "batch"
    yield "rnn_relu", Sequences(nn.RNN(INPUT, HIDDEN, nonlinearity="relu")), "time"
    yield "lstm_no_bias", Sequences(nn.LSTM(INPUT, HIDDEN, bias=False)), "time"
    yield "lstm_alone", nn.LSTM(INPUT, HIDDEN), "time"
    yield "lstm_f64", Sequences(nn.LSTM(INPUT, HIDDEN, num_layers=2, bidirectional=True)).double(), "time"
    yield "gru_f64", Sequences(nn.GRU(INPUT, HIDDEN)).double(), "time"
    yield "classifier_output", Classifier(False, False), "ids"
    yield "classifier_state", Classifier(False, True), "ids"
    yield "classifier_both", Classifier(True, True), "ids"
    yield "blocks", Blocks(), "time"
    yield "stateful", Stateful(), "batch"
    # As in `torch.onnx.export(model, x, path)`, for one sequence of a fixed number of steps.
    yield "static_lstm", Sequences(nn.LSTM(INPUT, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)), "static"
    yield "static_gru", Sequences(nn.GRU(INPUT, HIDDEN, batch_first=True)), "static"
    yield "static_classifier", Classifier(True, True), "static ids"
    yield "static_last", Classifier(False, False), "static ids"
    layers = [nn.Linear(INPUT, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 6), nn.SiLU(), nn.Dropout(0.5)]
    yield "rows", rows(*layers, nn.Linear(6, 4), nn.LeakyReLU(0.2), nn.Linear(4, 3), nn.Sigmoid()), "rows"
    yield "rows_f64", rows(nn.Linear(INPUT, 8), nn.Tanh(), nn.Linear(8, 2)).double(), "rows"


def inputs(kind, model):
    dtype = next(model.parameters()).dtype
    if kind == "static ids":
        return torch.randint(VOCABULARY, (1, STEPS)), {}
    if kind == "static":
        return torch.randn(1, STEPS, INPUT, dtype=dtype), {}
    if kind == "ids":
        return torch.randint(VOCABULARY, (BATCH, STEPS)), {0: "batch", 1: "steps"}
    if kind == "rows":
        return torch.randn(BATCH, INPUT, dtype=dtype), {0: "batch"}
    shape = (STEPS, BATCH, INPUT) if kind == "time" else (BATCH, STEPS, INPUT)
    return torch.randn(shape, dtype=dtype), {0: "steps", 1: "batch"} if kind == "time" else {0: "batch", 1: "steps"}


def in_order(kind, tensor, is_input):
    """`[T, B, D]`; ids `[T, B]`."""
    if kind == "rows":
        return tensor[None]
    if is_input and kind in ("batch", "ids", "static", "static ids"):
        return tensor.transpose(0, 1)
    if not is_input and tensor.dim() == 2:
        return tensor[None]
    return tensor.transpose(0, 1) if kind in ("batch", "static") else tensor


def main(folder, *chosen):
    warnings.simplefilter("ignore")
    folder = Path(folder)
    for number, (name, model, kind) in enumerate(models()):
        if chosen and name not in chosen:
            continue
        torch.manual_seed(number)
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
        model.eval()
        x, axes = inputs(kind, model)
        arguments = (x,)
        if name == "stateful":
            arguments += (torch.zeros(2, BATCH, HIDDEN), torch.zeros(2, BATCH, HIDDEN))
        with torch.no_grad():
            y = model(*arguments)
        y = y[0] if isinstance(y, tuple) else y
        tensors = {"x": in_order(kind, x, True), "y": in_order(kind, y, False)}
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
        for exporter in ("jit", "dynamo"):
            # The newer exporter unrolls `nn.RNN` over the steps of its example: one such file is enough.
            if exporter == "dynamo" and name.startswith("rnn_"):
                continue
            path = folder / f"{name}-{exporter}.onnx"
            if exporter == "jit":
                names = ["x", "h", "c"][: len(arguments)]
                dynamic = {"x": axes, "h": {1: "batch"}, "c": {1: "batch"}}
                dynamic = {name: dynamic[name] for name in names}
                torch.onnx.export(model, arguments, path, dynamo=False, input_names=names, dynamic_axes=dynamic)
            else:
                auto = torch.export.Dim.AUTO
                shapes = ({axis: auto for axis in axes},) + ({1: auto},) * (len(arguments) - 1)
                torch.onnx.export(model, arguments, path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False)
            file = onnx.load(path)
            # The source lines of each node are of no use here.
            for node in file.graph.node:
                node.ClearField("doc_string")
                del node.metadata_props[:]
            for value in file.graph.value_info:
                del value.metadata_props[:]
            onnx.save(file, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
