"""Kind `train`: a language model's losses, norms and weights over a few optimizer steps."""

import numpy as np
import torch
from torch import nn

from .case import tensors_under, write
from .given import recurrent_parameters


def run_train(case, given):
    vocab, hidden, clip = case["vocab"], case["hidden_size"], case["clip"]
    rnn = getattr(nn, case["module"])(vocab, hidden, case["num_layers"])
    model = nn.ModuleDict({"rnn": rnn, "head": nn.Linear(hidden, vocab)}).double()
    model.load_state_dict(tensors_under(given, "state_dict."))
    parameters = list(model.parameters())
    arguments = {key: tuple(x) if isinstance(x, list) else x for key, x in case["optimizer_args"].items()}
    optimizer = getattr(torch.optim, case["optimizer"])(parameters, **arguments)
    # NAdam creates its product in its first step, in the default type, whatever the type of the parameters.
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    state, losses, norms = None, [], []
    for ids in torch.from_numpy(given["input.ids"]):
        optimizer.zero_grad()
        y, state = rnn(nn.functional.one_hot(ids[:-1], vocab).double(), state)
        loss = nn.functional.cross_entropy(model["head"](y).flatten(0, 1), ids[1:].flatten())
        loss.backward()
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        p = float(clip.get("p", 2.0))
        norms.append(nn.utils.get_total_norm([parameter.grad for parameter in parameters], p).item())
        if clip["type"] == "norm":
            nn.utils.clip_grad_norm_(parameters, clip["max"], p)
        elif clip["type"] == "value":
            nn.utils.clip_grad_value_(parameters, clip["max"])
        optimizer.step()
        losses.append(loss.item())
    torch.set_default_dtype(default)
    results = {"output.losses": np.array(losses)}
    if clip["type"] != "none":
        results["output.norms"] = np.array(norms)
    return results | {f"output.state_dict.{name}": x.numpy() for name, x in model.state_dict().items()}, np.inf


def other_trainings(case):
    """Each option left out."""
    arguments, clip = case["optimizer_args"], case["clip"]
    others = {
        f"{key} left out": {"optimizer_args": {k: x for k, x in arguments.items() if k != key}}
        for key in arguments
        if not (key in ("momentum", "dampening") and arguments.get("nesterov"))
    }
    if case["optimizer"] == "AdamW":
        others["Adam instead of AdamW"] = {"optimizer": "Adam"}
    if clip["type"] != "none":
        others["no clipping"] = {"clip": {"type": "none"}}
    if clip.get("p", 2.0) != 2.0:
        others["the norm's p left out"] = {"clip": {k: x for k, x in clip.items() if k != "p"}}
    return others


def training(steps_in_batch, batch):
    def draw(rng, case):
        vocab, hidden = case["vocab"], case["hidden_size"]
        given = recurrent_parameters(rng, case["module"], vocab, hidden, prefix="state_dict.rnn.", gain=1.2)
        given["state_dict.head.weight"] = rng.normal(size=(vocab, hidden)) / np.sqrt(hidden)
        given["state_dict.head.bias"] = 0.5 * rng.normal(size=vocab)
        given["input.ids"] = rng.integers(vocab, size=(case["steps"], steps_in_batch + 1, batch))
        return given

    return draw


def train(name, module, optimizer, clip, *, steps=10, vocab=7, hidden=5, batch=(6, 3), **optimizer_args):
    write(
        f"train_{module.lower()}_{name}", training(*batch), run_train, other_trainings, kind="train", module=module,
        optimizer=optimizer, optimizer_args=optimizer_args, clip=clip, steps=steps, vocab=vocab, hidden_size=hidden,
        num_layers=1, carry_state=True,
    )  # fmt: skip


