"""The parameters of ONNX and Keras in PyTorch's layouts, to compare their results with the reference cells."""

import numpy as np
import torch

from . import reference_cells

ORDER = {"RNN": "h", "GRU": "rzn", "LSTM": "ifgo"}


def reordered(blocks, order, wanted):
    """The blocks of axis 0 in the order of `wanted`; others are left out."""
    blocks = dict(zip(order, np.split(blocks, len(order))))
    return np.concatenate([blocks[gate] for gate in wanted])


def reference(case, options, parameters, x, given):
    """y, hn and cn of the reference cells, for one layer in one or two directions, and the distance from relu's kink."""
    parameters = [{name: torch.from_numpy(np.ascontiguousarray(p)) for name, p in own.items()} for own in parameters]
    state = {part: torch.from_numpy(given[f"input.{part}0"]) for part in "hc" if f"input.{part}0" in given}
    lengths = torch.from_numpy(given["input.lengths"]) if "input.lengths" in given else None
    cell, x = case["module"].removeprefix("Simple"), torch.from_numpy(x)
    y, final, margin = reference_cells.layers(cell, options, [parameters], x, state, lengths)
    return dict(zip(["y", "hn", "cn"], [y.numpy(), *(part.numpy() for part in final)])), margin
