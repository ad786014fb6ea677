"""Writes weighted.json: losses with weights for sequences, steps and elements, by PyTorch, in f64. Run by hand; weighted.rs reads it.

The inputs are those of weighted.rs, [3, 2, 4]. Each loss is `reduction="none"`, times its weights, divided by their sum for the mean;
positions past the lengths are left out before anything is computed. Some weights are 0.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
T, B, D = 3, 2, 4
CLASS_WEIGHTS = [0.5, 2.0, 0.25, 1.5]
POS_WEIGHT = [0.5, 1.0, 3.0, 10.0]
IGNORED = 9


def grid(f):
    return torch.tensor([f(i) for i in range(T * B * D)], dtype=torch.float64).reshape(T, B, D)


def weights_of(parts):
    shape = {"sequences": [B], "steps": [T, B], "elements": [T, B, D]}[parts]
    count = torch.Size(shape).numel()
    values = [1.5 if count == 2 and i == 1 else (i * 3 % 5) * 0.35 for i in range(count)]
    if parts == "sequences":
        values = [0.7, 1.9]
    return torch.tensor(values).reshape(shape)


def spread(weights):
    """[T, B, D]"""
    w = weights if weights.dim() != 1 else weights.expand(T, B)
    return (w if w.dim() == 3 else w.unsqueeze(-1)).expand(T, B, D)


def logits():
    return grid(lambda i: ((i * 7 % 11) - 5.0) * 0.4 + 0.1 * i)


targets = grid(lambda i: ((i * 5 % 7) - 3.0) * 0.5)
probabilities = grid(lambda i: (i * 3 % 5) * 0.25)
ids = torch.tensor([[0, 3], [IGNORED, 1], [2, 3]])
CTC_LABELS = [[1, 2], [3]]

cases = []


def case(kind, parts, lengths, options, compute):
    weights = weights_of(parts)
    for reduction in ["mean", "sum"]:
        z = logits().requires_grad_()
        losses, w, scale = compute(z, weights, lengths)
        used = w > 0  # 0 · inf is NaN in PyTorch
        value = (losses[used] * w[used]).sum()
        total = (w * scale).sum()
        if reduction == "mean":
            value = value / total
        (dz,) = torch.autograd.grad(value, z)
        cases.append(dict(kind=kind, parts=parts, lengths=lengths, reduction=reduction, **options,
                          weights=weights.flatten().tolist(), total=total.item(), value=value.item(),
                          gradient=dz.flatten().tolist()))


def mask(lengths):
    return torch.tensor([[t < lengths[b] for b in range(B)] for t in range(T)])


def elementwise(loss):
    def compute(z, weights, lengths):
        valid = mask(lengths).unsqueeze(-1).expand(T, B, D)
        w = spread(weights)
        return loss(z)[valid], w[valid], torch.ones_like(w[valid])
    return compute


def cross_entropy(class_weights, smoothing):
    c = torch.tensor(CLASS_WEIGHTS) if class_weights else None

    def compute(z, weights, lengths):
        counts = mask(lengths) & (ids != IGNORED)
        losses = F.cross_entropy(z[counts], ids[counts], weight=c, label_smoothing=smoothing, reduction="none")
        w = spread(weights)[..., 0][counts]
        return losses, w, c[ids[counts]] if class_weights else torch.ones_like(w)
    return compute


def ctc(z, weights, lengths):
    log_p = F.log_softmax(z, -1)
    counts = torch.tensor([len(labels) for labels in CTC_LABELS])
    labels = torch.tensor([label for labels in CTC_LABELS for label in labels])
    losses = F.ctc_loss(log_p, labels, torch.tensor(lengths), counts, reduction="none")
    return losses, weights, torch.ones(B)


def ctc_mean(z, weights, lengths):
    losses, w, scale = ctc(z, weights, lengths)
    return losses / torch.tensor([float(len(labels)) for labels in CTC_LABELS]), w, scale


for parts in ["sequences", "steps", "elements"]:
    for lengths in [[3, 3], [3, 2]]:
        case("mse", parts, lengths, {}, elementwise(lambda z: (z - targets) ** 2))
        case("huber", parts, lengths, dict(delta=1.05),
             elementwise(lambda z: F.huber_loss(z, targets, delta=1.05, reduction="none")))
        for pos in [False, True]:
            case("bce", parts, lengths, dict(pos_weight=pos),
                 elementwise(lambda z: F.binary_cross_entropy_with_logits(
                     z, probabilities, pos_weight=torch.tensor(POS_WEIGHT) if pos else None, reduction="none")))
        if parts != "elements":
            for class_weights in [False, True]:
                for smoothing in [0.0, 0.1]:
                    case("ce", parts, lengths, dict(class_weights=class_weights, smoothing=smoothing),
                         cross_entropy(class_weights, smoothing))
        if parts == "sequences":
            before = len(cases)
            case("ctc", parts, lengths, {}, ctc_mean)
            del cases[before + 1]
            case("ctc", parts, lengths, {}, ctc)
            del cases[before + 1]

# mse_loss(weight=) computes the same mean.
w, z = weights_of("elements"), logits()
same = next(c for c in cases if c["kind"] == "mse" and c["parts"] == "elements" and c["lengths"] == [3, 3])
assert abs(F.mse_loss(z, targets, weight=w).item() - same["value"]) < 1e-14

path = pathlib.Path(__file__).with_name("weighted.json")
path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
print(len(cases), "cases,", path.stat().st_size, "bytes")
