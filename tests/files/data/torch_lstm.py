"""Writes torch_lstm.safetensors: a module's state dict saved by PyTorch, with an input and its output.

Run by hand; needs PyTorch:  python tests/files/data/torch_lstm.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

torch.manual_seed(0)


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.lstm = torch.nn.LSTM(3, 4, num_layers=2)
        self.head = torch.nn.Linear(4, 2)
        self.register_buffer("batches", torch.tensor(7))  # an integer, like the one in batch norm

    def forward(self, x):
        return self.head(self.encoder.lstm(x)[0])


tagger = Tagger()
x = torch.randn(5, 2, 3)
with torch.no_grad():
    tensors = tagger.state_dict() | {"example.x": x, "example.y": tagger(x)}
save_file(tensors, Path(__file__).parent / "torch_lstm.safetensors", metadata={"format": "pt"})
