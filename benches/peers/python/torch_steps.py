"""Whole training steps in PyTorch: forward, loss, backward, clipping, optimizer, with a carried state."""

from contextlib import nullcontext

import numpy as np
import torch
from torch import nn

from point import Cannot, Point, parameters
from torch_peer import LAYERS, PreNormBlock

# The values of protocol/src/point.rs.
LEARNING_RATE = 1e-3
CLIP_NORM = 1.0
EXPANSION = 4


class LanguageModel(nn.Sequential):
    """Embedding, recurrent layers and head: computes loss and next state of a batch."""

    def __init__(self, point: Point):
        super().__init__(
            nn.Embedding(point.vocabulary, point.input),
            LAYERS[point.cell](point.input, point.hidden, num_layers=point.depth),
            nn.Linear(point.hidden, point.vocabulary),
        )

    def forward(self, ids, targets, state):
        embedding, layers, head = self
        y, state = layers(embedding(ids), state)
        logits = head(y)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()), state


class Blocks(nn.Sequential):
    """Pre-norm blocks: compute the loss of a batch."""

    def __init__(self, point: Point):
        super().__init__(*(PreNormBlock(point.hidden, EXPANSION * point.hidden) for _ in range(point.depth)))

    def forward(self, x, targets, state):
        return nn.functional.mse_loss(super().forward(x), targets), state


class Steps:
    mode = nullcontext

    def __init__(self, point: Point, given, compiled):
        if point.dtype != "f32":
            raise Cannot("whole steps in f32 alone")
        self.point, self.is_language = point, point.vocabulary > 0
        self.start = {name: torch.from_numpy(value) for name, value in parameters(given).items()}
        self.module = (LanguageModel if self.is_language else Blocks)(point)
        x, targets = given["x"], given["targets"]
        if self.is_language:
            x, targets = x.astype(np.int64), targets.astype(np.int64)
        self.batches = list(zip(torch.from_numpy(x), torch.from_numpy(targets), strict=True))
        self.loss_of = torch.compile(self.module) if compiled else self.module
        self.restart()

    def restart(self):
        self.module.load_state_dict(self.start)
        # `fused`: one pass over the parameters, several times as fast as the default.
        if self.is_language:
            self.optimizer = torch.optim.AdamW(self.module.parameters(), LEARNING_RATE, fused=True)
        else:
            self.optimizer = torch.optim.Adam(self.module.parameters(), LEARNING_RATE, fused=True)
        self.next, self.state = 0, None
        if self.is_language:
            h = torch.zeros(self.point.depth, self.point.batch, self.point.hidden)
            self.state = (h, h.clone()) if self.point.cell == "lstm" else h

    def run(self):
        x, targets = self.batches[self.next]
        self.next = (self.next + 1) % len(self.batches)
        self.optimizer.zero_grad()
        loss, state = self.loss_of(x, targets, self.state)
        loss.backward()
        if self.is_language:
            nn.utils.clip_grad_norm_(self.module.parameters(), CLIP_NORM)
            self.state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        self.optimizer.step()
        return loss

    def outputs(self):
        self.restart()
        losses = [self.run().item() for _ in self.batches]
        # A copy, since training continues.
        weights = {f"param.{name}": value.detach().numpy().copy() for name, value in self.module.named_parameters()}
        return {"loss": np.array(losses, np.float32), **weights}
