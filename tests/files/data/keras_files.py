"""Writes the files in keras/: models as Keras saves them, each with an input and the output that Keras computes from it.

Run by hand; needs Keras 3, JAX and safetensors:

    python tests/files/data/keras_files.py
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

from pathlib import Path

import keras
import numpy as np
from keras import layers
from safetensors.numpy import save_file

FOLDER = Path(__file__).parent / "keras"
RANDOM = np.random.default_rng(0)


def with_random_weights(model):
    # Keras initializes biases with zeros and scales with ones.
    model.set_weights([RANDOM.normal(0, 0.6, weights.shape) for weights in model.get_weights()])
    return model


def outputs(name, model, x):
    save_file({"x": np.asarray(x), "y": np.ascontiguousarray(model(x))}, FOLDER / f"{name}.safetensors")


def tagger():
    return keras.Sequential(
        [
            layers.Input((None,), dtype="int32"),
            layers.Embedding(7, 3, name="words"),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True, dropout=0.1), name="both"),
            layers.LayerNormalization(name="norm", epsilon=1e-4),
            layers.GRU(5, return_sequences=True, reset_after=False),
            layers.Dropout(0.2),
            layers.GRU(5, return_sequences=True, name="second"),
            layers.SimpleRNN(3, return_sequences=True, activation="relu", use_bias=False),
            layers.TimeDistributed(layers.Dense(6, use_bias=False), name="each"),
            layers.LayerNormalization(name="scaled", center=False),
            layers.Dense(2, activation="tanh", name="head"),
        ]
    )


def nested():
    encoder = keras.Sequential(
        [
            layers.Input((None, 3)),
            layers.LSTM(4, return_sequences=True, name="first"),
            layers.LSTM(4, return_sequences=True, name="second"),
        ],
        name="encoder",
    )
    x = layers.Input((None, 3))
    return keras.Model(x, layers.Dense(2, name="head")(layers.LSTM(2, return_sequences=True, name="own")(encoder(x))))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.words = layers.Embedding(7, 3)
        self.reader = layers.LSTM(4, return_sequences=True)
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(self.reader(self.words(x)))


def activations():
    hard = {"recurrent_activation": "hard_sigmoid", "return_sequences": True}
    return keras.Sequential(
        [
            layers.Input((None, 3)),
            layers.LSTM(4, name="lstm", **hard),
            layers.GRU(4, activation="softsign", name="gru", **hard),
            layers.Bidirectional(
                layers.LSTM(3, activation="elu", recurrent_activation="softsign", return_sequences=True), name="both"
            ),
            layers.GRU(4, activation=layers.LeakyReLU(negative_slope=0.3), reset_after=False, name="leaky", **hard),
            layers.SimpleRNN(4, activation=layers.ELU(alpha=0.7), return_sequences=True, name="elu"),
            layers.LSTM(4, activation="gelu", recurrent_activation="sigmoid", return_sequences=True, name="gelu"),
            layers.LSTM(4, activation="swish", return_sequences=True, name="silu"),
            layers.SimpleRNN(4, activation="softplus", return_sequences=True, name="softplus"),
            layers.GRU(4, activation="leaky_relu", return_sequences=True, name="by_name"),
            layers.SimpleRNN(3, activation=None, return_sequences=True, name="linear"),
        ]
    )


def merged():
    def both(layer, merge, name):
        return layers.Bidirectional(layer(3, return_sequences=True), merge_mode=merge, name=name)

    return keras.Sequential(
        [
            layers.Input((None, 3)),
            both(layers.LSTM, "sum", "sum"),
            both(layers.GRU, "ave", "ave"),
            both(layers.SimpleRNN, "mul", "mul"),
            both(layers.LSTM, "concat", "concat"),
        ]
    )


def refused():
    x = layers.Input((5, 3))
    y = [
        layers.LSTM(2, return_sequences=True, recurrent_activation="relu6", name="six")(x),
        layers.LSTM(2, return_sequences=True, activation="selu", name="selu")(x),
        layers.GRU(2, return_sequences=True, go_backwards=True, name="backwards")(x),
        layers.SimpleRNN(2, return_sequences=True, activation=layers.PReLU(), name="prelu")(x),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True), merge_mode="sum", name="sum")(x),
        layers.RNN(layers.StackedRNNCells([layers.LSTMCell(2), layers.LSTMCell(2)]), return_sequences=True, name="cells")(x),
        layers.Conv1D(2, 1, name="convolution")(x),
        layers.LayerNormalization(axis=1, name="over_time")(x),
        layers.LayerNormalization(scale=False, center=False, name="plain")(x),
        layers.TimeDistributed(layers.LayerNormalization(), name="each_norm")(x),
    ]
    return keras.Model(x, layers.Concatenate()(y))


def main():
    FOLDER.mkdir(exist_ok=True)
    ids, x = RANDOM.integers(0, 7, (3, 6)).astype(np.int32), RANDOM.normal(0, 1, (2, 5, 3)).astype(np.float32)
    model = with_random_weights(tagger())
    model.save(FOLDER / "tagger.keras")
    model.save_weights(FOLDER / "tagger.weights.h5")
    outputs("tagger", model, ids)
    model = with_random_weights(nested())
    model.save(FOLDER / "nested.keras")
    outputs("nested", model, x)
    model = Subclassed()
    model(ids)
    with_random_weights(model).save_weights(FOLDER / "subclassed.weights.h5")
    outputs("subclassed", model, ids)
    with_random_weights(refused()).save(FOLDER / "refused.keras")
    keras.config.set_dtype_policy("float16")
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3, name="head")])
    with_random_weights(model).save(FOLDER / "half.keras")
    outputs("half", model, x[0, :, :2].astype(np.float16))
    # The format of Keras 2.
    keras.config.set_dtype_policy("float32")
    with_random_weights(keras.Sequential([layers.Input((2,)), layers.Dense(1)])).save(FOLDER / "legacy.h5")
    model = with_random_weights(activations())
    model.save(FOLDER / "activations.keras")
    outputs("activations", model, x)
    model = with_random_weights(merged())
    model.save(FOLDER / "merged.keras")
    outputs("merged", model, x)


if __name__ == "__main__":
    main()
