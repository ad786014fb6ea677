"""PyTorch with `quantize_dynamic`: weights in 8 bits, values quantised for each product."""

import warnings

import torch
from torch import nn

import torch_peer
from point import Cannot


class Peer(torch_peer.Peer):
    def version(self):
        return f"torch {torch.__version__} (quantize_dynamic, qint8, {torch.backends.quantized.engine})"

    def prepare(self, point, given):
        if point.mode != "infer":
            raise Cannot("inference only")
        if point.cell == "rnn" and point.steps > 1:
            raise Cannot("quantize_dynamic has LSTM and GRU, and RNNCell for single steps alone")
        module = torch_peer.module_of(point, given).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # to be replaced by another package
            quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(module), {type(module)}, dtype=torch.qint8)
        if type(quantized[0]) is type(module):
            raise Cannot(f"quantize_dynamic left {type(module).__name__} as it was")
        return torch_peer.Inference(point, quantized[0], given)
