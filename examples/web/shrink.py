#!/usr/bin/env python3
"""Makes model.safetensors of a checkpoint of `char_lm`: its model alone, in BF16.

    cargo run --release --example char_lm -- --cell gru --hidden 96 --embedding 24 --steps 8000 --save out/char_lm.safetensors
    python3 examples/web/shrink.py out/char_lm.safetensors

A bfloat16 is the upper half of a float, rounded.
"""

import json
import struct
import sys
from pathlib import Path


def bfloat16(numbers):
    """Rounds to the nearest, to even if there are two."""
    bits = struct.unpack(f"<{len(numbers) // 4}I", numbers)
    return struct.pack(f"<{len(bits)}H", *((word + 0x7FFF + (word >> 16 & 1)) >> 16 for word in bits))


def main():
    data = Path(sys.argv[1]).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = sorted(name for name in header if name.startswith("model."))
    small, values = {"__metadata__": {"vocabulary": header["__metadata__"]["vocabulary"]}}, b""
    for name in names:
        start, end = header[name]["data_offsets"]
        halves = bfloat16(body[start:end])
        places = [len(values), len(values) + len(halves)]
        small[name.removeprefix("model.")] = {"dtype": "BF16", "shape": header[name]["shape"], "data_offsets": places}
        values += halves
    text = json.dumps(small, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = Path(__file__).parent / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + values)
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
