"""ONNX Runtime with `quantize_dynamic`: weights in 8 bits, values quantised for each product."""

import logging
import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

import onnx_peer
from point import Cannot


logging.getLogger().setLevel(logging.ERROR)  # advice for convolutions


class Peer(onnx_peer.Peer):
    def version(self):
        return f"{super().version()} (quantize_dynamic, QInt8)"

    def changed(self, model):
        with tempfile.TemporaryDirectory() as folder:
            whole, quantized = Path(folder) / "whole.onnx", Path(folder) / "quantized.onnx"
            onnx.save(model, whole)
            quantize_dynamic(whole, quantized, weight_type=QuantType.QInt8)
            model = onnx.load(quantized)
        if not any("Quantize" in node.op_type for node in model.graph.node):
            raise Cannot("quantize_dynamic left the model as it was")
        return model
