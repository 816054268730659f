"""Named random streams.

Every draw comes from a stream that is named, not from a global state: the seed of a stream is a
function of the master seed and of names such as ``("lorenz63", "known_x0", "bpf", case)``. A case
therefore draws the same numbers whatever shard, job or restart it is computed in.
"""

__all__ = ["Streams", "generator", "seed_of"]

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def seed_of(seed: int, *names: str | int) -> int:
    """The 63-bit seed of the stream `names` under the master seed `seed`.

    Names are hashed, so that ("a", "bc") and ("ab", "c") differ, and spread by
    `numpy.random.SeedSequence`, so that neighbouring seeds are independent.
    """
    digest = hashlib.sha256(repr(tuple(map(str, names))).encode()).digest()
    words = np.frombuffer(digest, dtype=np.uint32)
    state = np.random.SeedSequence([seed, *words.tolist()]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for the stream `names`."""
    return torch.Generator(device=device).manual_seed(seed_of(seed, *names))


class Streams:
    """One independent stream per case; draws have the cases as their leading dimension.

    Args:
        seed: The master seed.
        names: What the streams are for (experiment, task, method, …).
        cases: The index of every case: one stream each. An index that occurs twice (the padding
            of the last block) draws the same numbers twice.
        device: Where the draws are made.

    Example:
        >>> rng = Streams(0, "demo", cases=range(3))
        >>> rng.normal(2, 5).shape
        torch.Size([3, 2, 5])
    """

    def __init__(
        self,
        seed: int = 0,
        *names: str | int,
        cases: Sequence[int] = (0,),
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.generators = [generator(seed, *names, case, device=device) for case in cases]

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws, shape (cases, \\*shape)."""
        out = torch.empty(len(self), *shape, device=self.device)
        for row, g in zip(out, self.generators, strict=True):
            row.normal_(generator=g)
        return out

    def uniform(self, *shape: int) -> Tensor:
        """Draws from U[0, 1), shape (cases, \\*shape)."""
        out = torch.empty(len(self), *shape, device=self.device)
        for row, g in zip(out, self.generators, strict=True):
            row.uniform_(generator=g)
        return out
