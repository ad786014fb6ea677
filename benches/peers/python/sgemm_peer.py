"""Not a peer but a reference rate: one large product by PyTorch's sgemm, [3200, 512] by [512, 2048]."""

import torch

from torch_peer import DTYPES, set_threads

SIZES = 3200, 512, 2048


class Peer:
    sizes = SIZES

    def __init__(self, threads):
        set_threads(threads)

    def version(self):
        return "sgemm {}x{}x{} by torch {}".format(*self.sizes, torch.__version__)

    def prepare(self, point, _given):
        return Product(*self.sizes, DTYPES[point.dtype])


class Product:
    mode = torch.inference_mode

    def __init__(self, m, k, n, dtype):
        self.a, self.b = torch.rand(m, k, dtype=dtype), torch.rand(k, n, dtype=dtype)
        self.c = torch.empty(m, n, dtype=dtype)

    def run(self):
        torch.mm(self.a, self.b, out=self.c)

    def outputs(self):
        return {}