def trainings():
    none = {"type": "none"}

    def norm(most, **p):
        return {"type": "norm", "max": most} | p

    train("sgd", "RNN", "SGD", none, lr=0.5)
    train("sgd_norm", "GRU", "SGD", norm(0.05), lr=0.5)
    train("sgd_momentum_norm", "LSTM", "SGD", norm(0.05), lr=0.5, momentum=0.9)
    train("sgd_dampening", "GRU", "SGD", none, lr=0.5, momentum=0.9, dampening=0.3)
    train("sgd_nesterov_norm_p1", "RNN", "SGD", norm(1.0, p=1.0), lr=0.3, momentum=0.8, nesterov=True)
    train("sgd_weight_decay_value", "LSTM", "SGD", {"type": "value", "max": 0.02}, lr=0.5, weight_decay=0.05)
    train("sgd_dampening_decay_norm_inf", "GRU", "SGD", norm(0.05, p="inf"), steps=12, lr=0.4, momentum=0.7,
          dampening=0.5, weight_decay=0.02)  # fmt: skip
    train("sgd_nesterov_decay_norm_p3", "LSTM", "SGD", norm(0.1, p=3.0), steps=8, lr=0.5, momentum=0.9, nesterov=True,
          weight_decay=0.01)  # fmt: skip
    # Clipping that some steps reach and others do not.
    train("sgd_norm_at_times", "RNN", "SGD", norm(0.5), lr=0.3, momentum=0.5)
    train("adam", "GRU", "Adam", none, steps=8, lr=0.05)
    train("adam_betas_eps_norm", "LSTM", "Adam", norm(0.05, p=2.0), lr=0.03, betas=[0.7, 0.95], eps=1e-3)
    train("adam_weight_decay_value", "RNN", "Adam", {"type": "value", "max": 0.01}, lr=0.05, weight_decay=0.1)
    train("adam_all_norm_inf", "GRU", "Adam", norm(0.02, p="inf"), steps=12, lr=0.02, betas=[0.8, 0.9], eps=1e-4,
          weight_decay=0.05)  # fmt: skip
    train("adam_norm_p1", "LSTM", "Adam", norm(1.0, p=1.0), lr=0.04, betas=[0.5, 0.99], eps=1e-3)
    train("adamw", "RNN", "AdamW", none, lr=0.05)
    train("adamw_weight_decay_norm_p3", "LSTM", "AdamW", norm(0.02, p=3.0), lr=0.02, weight_decay=0.3, eps=1e-2)
    train("adamw_all_value", "GRU", "AdamW", {"type": "value", "max": 0.005}, steps=8, vocab=11, hidden=3, batch=(1, 1),
          lr=0.05, betas=[0.85, 0.97], eps=1e-3, weight_decay=0.2)  # fmt: skip
    train("rmsprop", "LSTM", "RMSprop", none, steps=8, lr=0.02, eps=1e-3)
    train("rmsprop_momentum_norm", "GRU", "RMSprop", norm(0.05), lr=0.015, alpha=0.9, eps=1e-3, momentum=0.8)
    train("rmsprop_centered", "RNN", "RMSprop", none, lr=0.02, alpha=0.8, eps=1e-2, centered=True)
    train("rmsprop_all_value", "LSTM", "RMSprop", {"type": "value", "max": 0.02}, lr=0.015, alpha=0.85, eps=1e-2,
          momentum=0.7, centered=True, weight_decay=0.1)  # fmt: skip
    train("adagrad", "GRU", "Adagrad", none, steps=8, lr=0.05, eps=1e-3)
    train("adagrad_lr_decay_norm", "RNN", "Adagrad", norm(0.1), lr=0.1, lr_decay=0.1, eps=1e-3)
    train("adagrad_all_norm_p1", "LSTM", "Adagrad", norm(1.0, p=1.0), steps=12, lr=0.1, lr_decay=0.05,
          initial_accumulator_value=0.02, eps=1e-2, weight_decay=0.1)  # fmt: skip
    train("adam_amsgrad", "GRU", "Adam", none, lr=0.05, betas=[0.8, 0.5], eps=1e-3, amsgrad=True)
    train("adam_amsgrad_all_norm", "RNN", "Adam", norm(0.05), steps=12, lr=0.03, betas=[0.7, 0.6], eps=1e-3,
          weight_decay=0.1, amsgrad=True)  # fmt: skip
    train("adamw_amsgrad_all_value", "LSTM", "AdamW", {"type": "value", "max": 0.02}, lr=0.03, betas=[0.8, 0.5],
          eps=1e-3, weight_decay=0.3, amsgrad=True)  # fmt: skip
    train("nadam", "LSTM", "NAdam", none, steps=8, lr=0.05, eps=1e-3)
    train("nadam_decay_norm", "GRU", "NAdam", norm(0.05), lr=0.03, betas=[0.8, 0.95], eps=1e-3, momentum_decay=0.2,
          weight_decay=0.1)  # fmt: skip
    train("nadam_decoupled_decay_value", "RNN", "NAdam", {"type": "value", "max": 0.02}, steps=12, lr=0.03,
          betas=[0.7, 0.9], eps=1e-3, momentum_decay=0.05, weight_decay=0.3, decoupled_weight_decay=True)  # fmt: skip
