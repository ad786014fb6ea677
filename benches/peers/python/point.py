"""A worker's task."""

from dataclasses import dataclass

PARAMETER = "param."


@dataclass(frozen=True)
class Point:
    """One measurement, as defined in protocol/src/point.rs."""

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
    """The given parameters under PyTorch's names."""
    return {name.removeprefix(PARAMETER): value for name, value in given.items() if name.startswith(PARAMETER)}
