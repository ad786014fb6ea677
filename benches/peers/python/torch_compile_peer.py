"""PyTorch with `torch.compile`: whole training steps, with the model and the loss compiled."""

import signal

import torch

import torch_peer
from point import Cannot
from torch_steps import Steps

# Time limit for compiling a point.
SECONDS = 300


class Peer(torch_peer.Peer):
    def version(self):
        return f"{super().version()}, torch.compile"

    def prepare(self, point, given):
        if point.mode != "step":
            raise Cannot("whole steps alone")

        def too_late(*_):
            raise Cannot(f"not compiled within {SECONDS} s")

        torch.compiler.reset()
        signal.signal(signal.SIGALRM, too_late)
        signal.alarm(SECONDS)
        try:
            steps = Steps(point, given, compiled=True)
            steps.outputs()
        finally:
            signal.alarm(0)
        return steps
