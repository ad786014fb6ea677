#!/usr/bin/env python3
"""Exports Keras models with tf2onnx and Keras' own `Model.export`, with inputs and Keras' outputs, for `load`.

    python3 tests/onnx/keras_files.py tests/onnx/data

Needs tensorflow-cpu, tf2onnx and safetensors. Each model is written as `NAME-tf2onnx.onnx` and `NAME-export.onnx`, and
`NAME.safetensors` has `x` and `y`, in gradflow's order of axes.
"""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import sys
from pathlib import Path

import keras
import numpy
import tensorflow
import tf2onnx
from keras import layers
from safetensors.numpy import save_file

STEPS, BATCH, INPUT, HIDDEN, VOCABULARY = 6, 2, 3, 5, 11


def sequences(*stack):
    inputs = keras.Input((None, INPUT))
    y = inputs
    for layer in stack:
        y = layer(y)
    return keras.Model(inputs, y)


def tokens(*stack):
    inputs = keras.Input((None,), dtype="int32")
    y = inputs
    for layer in stack:
        y = layer(y)
    return keras.Model(inputs, y)


def models():
    last = {"return_sequences": False}
    every = {"return_sequences": True}
    yield "keras_lstm", sequences(layers.LSTM(HIDDEN, **every), layers.Dense(2))
    yield "keras_lstm_two_layers", sequences(layers.LSTM(HIDDEN, **every), layers.LSTM(HIDDEN, **last), layers.Dense(2))
    yield "keras_lstm_both", sequences(layers.Bidirectional(layers.LSTM(HIDDEN, **every)), layers.Dense(2))
    yield "keras_lstm_both_last", sequences(layers.Bidirectional(layers.LSTM(HIDDEN, **last)), layers.Dense(2))
    yield "keras_classifier", tokens(layers.Embedding(VOCABULARY, 4), layers.LSTM(HIDDEN, **last), layers.Dense(3))
    yield "keras_norm", sequences(layers.Dense(4), layers.LayerNormalization(), layers.LSTM(HIDDEN, **last), layers.Dense(1))
    # tf2onnx writes this one as a loop, as it does `SimpleRNN` and other activations: refused.
    yield "keras_gru", sequences(layers.GRU(HIDDEN, **every), layers.Dense(2, activation="tanh"))


def main(folder):
    folder = Path(folder)
    for number, (name, model) in enumerate(models()):
        rng = numpy.random.default_rng(number)
        model.set_weights([rng.uniform(-0.5, 0.5, weight.shape).astype("float32") for weight in model.get_weights()])
        if model.input.dtype == "int32":
            x = rng.integers(0, VOCABULARY, (BATCH, STEPS)).astype("int32")
        else:
            x = rng.uniform(-1, 1, (BATCH, STEPS, INPUT)).astype("float32")
        y = model(x).numpy()
        y = y[None] if y.ndim == 2 else y.swapaxes(0, 1)
        x_in_order = x.astype("int64").T if x.ndim == 2 else x.swapaxes(0, 1)
        save_file({"x": numpy.ascontiguousarray(x_in_order), "y": numpy.ascontiguousarray(y)}, folder / f"{name}.safetensors")
        signature = (tensorflow.TensorSpec((None, None) + x.shape[2:], x.dtype, name="x"),)
        tf2onnx.convert.from_keras(model, input_signature=signature, output_path=str(folder / f"{name}-tf2onnx.onnx"))
        if name != "keras_gru":
            model.export(str(folder / f"{name}-export.onnx"), format="onnx", verbose=False)


if __name__ == "__main__":
    main(sys.argv[1])
