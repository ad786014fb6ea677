"""What a worker is asked to do."""

from dataclasses import dataclass

PARAMETER = "param."


@dataclass(frozen=True)
class Point:
    """One measurement: what protocol/src/point.rs says."""

    cell: str
    mode: str
    dtype: str
    steps: int
    batch: int
    input: int
    hidden: int
    depth: int
    vocabulary: int

    @property
    def trains(self):
        return self.mode == "train"


class Cannot(Exception):
    """The peer has no such layer, or not in this mode."""


def parameters(given):
    """The given parameters by PyTorch's names."""
    return {name.removeprefix(PARAMETER): value for name, value in given.items() if name.startswith(PARAMETER)}
