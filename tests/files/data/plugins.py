"""Models of audio plug-ins, run by the programs that define their formats.

    python tests/files/data/plugins.py            writes plugins/: files, and the outputs of their models for a signal
    python tests/files/data/plugins.py FOLDER     loads the files that gradflow wrote there, and compares

Needs neural-amp-modeler, keras, torch and numpy. Run by hand; the files are committed. The test `plugins` leaves files in
`target/tmp/plugins`:

    cargo test --features plugin-formats --test files plugins

A file `x.nam` or `x.json` has its signal in `x.signal`: a JSON object with `input`, a list of steps, and `output`.
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
sys.dont_write_bytecode = True

import keras
import numpy as np
import torch
from nam.models._from_nam import init_from_nam
from nam.models.recurrent import LSTM

HERE = Path(__file__).parent / "plugins"
STEPS = 64


def signal(features):
    """A decaying sine; further features are constant, like the position of a knob."""
    t = np.arange(STEPS)
    x = np.tile(np.linspace(0.3, 0.7, features), (STEPS, 1))
    x[:, 0] = np.sin(0.3 * t) * np.exp(-t / 40)
    return x.astype(np.float32)


def save(name, x, y):
    y = np.asarray(y).reshape(STEPS, -1)
    text = json.dumps({"input": x.tolist(), "output": y.tolist()})
    (HERE / f"{name}.signal").write_text(text + "\n")


def by_nam(model, x):
    with torch.no_grad():
        return model(torch.from_numpy(x[:, 0])[None])[0].numpy()


def nam_files():
    for name, hidden, layers in [("lstm", 3, 1), ("lstm_two_layers", 4, 2)]:
        torch.manual_seed(layers)
        model = LSTM(hidden, num_layers=layers, sample_rate=48_000.0).eval()
        for parameter in model.parameters():
            parameter.data.uniform_(-0.8, 0.8)
        model.export(HERE, basename=name, other_metadata={"date": None, "name": f"random, {layers} layers"})
        # A plug-in starts with the state in the file.
        loaded = init_from_nam(json.loads((HERE / f"{name}.nam").read_text())).eval()
        x = signal(1)
        save(name, x, by_nam(loaded, x))


def described(model, features):
    """The model in the format that the plug-ins read."""
    kinds = {"LSTM": "lstm", "GRU": "gru", "Dense": "dense", "TimeDistributed": "time-distributed-dense"}
    layers = []
    for layer in model.layers:
        inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
        activation = inner.activation.__name__
        layers.append({
            "type": kinds.get(type(layer).__name__, "activation"),
            "activation": "" if activation == "linear" else activation,
            "shape": [None, None, layer.output.shape[-1]],
            "weights": [weight.tolist() for weight in layer.get_weights()],
        })  # fmt: skip
    return {"in_shape": [None, None, features], "layers": layers}


def keras_files():
    layer = keras.layers
    of = {
        "keras_lstm": (1, [layer.LSTM(5, return_sequences=True), layer.Dense(1)]),
        "keras_stack": (2, [
            layer.TimeDistributed(layer.Dense(3, activation="tanh")),
            layer.LSTM(4, return_sequences=True),
            layer.GRU(3, return_sequences=True),
            layer.Dense(4, activation="relu"),
            layer.Activation("sigmoid"),
            layer.Dense(2, use_bias=False),
        ]),
        "keras_gru_skip": (2, [layer.GRU(5, return_sequences=True), layer.Dense(1)]),
    }  # fmt: skip
    for seed, (name, (features, layers)) in enumerate(of.items()):
        model = keras.Sequential([keras.Input((STEPS, features)), *layers])
        random = np.random.default_rng(seed)
        model.set_weights([random.uniform(-0.8, 0.8, w.shape).astype(np.float32) for w in model.get_weights()])
        x = signal(features)
        y = np.asarray(model(x[None]).detach())[0]
        file = described(model, features)
        if name.endswith("skip"):
            file["in_skip"] = 1
            y = y + x[:, :1]
            # Other keys of AIDA-X.
            file |= {"in_gain": -6.0, "out_gain": 1.5, "metadata": {"samplerate": "48000"}, "input_batch": x.tolist()}
        (HERE / f"{name}.json").write_text(json.dumps(file) + "\n")
        save(name, x, y)


class SimpleRnn(torch.nn.Module):
    """The model that GuitarML's files describe."""

    def __init__(self, unit, features, hidden, layers, skip):
        super().__init__()
        self.rec = getattr(torch.nn, unit)(features, hidden, layers)
        self.lin = torch.nn.Linear(hidden, 1)
        self.skip = skip

    def forward(self, x):
        y = self.lin(self.rec(x)[0])
        return y + x[:, :, :1] if self.skip else y


def guitarml_files():
    of = {"guitarml_lstm": ("LSTM", 1, 5, 1, 1), "guitarml_gru": ("GRU", 3, 4, 2, 0)}
    for seed, (name, given) in enumerate(of.items()):
        torch.manual_seed(seed)
        model, x = SimpleRnn(*given), signal(given[1])
        keys = ["unit_type", "input_size", "hidden_size", "num_layers", "skip"]
        data = {"model": "SimpleRNN", "output_size": 1, "bias_fl": True} | dict(zip(keys, given))
        state = {key: value.tolist() for key, value in model.state_dict().items()}
        (HERE / f"{name}.json").write_text(json.dumps({"model_data": data, "state_dict": state}) + "\n")
        with torch.no_grad():
            save(name, x, model(torch.from_numpy(x)[:, None]).numpy())


def by_keras(file, x):
    """Builds the model of a file in Keras and runs it."""
    layers = []
    for layer in file["layers"]:
        size, activation = layer["shape"][-1], layer["activation"] or None
        kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "dense": keras.layers.Dense}.get(layer["type"])
        if layer["type"] == "activation":
            layers.append(keras.layers.Activation(activation))
        elif layer["type"] == "dense":
            layers.append(kind(size, activation=activation))
        else:
            layers.append(kind(size, activation=activation, return_sequences=True))
    model = keras.Sequential([keras.Input((len(x), file["in_shape"][-1])), *layers])
    model.set_weights([np.array(weight, np.float32) for layer in file["layers"] for weight in layer["weights"]])
    y = np.asarray(model(x[None]).detach())[0]
    return y + x[:, :1] if file.get("in_skip") else y


def compare(folder):
    worst = 0
    files = sorted(path for path in folder.iterdir() if path.suffix in (".nam", ".json"))
    assert files, "no files"
    for path in files:
        file, both = json.loads(path.read_text()), json.loads(path.with_suffix(".signal").read_text())
        x, got = np.array(both["input"], np.float32), np.array(both["output"], np.float32)
        if path.suffix == ".nam":
            want = by_nam(init_from_nam(file).eval(), x)[:, None]
        else:
            want = by_keras(file, x)
        assert want.shape == got.shape, (want.shape, got.shape)
        difference = np.abs(want - got).max()
        print(f"{path.name}: largest difference {difference:.1e}, largest value {np.abs(want).max():.2f}")
        worst = max(worst, difference)
    assert worst < 1e-5


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        compare(Path(sys.argv[1]))
    else:
        HERE.mkdir(exist_ok=True)
        nam_files()
        keras_files()
        guitarml_files()
