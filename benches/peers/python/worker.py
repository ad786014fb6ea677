"""A peer in Python: answers the driver's requests, one JSON object per line (see protocol/src/lib.rs).

python worker.py torch|torch_compile|onnx|torch_int8|onnx_int8|sgemm|sgemm_square THREADS
"""

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from time import perf_counter

from safetensors.numpy import load_file, save_file

from point import Cannot, Point


def resident(key):
    """A line of this process's status, in bytes. Linux only."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


class Worker:
    def __init__(self, peer):
        self.peer = peer
        self.work = None

    def answer(self, request):
        kind = request["do"]
        return getattr(self, kind)(**{name: value for name, value in request.items() if name != "do"})

    def prepare(self, point, given):
        self.work = None
        try:
            self.work = self.peer.prepare(Point(**point), load_file(given))
        except Cannot as reason:
            return {"cannot": str(reason)}
        gc.collect()
        return "done"

    def outputs(self, to):
        save_file(self.work.outputs(), to)
        return "done"

    def run(self, iterations):
        run = self.work.run
        gc.disable()
        with self.work.mode():
            start = perf_counter()
            for _ in range(iterations):
                run()
            seconds = perf_counter() - start
        gc.enable()
        return {"seconds": seconds}

    def memory(self, point, given, iterations):
        tensors = load_file(given)
        before = resident("VmRSS:")
        try:
            work = self.peer.prepare(Point(**point), tensors)
        except Cannot as reason:
            return {"cannot": str(reason)}
        gc.collect()
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")
        with work.mode():
            for _ in range(iterations):
                work.run()
        return {"memory": {"peak": max(resident("VmHWM:") - before, 0), "cache": None}}


def main():
    name, threads = sys.argv[1], int(sys.argv[2])
    answers, sys.stdout = sys.stdout, sys.stderr  # a library's output must not be mistaken for an answer
    worker = Worker(importlib.import_module(f"{name}_peer").Peer(threads))
    print(json.dumps({"version": worker.peer.version()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
