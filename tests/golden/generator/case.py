"""One case: helpers that the references share, the conditions that make a case worth having, and its file.

References are computed in double precision, even those of F32 cases: their given tensors are exact in F32, and the expected results are
rounded to F32. Only ONNX Runtime's own numbers are F32 from the start.

A case is only worth having if it can be passed and can be failed. Before it is written, these conditions are checked:

- It must be well-conditioned: one rounding error in every given float moves the results by less than a tenth of the tolerance that
  `verdict.rs` allows.
- If relu is used, no pre-activation may be near the kink, and not all units may be dead.
- Another setting of any one option that leaves the tensors' shapes alone must move the results by far more than the tolerance.

Numbers are drawn until the first two hold.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

FOLDER = Path(__file__).parent.parent / "cases"
# The names of the cases to write, or None for all.
only = None
DTYPES = {"F32": np.float32, "F64": np.float64}


class Unfit(AssertionError):
    """No numbers were found with which the case is worth having."""


def tolerance(case):
    """As in `verdict.rs`."""
    if "tolerance" in case:
        return case["tolerance"]
    return 1e-5 if case["dtype"] == "F32" else 1e-9 if case["kind"] == "train" else 1e-12


# --- For the references: from given tensors to the expected tensors and the distance from any kink. ---


def tensors_under(given, prefix):
    return {name.removeprefix(prefix): torch.from_numpy(x) for name, x in given.items() if name.startswith(prefix)}


def leaf(given, name):
    x = given.get(name)
    return None if x is None else torch.from_numpy(x).requires_grad_()


def gradients(leaves, parameters, outputs, given):
    """`grad.*` of all given tensors, for the `grad_output.*` of each output."""
    dy = [torch.from_numpy(given[f"grad_output.{name}"]) for name in outputs]
    torch.autograd.backward(list(outputs.values()), dy)
    results = {f"output.{name}": y.detach().numpy() for name, y in outputs.items()}
    leaves = {name: x for name, x in leaves.items() if x is not None} | dict(parameters)
    return results | {f"grad.{name}": x.grad.numpy() for name, x in leaves.items()}


def worst(got, want):
    """The largest error of any tensor, relative to the largest element or to 1, if that is larger, as in the test."""
    return max(np.abs(got[name] - x).max() / max(1.0, np.abs(x).max()) for name, x in want.items())


# --- What makes a case worth having. ---


def is_well_conditioned(case, run, given, want, rng):
    ulp = np.finfo(DTYPES[case["dtype"]]).eps
    for _ in range(4):
        nudged = {
            key: x * (1 + ulp * rng.choice([-1.0, 1.0], x.shape)) if x.dtype == np.float64 else x
            for key, x in given.items()
        }
        if worst(run(case, nudged)[0], want) >= tolerance(case) / 10:
            return False
    return True


def check_options_show(name, case, run, others, given, want):
    """Checks that no option could be left out, or set to another value, unnoticed."""
    for what, options in others.items():
        # The norms of a training are only reported; they are not its result.
        error = worst(run(case | options, given)[0], {key: x for key, x in want.items() if key != "output.norms"})
        assert error > 1e3 * tolerance(case), f"{name}: {what}: differs by {error:.1e} only"


def write(name, draw, run, others=lambda case: {}, *, attempts=200, floor=None, **case):
    """Writes the case whose tensors `draw(rng, case)` gives, at the first try that is fit.

    `run(case, given)` is the reference. `others(case)` has the options that must make a difference, under the names to report if they
    make none. Pre-activations of relu are at least `floor` away from 0.
    """
    if only is not None and name not in only:
        return
    case = {"dtype": "F64", "reference": f"torch {torch.__version__.split('+')[0]}"} | case
    dtype = DTYPES[case["dtype"]]
    floor = floor or (1e-3 if dtype == np.float32 else 1e-6)
    for attempt in range(attempts):
        rng = np.random.default_rng([zlib.crc32(name.encode()), attempt])
        given = draw(rng, case)
        junk = given.pop("junk", {})
        given = {key: x if x.dtype == np.int64 else x.astype(dtype).astype(np.float64) for key, x in given.items()}
        want, margin = run(case, given)
        alive = any(x.any() for key, x in want.items() if key.startswith("output."))
        if margin > floor and alive and is_well_conditioned(case, run, given, want, rng):
            break
    else:
        raise Unfit(f"{name}: always near a kink, zero or ill-conditioned")
    check_options_show(name, case, run, others(case), given, want)
    assert all(np.isfinite(x).all() for x in want.values()), f"{name}: not finite"
    # Junk is added last, so that the reference never sees it.
    for key, padding in junk.items():
        given[key] = np.where(padding["where"], padding["values"], given[key])
    tensors = {key: x if x.dtype == np.int64 else x.astype(dtype) for key, x in (given | want).items()}
    tensors = {key: np.ascontiguousarray(tensors[key]) for key in sorted(tensors)}
    file = FOLDER / f"{name}.safetensors"
    assert not file.exists(), f"{name}: two cases of this name"
    save_file(tensors, file, {"case": json.dumps(case, sort_keys=True)})
