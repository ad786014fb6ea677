"""Kind `attention`, with PyTorch as the reference.

Each sequence of a batch is computed separately, cut to its lengths, so that the reference never sees padding, which holds large
numbers or NaN in the cases. A dot score is `scaled_dot_product_attention`; the other scores consist of `nn.Bilinear` and of three
`nn.Linear`.
"""

import numpy as np
import torch
from torch import nn

from .case import leaf, write


class Attention(nn.Module):
    """The context and the weights of one sequence: `[Tq, Q]` and `[Tm, M]` to `[Tq, M]` and `[Tq, Tm]`."""

    def __init__(self, case):
        super().__init__()
        self.score = case["score"]
        query, memory, hidden = case["query_size"], case["memory_size"], case["hidden_size"]
        if self.score == "bilinear":
            self.general = nn.Bilinear(query, memory, 1, bias=False)
        elif self.score == "additive":
            self.query = nn.Linear(query, hidden, bias=case["bias"])
            self.memory = nn.Linear(memory, hidden, bias=False)
            self.v = nn.Linear(hidden, 1, bias=False)
        self.double()

    def names(self):
        """Our names of the parameters, and how many more leading axes of length 1 PyTorch's have."""
        if self.score == "bilinear":
            return {"weight": (self.general.weight, 1)}
        if self.score != "additive":
            return {}
        names = {"weight_query": (self.query.weight, 0), "weight_memory": (self.memory.weight, 0)}
        names["v"] = (self.v.weight, 1)
        return names | ({} if self.query.bias is None else {"bias": (self.query.bias, 0)})

    def forward(self, query, memory):
        if self.score in ("dot", "scaled_dot"):
            scale = 1.0 if self.score == "dot" else None  # None: 1 / sqrt(features)

            def attend(values):
                batch = query[None], memory[None], values[None]
                return nn.functional.scaled_dot_product_attention(*batch, scale=scale)[0]

            return attend(memory), attend(torch.eye(len(memory), dtype=memory.dtype))
        every = len(query), len(memory), -1
        if self.score == "bilinear":
            scores = self.general(query[:, None].expand(every).contiguous(), memory[None].expand(every).contiguous())
        else:
            scores = self.v(torch.tanh(self.query(query)[:, None] + self.memory(memory)[None]))
        weights = scores[..., 0].softmax(dim=-1)
        return weights @ memory, weights


def run(case, given):
    module = Attention(case)
    with torch.no_grad():
        for name, (parameter, leading) in module.names().items():
            value = torch.from_numpy(given[f"state_dict.{name}"])
            parameter.copy_(value[(None,) * leading])
    query, memory = leaf(given, "input.query"), leaf(given, "input.memory")
    (steps, batch, _), memory_steps = query.shape, len(memory)
    query_lengths = given.get("input.query_lengths", np.full(batch, steps))
    memory_lengths = given.get("input.memory_lengths", np.full(batch, memory_steps))
    context = torch.zeros(steps, batch, memory.shape[2], dtype=torch.float64)
    weights = torch.zeros(steps, batch, memory_steps, dtype=torch.float64)
    for b, (last, length) in enumerate(zip(query_lengths, memory_lengths)):
        context[:last, b], weights[:last, b, :length] = module(query[:last, b], memory[:length, b])
    context.backward(torch.from_numpy(given["grad_output.context"]))
    results = {"output.context": context, "output.weights": weights}
    results |= {"grad.query": query.grad, "grad.memory": memory.grad}
    results |= {f"grad.{name}": p.grad[(0,) * leading] for name, (p, leading) in module.names().items()}
    return {name: x.detach().numpy() for name, x in results.items()}, np.inf


def given_tensors(steps, memory_steps, batch, *, query_lengths=None, memory_lengths=None, scale=1.0, junk=1e30):
    def draw(rng, case):
        query, memory, hidden = case["query_size"], case["memory_size"], case["hidden_size"]
        given = {
            "input.query": rng.normal(size=(steps, batch, query)) * scale,
            "input.memory": rng.normal(size=(memory_steps, batch, memory)),
            "grad_output.context": rng.normal(size=(steps, batch, memory)),
        }
        if case["score"] == "bilinear":
            given["state_dict.weight"] = rng.normal(size=(query, memory)) / np.sqrt(query)
        if case["score"] == "additive":
            given["state_dict.weight_query"] = rng.normal(size=(hidden, query)) / np.sqrt(query)
            given["state_dict.weight_memory"] = rng.normal(size=(hidden, memory)) / np.sqrt(memory)
            given["state_dict.v"] = rng.normal(size=hidden) * 2 / np.sqrt(hidden)
            if case["bias"]:
                given["state_dict.bias"] = rng.normal(size=hidden) * 0.5
        given["junk"] = {}
        for part, lengths, count in [("query", query_lengths, steps), ("memory", memory_lengths, memory_steps)]:
            if lengths is not None:
                given[f"input.{part}_lengths"] = np.array(lengths, dtype=np.int64)
                padding = (np.arange(count)[:, None] >= given[f"input.{part}_lengths"])[..., None]
                for key in ["input.query", "grad_output.context"] if part == "query" else ["input.memory"]:
                    given["junk"][key] = {"where": padding, "values": rng.normal(size=given[key].shape) * junk}
        return given

    return draw


def case(name, score, features, *sizes, bias=None, dtype="F64", **given):
    """`features` are those of query, memory and hidden layer; `sizes` are Tq, Tm and B."""
    query, memory, hidden = features
    write(
        f"attention_{score}_{name}", given_tensors(*sizes, **given), run, kind="attention", score=score, query_size=query,
        memory_size=memory, hidden_size=hidden, bias=bias, dtype=dtype,
    )  # fmt: skip


def attentions():
    for score, features in [
        ("dot", (7, 7, 0)), ("scaled_dot", (7, 7, 0)), ("bilinear", (5, 7, 0)), ("additive", (5, 7, 11)),
    ]:  # fmt: skip
        bias = True if score == "additive" else None
        case("q4_m9_b3", score, features, 4, 9, 3, bias=bias)
        case(
            "lengths", score, features, 5, 13, 4, bias=bias, query_lengths=[3, 5, 1, 4], memory_lengths=[13, 1, 9, 4],
            junk=np.nan,
        )  # fmt: skip
        case("one_step_f32", score, features, 1, 20, 3, bias=bias, memory_lengths=[17, 3, 20], dtype="F32")
        # More rows than matrix products treat as few.
        case("q20_m30_b2", score, features, 20, 30, 2, bias=bias, memory_lengths=[30, 19])
    case("all_1", "dot", (1, 1, 0), 1, 1, 1)
    case("sharp", "dot", (7, 7, 0), 4, 9, 3, scale=30.0)
    case("without_bias", "additive", (5, 7, 11), 4, 9, 3, bias=False)
    case("q9_m17_h33_f32", "additive", (9, 17, 33), 3, 9, 2, bias=True, dtype="F32")
