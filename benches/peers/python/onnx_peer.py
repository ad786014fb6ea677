"""ONNX Runtime: inference with its own operators; outputs are bound once."""

from contextlib import nullcontext

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from point import Cannot, parameters

OPSET = 20  # the first with Gelu
NODES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
GATES = {"lstm": "iofc", "gru": "zrh", "rnn": "n"}
TORCH_GATES = {"lstm": "ifco", "gru": "rzh", "rnn": "n"}
# Passed even though it is zero, as for every other library: without it some operators skip the first step's recurrent product.
STATE = {"lstm": ["initial_h", "initial_c"], "gru": ["initial_h"], "rnn": ["initial_h"], "residual": []}
TYPES = {"f32": TensorProto.FLOAT, "f64": TensorProto.DOUBLE}


def in_onnx_order(cell, rows):
    """PyTorch's gates in the order of ONNX."""
    gates = dict(zip(TORCH_GATES[cell], np.split(rows, len(GATES[cell])), strict=True))
    return np.concatenate([gates[gate] for gate in GATES[cell]])


def recurrent(point, given):
    """Nodes and tensors of one cell: x [T, B, I] to y [T, 1, B, H]."""
    order = {name: in_onnx_order(point.cell, value) for name, value in given.items()}
    tensors = {
        "w": order["weight_ih_l0"][None],
        "r": order["weight_hh_l0"][None],
        "b": np.concatenate([order["bias_ih_l0"], order["bias_hh_l0"]])[None],
    }
    variant = {"linear_before_reset": 1} if point.cell == "gru" else {}
    inputs = ["x", "w", "r", "b", "", *STATE[point.cell]]  # all sequences are as long as x
    node = helper.make_node(NODES[point.cell], inputs, ["y"], hidden_size=point.hidden, **variant)
    return [node], tensors


def residual(point, given):
    """Nodes and tensors of consecutive blocks."""
    nodes, tensors, x = [], {}, "x"

    def node(operator, inputs, output, **attributes):
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    for k in range(point.depth):
        block = f"{k}."
        for name in ("fc1", "fc2"):
            tensors[f"{block}{name}.weight"] = np.ascontiguousarray(given[f"{block}{name}.weight"].T)
            tensors[f"{block}{name}.bias"] = given[f"{block}{name}.bias"]
        for name in ("norm.weight", "norm.bias"):
            tensors[block + name] = given[block + name]

        norm = [x, block + "norm.weight", block + "norm.bias"]
        a = node("LayerNormalization", norm, f"{block}norm", axis=-1, epsilon=1e-5)
        a = node("MatMul", [a, block + "fc1.weight"], f"{block}product1")
        a = node("Add", [a, block + "fc1.bias"], f"{block}fc1")
        a = node("Gelu", [a], f"{block}gelu")
        a = node("MatMul", [a, block + "fc2.weight"], f"{block}product2")
        a = node("Add", [a, block + "fc2.bias"], f"{block}fc2")
        x = node("Add", [x, a], "y" if k + 1 == point.depth else f"{block}y")
    return nodes, tensors


class Peer:
    def __init__(self, threads):
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 4

    def changed(self, model):
        """The model that is run."""
        return model

    def version(self):
        return f"onnxruntime {onnxruntime.__version__}"

    def prepare(self, point, given):
        if point.mode != "infer":
            raise Cannot("inference only")
        nodes, tensors = (residual if point.cell == "residual" else recurrent)(point, parameters(given))
        kind, shape = TYPES[point.dtype], [point.steps, point.batch]
        state = np.zeros((1, point.batch, point.hidden), given["x"].dtype)
        inputs = {"x": given["x"], **{name: state for name in STATE[point.cell]}}
        out = [*shape, point.hidden] if point.cell == "residual" else [point.steps, 1, point.batch, point.hidden]
        graph = helper.make_graph(
            nodes,
            "point",
            [helper.make_tensor_value_info(name, kind, value.shape) for name, value in inputs.items()],
            [helper.make_tensor_value_info("y", kind, out)],
            [numpy_helper.from_array(value, name) for name, value in tensors.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        model = self.changed(model)
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), self.options, providers=["CPUExecutionProvider"]
            )
            inference = Inference(session, inputs, (*shape, point.hidden))
            inference.run()
        except (RuntimeError, onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented) as error:
            raise Cannot(str(error).split("Message: ")[-1].splitlines()[0]) from error
        return inference


class Inference:
    mode = nullcontext

    def __init__(self, session, inputs, shape):
        self.session, self.shape = session, shape
        self.inputs = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in inputs.items()}
        self.binding = session.io_binding()
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        dtype = inputs["x"].dtype
        out = onnxruntime.OrtValue.ortvalue_from_shape_and_type(session.get_outputs()[0].shape, dtype, "cpu")
        self.binding.bind_ortvalue_output("y", out)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def outputs(self):
        self.run()
        return {"y": self.binding.copy_outputs_to_cpu()[0].reshape(self.shape)}
