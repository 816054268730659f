"""Streams belong to cases, not to batches."""

import torch

from priorflow.rng import Streams, seed_of


def test_a_case_draws_the_same_in_any_batch():
    whole = Streams(3, "a", "b", cases=range(8)).normal(4, 2)
    part = Streams(3, "a", "b", cases=range(5, 8)).normal(4, 2)
    assert torch.equal(whole[5:], part)


def test_names_seeds_and_cases_matter():
    seeds = {seed_of(0, "a", "bc", 1), seed_of(0, "ab", "c", 1), seed_of(1, "a", "bc", 1)}
    assert len(seeds | {seed_of(0, "a", "bc", 2)}) == 4


def test_draws_are_standard_normal_and_uniform():
    rng = Streams(0, "moments", cases=range(16))
    z, u = rng.normal(10_000), rng.uniform(10_000)
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert abs(u.mean() - 0.5) < 0.005
    assert u.min() >= 0
    assert u.max() < 1
    across = torch.corrcoef(z)
    assert (across - torch.eye(16)).abs().max() < 0.06
