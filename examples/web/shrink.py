#!/usr/bin/env python3
"""Makes a small file of weights from a large one, in BF16: of a checkpoint of `char_lm` only the model, of other files everything.

    cargo run --release --example char_lm -- --cell gru --hidden 96 --embedding 24 --steps 8000 --save out/char_lm.safetensors
    python3 examples/web/shrink.py out/char_lm.safetensors examples/web/model.safetensors

A bfloat16 is the upper half of a float, rounded.
"""

import json
import struct
import sys
from pathlib import Path


def bfloat16(numbers):
    """Rounds to nearest, ties to even."""
    bits = struct.unpack(f"<{len(numbers) // 4}I", numbers)
    return struct.pack(f"<{len(bits)}H", *((word + 0x7FFF + (word >> 16 & 1)) >> 16 for word in bits))


def main():
    source, path = map(Path, sys.argv[1:])
    data = source.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.pop("__metadata__", {})
    names = sorted(name for name in header if name.startswith("model.")) or sorted(header)
    small, values = {}, b""
    if "vocabulary" in metadata:
        small["__metadata__"] = {"vocabulary": metadata["vocabulary"]}
    for name in names:
        start, end = header[name]["data_offsets"]
        halves = bfloat16(body[start:end])
        places = [len(values), len(values) + len(halves)]
        small[name.removeprefix("model.")] = {"dtype": "BF16", "shape": header[name]["shape"], "data_offsets": places}
        values += halves
    text = json.dumps(small, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + values)
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
