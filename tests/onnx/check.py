#!/usr/bin/env python3
"""Checks the files written by `GRADFLOW_ONNX=folder cargo test --features onnx --test onnx written`.

    python3 tests/onnx/check.py folder

Needs onnx, onnxruntime and safetensors. Each model goes through onnx.checker with shape inference and through ONNX Runtime, and through
onnx's reference evaluator if that follows the operators' definitions. Outputs and states must agree with gradflow's to 1e-5, or to
1e-12 for doubles.
"""

import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnx import TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as errors
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file

# By the model's element type.
LIMITS = {TensorProto.FLOAT: 1e-5, TensorProto.DOUBLE: 1e-12}
# Computed in 32 bits in any case: the statistics of LayerNormalization, the attributes of activations, and Erf in the reference evaluator.
COARSE = {"LayerNormalization", "LeakyRelu", "HardSigmoid", "ThresholdedRelu", "Elu", "Erf"}


def limit_of(model):
    is_coarse = any(node.op_type in COARSE for node in model.graph.node)
    return LIMITS[TensorProto.FLOAT if is_coarse else model.graph.output[0].type.tensor_type.elem_type]


def is_in_reference(model):
    """The reference evaluator supports neither coupled gates, nor clip, nor other activations in recurrences, and ignores their
    lengths."""
    for node in model.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        with_lengths = node.op_type in ("RNN", "LSTM", "GRU") and len(node.input) > 4 and node.input[4]
        if with_lengths or attributes.get("input_forget") == 1 or {"activations", "clip"} & attributes.keys():
            return False
    return True


def error_of(outputs, want):
    error = 0.0
    for name, got in outputs.items():
        assert got.shape == want[name].shape, f"{name}: {got.shape} for {want[name].shape}"
        assert numpy.isfinite(got).all(), name
        scale = numpy.maximum(1.0, numpy.abs(want[name]))
        error = max(error, float((numpy.abs(got - want[name]) / scale).max(initial=0.0)))
    return error


def main(folder):
    paths = sorted(Path(folder).glob("*.onnx"))
    faults, runs, references = [], 0, 0
    for path in paths:
        model = onnx.load(path)
        limit = limit_of(model)
        tensors = load_file(path.with_suffix(".safetensors"))
        inputs = {entry.name: tensors[entry.name] for entry in model.graph.input}
        names = [entry.name for entry in model.graph.output]
        line = f"{path.stem:50}"
        try:
            onnx.checker.check_model(model, full_check=True)
            unused = set(tensors) - set(inputs) - set(names)
            assert not unused, f"not in the graph: {unused}"
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            try:
                session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                outputs = session.run(names, inputs)
            except (errors.NotImplemented, errors.RuntimeException) as refusal:
                # It supports recurrences only for floats, and says so in one of these ways.
                is_known = "Could not find an implementation" in str(refusal) or "does not support double" in str(refusal)
                if not (path.stem.startswith("f64") and is_known):
                    raise
                line += "  ONNX Runtime: no doubles"
            else:
                error = error_of(dict(zip(names, outputs)), tensors)
                line, runs = f"{line}  ONNX Runtime {error:.1e}", runs + 1
                assert error <= limit, f"ONNX Runtime is {error:.1e} away"
            if is_in_reference(model):
                error = error_of(dict(zip(names, ReferenceEvaluator(model).run(names, inputs))), tensors)
                line, references = f"{line}  reference {error:.1e}", references + 1
                assert error <= limit, f"the reference is {error:.1e} away"
            print(line)
        except Exception as fault:  # a model that fails must not hide the others
            faults.append(path.stem)
            print(f"{path.stem:45} FAILED: {str(fault).splitlines()[0][:300]}")
    print(f"{len(paths)} models, {runs} in ONNX Runtime, {references} in the reference evaluator, {len(faults)} faults: {faults}")
    return 1 if faults or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
