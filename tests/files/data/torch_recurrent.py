"""Writes torch_recurrent.safetensors: a module's state dict saved by PyTorch, with inputs and outputs.

Run by hand; needs PyTorch:

    python tests/files/data/torch_recurrent.py                     writes it
    python tests/files/data/torch_recurrent.py round_trip FILE     checks the file that `cargo test --test files` leaves

The second command strictly loads the file that this crate saved, `target/tmp/round_trip.safetensors`. It compares each weight with the
one that was written and each output with the one that this crate computed, and prints the largest differences.
"""

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

FILE = Path(__file__).parent / "torch_recurrent.safetensors"
LENGTHS = [4, 7, 1, 6]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.lstm = nn.LSTM(3, 4, num_layers=3, bidirectional=True)
        self.decoder = nn.GRU(3, 5, num_layers=2)
        self.projected = nn.LSTM(3, 4, num_layers=2, proj_size=2, bias=False)
        self.plain = nn.RNN(3, 4, nonlinearity="relu", bidirectional=True)

    def outputs(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        results = {}
        for name in ["encoder.lstm", "decoder", "projected", "plain"]:
            y, state = self.get_submodule(name)(packed)
            y, _ = nn.utils.rnn.pad_packed_sequence(y, total_length=len(x))
            h, c = state if isinstance(state, tuple) else (state, None)
            results |= {f"example.{name}.y": y, f"example.{name}.h": h}
            results |= {} if c is None else {f"example.{name}.c": c}
        return results


def write():
    torch.manual_seed(0)
    model, x = Model(), torch.randn(7, 4, 3)
    results = model.state_dict() | {"example.x": x} | model.outputs(x, torch.tensor(LENGTHS))
    save_file(results, FILE, metadata={"format": "pt"})


def round_trip(path):
    written, returned = load_file(FILE), load_file(path)
    with safe_open(path, "pt") as file:
        print("metadata", file.metadata())
    model = Model()
    weights = {name: x for name, x in returned.items() if not name.startswith("example.")}
    model.load_state_dict(weights, strict=True)
    results = model.outputs(written["example.x"], torch.tensor(LENGTHS))

    def largest(ours, theirs):
        return max((ours[name].double() - theirs[name].double()).abs().max().item() for name in ours)

    print(f"weights, there and back                 {largest(weights, written):.1e}")
    for part in ["encoder.lstm", "decoder", "projected", "plain"]:
        own = {name: x for name, x in results.items() if name.startswith(f"example.{part}.")}
        print(f"{part:13} PyTorch, before and after  {largest(own, written):.1e}")
        print(f"{part:13} PyTorch and this crate     {largest(own, returned):.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        round_trip(sys.argv[2]) if sys.argv[1:2] == ["round_trip"] else write()
