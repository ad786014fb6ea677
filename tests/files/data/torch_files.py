"""Writes the files in pytorch/: state dicts and the like as `torch.save` writes them, each with the same content as safetensors.

Run by hand; needs PyTorch and safetensors:

    python tests/files/data/torch_files.py
"""

import collections
import io
import pickle
import struct
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).parent / "pytorch"


def flat(value, name=""):
    """Tensors and strings by name, as the reader should return them."""
    if isinstance(value, torch.Tensor):
        return {name: value.detach()}, {}
    if isinstance(value, (dict, list, tuple, set)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        tensors, strings = {}, {}
        for key, part in pairs:
            more = flat(part, f"{name}.{key}" if name else str(key))
            tensors |= more[0]
            strings |= more[1]
        return tensors, strings
    if isinstance(value, bool):
        return {}, {name: str(value).lower()}
    if isinstance(value, (int, float, str)):
        return {}, {name: str(value)}
    if isinstance(value, torch.dtype):
        return {}, {name: {"torch.float16": "F16"}[str(value)]}
    if isinstance(value, torch.device):
        return {}, {name: str(value)}
    assert value is None or isinstance(value, bytes), value
    return {}, {}


def expected(name, value):
    tensors, strings = flat(value)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, FOLDER / f"{name}.safetensors", strings)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.lstm = nn.LSTM(3, 4, num_layers=2)
        self.head = nn.Linear(4, 5)
        self.register_buffer("positions", torch.arange(3))
        self.register_buffer("mask", torch.tensor([True, False]))


class View:
    def __init__(self, name, offset, size):
        self.place = (name, offset, size)


class OldPickler(pickle.Pickler):
    """Writes storages as PyTorch 0.3 did: as views of one root."""

    def persistent_id(self, value):
        return ("storage", torch.FloatStorage, "root", "cpu", 8, value.place) if isinstance(value, View) else None


class Rebuilt:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return torch._utils._rebuild_tensor, self.arguments


def main():
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net = Tagger()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, eps=0.001)
    loss = net.head(net.lstm(net.embedding(torch.tensor([[1], [2]])))[0]).sum()
    loss.backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 20])

    wide = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    everything = {
        "f32": torch.randn(2, 3),
        "f64": torch.randn(2, 3, dtype=torch.float64),
        "f16": torch.randn(2, 3).half(),
        "bf16": torch.randn(2, 3).bfloat16(),
        "i64": torch.tensor([-1, 2]),
        "i32": torch.tensor([-1, 2], dtype=torch.int32),
        "i16": torch.tensor([-1, 2], dtype=torch.int16),
        "i8": torch.tensor([-1, 2], dtype=torch.int8),
        "u8": torch.tensor([1, 255], dtype=torch.uint8),
        "u16": torch.tensor([1, 65535], dtype=torch.uint16),
        "bool": torch.tensor([True, False]),
        "f8": torch.tensor([1.0, -2.0]).to(torch.float8_e4m3fn),
        "tied": [wide, wide],
        "transposed": wide.t(),
        "sliced": wide[1:3, ::2],
        "column": wide[:, 1],
        "rows": wide[1:3],
        "repeated": torch.tensor([[1.0], [2.0]]).expand(2, 3),
        "three": torch.randn(2, 3, 4).permute(2, 0, 1),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(1.5),
        "parameter": nn.Parameter(torch.ones(2)),
        "buffer": nn.Buffer(torch.ones(2)),
    }
    with_attribute = nn.Parameter(torch.ones(3))
    with_attribute.note = "a note"
    everything["attribute"] = with_attribute
    values = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": {k: v for k, v in schedule.state_dict().items() if k != "milestones"},
        "milestones": collections.Counter([10, 20, 20]),
        "epoch": 3,
        "large": -(10**30),
        "best": 0.1,
        "done": True,
        "note": "a ‘note’",
        "nothing": None,
        "bytes": b"\x00\xff",
        "shape": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "set": {7},
        "rng": torch.get_rng_state()[:8].clone(),
    }
    compiled = torch.compile(nn.DataParallel(net))
    for name, value in [
        ("everything", everything),
        ("checkpoint", values),
        ("wrapped", compiled.state_dict()),
        ("tensor", torch.randn(2, 2)),
    ]:
        expected(name, value)
        torch.save(value, FOLDER / f"{name}.pt")
    # The format before PyTorch 1.6, later protocols, and no checksums.
    torch.save(values, FOLDER / "checkpoint_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(values, FOLDER / "checkpoint_protocol_5.pt", pickle_protocol=5)
    legacy = {k: v for k, v in everything.items() if k not in ["u16", "f8"]}
    expected("everything_legacy", legacy)
    torch.save(legacy, FOLDER / "everything_legacy.pt", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    torch.save(everything, FOLDER / "everything_no_checksums.pt")

    # In the format of PyTorch 0.3.
    old = io.BytesIO()
    for value in [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]:
        pickle.dump(value, old, protocol=2)
    a, b = View("a", 2, 6), View("b", 0, 3)
    tensors = collections.OrderedDict(
        a=Rebuilt(a, 1, (2, 2), (2, 1)), b=Rebuilt(b, 0, (3,), (1,)), c=Rebuilt(a, 0, (6,), (1,))
    )
    OldPickler(old, protocol=2).dump(tensors)
    pickle.dump(["root"], old, protocol=2)
    old.write(struct.pack("<q8f", 8, *range(8)))
    (FOLDER / "views.pt").write_bytes(old.getvalue())
    root = torch.arange(8.0)
    expected("views", {"a": root[3:7].reshape(2, 2), "b": root[:3], "c": root[2:]})

    # Refused: a whole module, another class.
    torch.save(nn.Linear(2, 1), FOLDER / "module.pt")
    (FOLDER / "plain.pickle").write_bytes(pickle.dumps({"a": 1}, protocol=2))


if __name__ == "__main__":
    main()
