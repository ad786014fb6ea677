"""Writes tied.safetensors: a language model with tied weights and a padding id, trained by PyTorch in float64.

Run by hand; needs PyTorch: python tests/files/data/tied.py. The test tied.rs reads the file.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

V, D, T, B, STEPS = 11, 6, 7, 3, 12
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Embedding(V, D, padding_idx=0)
        self.rnn = nn.LSTM(D, D)
        self.decoder = nn.Linear(D, V)
        self.decoder.weight = self.encoder.weight

    def forward(self, ids):
        return self.decoder(self.rnn(self.encoder(ids))[0])


def state(model, prefix):
    return {f"{prefix}.{name}": tensor.detach().clone() for name, tensor in model.state_dict().items()}


model = Model()
with torch.no_grad():
    model.encoder.weight *= 0.5
    model.decoder.bias.uniform_(-0.3, 0.3)
assert model.encoder.weight[0].abs().sum() == 0
ids = torch.randint(0, V, (T, B))
targets = torch.randint(1, V, (T, B))
assert (ids == 0).any()

tensors = state(model, "first") | {"ids": ids, "targets": targets}
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
curve, norms = [], []
for step in range(STEPS):
    optimizer.zero_grad()
    logits = model(ids)
    loss = nn.functional.cross_entropy(logits.reshape(-1, V), targets.reshape(-1))
    loss.backward()
    if step == 0:
        tensors["logits"] = logits.detach()
        tensors |= {f"gradient.{name}": p.grad.clone() for name, p in model.named_parameters()}
    norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5))
    curve.append(loss.detach())
    optimizer.step()
tensors |= state(model, "last") | {"curve": torch.stack(curve), "norms": torch.stack(norms)}

# The embedding alone: its padding row gets no gradient, whatever is looked up.
alone = nn.Embedding(V, D, padding_idx=0)
dy = torch.randn(T, B, D)
alone(ids).backward(dy)
tensors |= {"alone.dy": dy, "alone.gradient": alone.weight.grad}
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, Path(__file__).with_suffix(".safetensors"))
print(len(tensors), "tensors,", Path(__file__).with_suffix(".safetensors").stat().st_size, "bytes")
