"""Writes the golden cases of this folder, with PyTorch, ONNX Runtime and Keras as the references.

    python tests/golden/generate.py

needs torch, onnx, onnxruntime, keras, numpy and safetensors. Run by hand, never by CI: the files are committed. Every
case draws its numbers from a seed made of its name, so a case is the same whichever others exist, and all earlier files
are replaced. `README.md` says what is in a file; `generator/` has a module per kind of case, and `generator/case.py`
says what makes a case worth having.
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
sys.dont_write_bytecode = True

import torch

from generator import attention, keras_layers, onnx_operators, recurrences, recurrent, residual_ff, train, variants
from generator.case import FOLDER

SECTIONS = [
    recurrent.cells, recurrent.sequences, recurrent.networks, residual_ff.residuals, train.trainings,
    variants.variants, onnx_operators.operators, keras_layers.layers, attention.attentions,
    recurrences.recurrences,
]  # fmt: skip


def main():
    torch.set_num_threads(1)
    variants.check_against_torch()
    for old in FOLDER.glob("*.safetensors"):
        old.unlink()
    for section in SECTIONS:
        section()
    files = list(FOLDER.glob("*.safetensors"))
    print(f"{len(files)} cases, {sum(file.stat().st_size for file in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
