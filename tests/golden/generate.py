"""Writes the golden cases into `cases/`, with PyTorch, ONNX Runtime and Keras as the references.

    python tests/golden/generate.py            writes all, replacing existing ones
    python tests/golden/generate.py NAME...    writes these, and leaves the others alone

Needs torch, onnx, onnxruntime, keras, numpy and safetensors. Run by hand, never by CI: the files are committed. Every case draws its
numbers from a seed made of its name, so a case is the same whichever others exist. `README.md` describes the content of a file;
`generator/` has a module per kind of case, and `generator/case.py` says what makes a case worth having.
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
sys.dont_write_bytecode = True

import torch

from generator import (
    attention, case, convolutions, keras_layers, onnx_operators, recurrences, recurrent, residual_ff, train, variants,
)
from generator.case import FOLDER

SECTIONS = [
    recurrent.cells, recurrent.sequences, recurrent.networks, recurrent.marked, residual_ff.residuals, train.trainings,
    variants.variants, onnx_operators.operators, keras_layers.layers, attention.attentions,
    recurrences.recurrences, convolutions.convolutions,
]  # fmt: skip


def main():
    torch.set_num_threads(1)
    variants.check_against_torch()
    case.only = set(sys.argv[1:]) or None
    for old in FOLDER.glob("*.safetensors"):
        # The cases of `random_cases.py` are kept.
        if old.stem in case.only if case.only else not old.stem.startswith("random_"):
            old.unlink()
    for section in SECTIONS:
        section()
    unknown = [name for name in case.only or [] if not (FOLDER / f"{name}.safetensors").exists()]
    assert not unknown, f"no such case: {', '.join(unknown)}"
    files = list(FOLDER.glob("*.safetensors"))
    print(f"{len(files)} cases, {sum(file.stat().st_size for file in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
