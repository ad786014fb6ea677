#!/usr/bin/env python3
"""Writes the files of the example load_pytorch: a character model of PyTorch, and its outputs.

pytorch_model.safetensors is the model's state dict, nothing else. pytorch_outputs.safetensors holds token ids (as
numbers, [T, B]), the logits that PyTorch computes from them ([T, B, V]) and the final state ([B, H]); its metadata has
the vocabulary. The model is trained for a minute or two on the prose of text.txt. The files are frozen: run this script,
with torch and safetensors, only to make new ones.

    python3 examples/data/make_pytorch.py
"""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).resolve().parent
VOCABULARY = " abcdefghijklmnopqrstuvwxyz.,:-'\n"
EMBEDDING, HIDDEN = 12, 36
STEPS, BATCH, UPDATES = 48, 32, 4000


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN)
        self.head = nn.Linear(HIDDEN, len(VOCABULARY))

    def forward(self, ids, state=None):
        y, state = self.lstm(self.embedding(ids), state)
        return self.head(y), state


def prose():
    """The ids of text.txt's comments and documents, in small letters."""
    lines = (HERE / "text.txt").read_text(encoding="utf-8").lower().splitlines()
    comments = [line.strip().lstrip("/!* ") for line in lines if re.match(r"\s*//[/!] [a-z`]", line)]
    text = re.sub(f"[^{re.escape(VOCABULARY)}]", "", "\n".join(comments))
    text = re.sub(" +", " ", text)
    return torch.tensor([VOCABULARY.index(c) for c in text])


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ids, model = prose(), Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    for update in range(UPDATES):
        starts = torch.randint(len(ids) - STEPS - 1, (BATCH,))
        batch = torch.stack([ids[start : start + STEPS + 1] for start in starts], dim=1)
        logits, _ = model(batch[:-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if update % 500 == 0:
            print(update, loss.item())
    print("loss", loss.item(), "parameters", sum(p.numel() for p in model.parameters()))

    save_file(model.state_dict(), HERE / "pytorch_model.safetensors")
    inputs = torch.stack([ids[:20], ids[1000:1020], ids[5000:5020]], dim=1)
    with torch.no_grad():
        logits, (h, c) = model(inputs)
    outputs = {"ids": inputs.float(), "logits": logits, "h": h[0].clone(), "c": c[0].clone()}
    metadata = {"vocabulary": VOCABULARY, "torch": torch.__version__}
    save_file(outputs, HERE / "pytorch_outputs.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
