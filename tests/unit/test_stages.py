"""The stages on tiny data, without the workflow around them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from priorflow import store
from priorflow.components import BadInput
from priorflow.priors.interpolant import Interpolant
from priorflow.priors.networks.mlp import FourierMLP, ResidualMLP
from priorflow.stages.chunk import chunk
from priorflow.stages.cost import Cost
from priorflow.stages.evaluate import evaluate, measure
from priorflow.stages.infer import sample
from priorflow.stages.models import export, restore, round_parameters
from priorflow.stages.observe import observe
from priorflow.stages.simulate import part, simulate
from priorflow.stages.train import Windows
from priorflow.systems.lorenz63 import Lorenz63

BASE = Path(__file__).parent
SYSTEM = {"class": "priorflow.systems.lorenz63:Lorenz63"}
OPERATOR = {"class": "priorflow.operators.pointwise:Arctan", "noise_std": 0.25}
SIMULATOR = {
    "prior": {"class": "priorflow.priors.simulator:Simulator"},
    "network": None,
    "context": 1,
}


@given(n=st.integers(0, 50), shards=st.integers(1, 7), block=st.integers(1, 9))
def test_shards_are_whole_blocks_and_cover_everything(n, shards, block):
    parts = [part(range(n), i, shards, block) for i in range(shards)]
    assert [i for p in parts for i in p] == list(range(n))
    assert all(len(p) % block == 0 for p in parts[:-1] if p and p.stop < n)


def simulated(folder, shards, system=SYSTEM):
    paths = []
    for i in range(shards):
        paths.append(folder / f"{shards}_{i}.zarr")
        simulate(
            system, part(range(6), i, shards), paths[-1],
            steps=12, burn_in=3, names=("t", "simulate"), seed=0, base=BASE,
        )  # fmt: skip
    chunk(paths, folder / f"{shards}.zarr", system=system, chunks={"trajectory": 4}, base=BASE)
    return folder / f"{shards}.zarr"


def test_data_do_not_depend_on_the_shards(tmp_path):
    one, three = (store.read(simulated(tmp_path, n)).load() for n in (1, 3))
    xr.testing.assert_identical(one, three)
    assert one.state.shape == (6, 12, 3)
    assert one.attrs["std"] == pytest.approx([8, 9, 8.6])


def test_what_is_packed_stays_packed(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 256, (4, 5, 8, 8), dtype=np.uint8)
    state = (("trajectory", "time", "y", "x"), numbers, {"scale_factor": 1 / 255, "units": "1"})
    raw = xr.Dataset({"state": state}, {"trajectory": range(4)}, {"dt": 10.0})
    store.write(raw, tmp_path / "raw.zarr")
    system = {"class": "priorflow.systems.sevir:SEVIR", "size": 8, "location": 0.4, "scale": 0.2}
    chunk([tmp_path / "raw.zarr"], tmp_path / "x.zarr", system=system, chunks={}, base=BASE)
    packed = store.read(tmp_path / "x.zarr", packed=True).state
    np.testing.assert_array_equal(packed.values, numbers)
    expected = (numbers / 255 - 0.4) / 0.2
    np.testing.assert_allclose(store.read(tmp_path / "x.zarr").state.values, expected, atol=1e-6)

    drawn = Windows.of(tmp_path / "x.zarr", 5).draw(3, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float32
    whole = torch.from_numpy(expected).float()
    assert all((whole - window).abs().amax((1, 2, 3)).min() < 1e-5 for window in drawn)


def test_every_case_may_have_an_operator_of_its_own(tmp_path):
    (tmp_path / "own.py").write_text(
        "class Scaled:\n"
        "    noise_std = 1e-9\n"
        "    def __init__(self, shape):\n"
        "        self.factor = 1\n"
        "    def at(self, rows):\n"
        "        import torch\n"
        "        self.factor = 1 + torch.tensor(rows).view(-1, 1, 1).float()\n"
        "        return self\n"
        "    def __call__(self, x):\n"
        "        return self.factor * x\n"
    )
    cases = observed(
        simulated(tmp_path, 1), operator={"class": "./own.py:Scaled"}, base=tmp_path, cases=3
    )
    factors = 1 + cases.trajectory.values[:, None, None]
    np.testing.assert_allclose(cases.y.values, factors * cases.truth.values, rtol=1e-5, atol=1e-6)


def test_more_cases_than_there_are_trajectories(tmp_path):
    with pytest.raises(BadInput, match="6 trajectories for 7 cases"):
        observed(simulated(tmp_path, 1), cases=7)


def observed(data, **change):
    settings = {
        "operator": OPERATOR, "system": SYSTEM, "cases": 5, "steps": 4, "start": 2, "context": 2,
        "names": ("t", "task"), "seed": 0, "base": BASE,
    } | change  # fmt: skip
    return observe(data, **settings)


def test_a_simulation_that_diverges_names_its_trajectories(tmp_path):
    (tmp_path / "bad.py").write_text(
        "from priorflow.systems.lorenz63 import Lorenz63\n\n\n"
        "class Bad(Lorenz63):\n"
        "    def initial(self, members, rng):\n"
        "        x = rng.normal(members, 3)\n"
        "        x[1] = 1e30\n"
        "        return x\n"
    )
    with pytest.raises(BadInput, match=r"not finite after \d+ transitions in trajectories 1;"):
        simulate(
            {"class": "./bad.py:Bad"}, range(3), tmp_path / "x.zarr",
            steps=4, burn_in=0, names=("t",), seed=0, base=tmp_path,
        )  # fmt: skip
    assert not (tmp_path / "x.zarr").exists()


def test_observations_are_of_the_truth_that_follows_the_history(tmp_path):
    data = simulated(tmp_path, 1)
    cases = observed(data)
    states = store.read(data).state.values
    np.testing.assert_array_equal(cases.history.values, states[:5, 1:3])
    np.testing.assert_array_equal(cases.truth.values, states[:5, 3:7])
    residual = cases.y.values - np.arctan(cases.truth.values[..., :1])
    assert 0.1 < residual.std() < 0.4
    quiet = observed(data, operator=OPERATOR | {"noise_std": 1e-9})
    np.testing.assert_allclose(quiet.y, np.arctan(quiet.truth.values[..., :1]), atol=1e-6)


def test_a_rollout_keeps_its_leads_apart(tmp_path):
    cases = observed(simulated(tmp_path, 1), context=1, rollout=True)
    posterior = sample(cases, run(), SIMULATOR, None, cases=range(5), device="cpu", base=BASE)
    metrics = {"rmse": {"class": "priorflow.metrics.errors:rmse"}}
    table = measure(posterior, cases, run(), metrics, BASE)
    errors = table[table.metric == "rmse"]
    assert sorted(errors.lead) == sorted([1, 2, 3, 4] * 5)
    pooled = observed(simulated(tmp_path, 2), context=1)
    whole = sample(pooled, run(), SIMULATOR, None, cases=range(5), device="cpu", base=BASE)
    np.testing.assert_array_equal(whole.state, posterior.state)


def run(**change):
    return {
        "experiment": "t", "task": "task", "method": "m", "model": "simulator", "seed": 0,
        "solver": {"class": "priorflow.solvers.assimilation.bpf:BootstrapParticleFilter",
                   "particles": 64},
        "operator": OPERATOR, "system": SYSTEM, "initial": "known", "cases": 5, "members": 3,
        "block": 2,
    } | change  # fmt: skip


def test_inference_does_not_depend_on_which_cases_are_asked_for(tmp_path):
    cases = observed(simulated(tmp_path, 1), context=1)
    whole = sample(cases, run(), SIMULATOR, None, cases=range(5), device="cpu", base=BASE)
    parts = [
        sample(
            cases, run(), SIMULATOR, None, cases=part(range(5), i, 3, 2), device="cpu", base=BASE
        )
        for i in range(3)
    ]
    joined = xr.concat([p for p in parts if p.sizes["case"]], dim="case")
    xr.testing.assert_identical(joined.drop_vars("seconds"), whole.drop_vars("seconds"))
    assert whole.simulator_evals.values == pytest.approx(64 * 4 / 3)
    assert not whole.nfe.any()


PICTURES = {"class": "priorflow.systems.gaussian_mixture:digits", "rank": 4, "size": 8}
MOTION = {"class": "priorflow.operators.motion:MotionBlur", "size": 3, "noise_std": 0.05}
EXACT = {
    "prior": {"class": "priorflow.priors.mixture:ExactDenoiser"},
    "network": None,
    "context": 0,
}


def test_pictures_are_restored_and_judged_without_time(tmp_path):
    """Each by its own kernel, in any block, against the posterior of another method."""
    raw, data = tmp_path / "raw.zarr", tmp_path / "data.zarr"
    simulate(
        PICTURES, range(6), raw, steps=1, burn_in=0, names=("t", "simulate"), seed=0, base=BASE
    )
    chunk([raw], data, system=PICTURES, chunks={}, base=BASE)
    observations = observe(
        data, operator=MOTION, system=PICTURES, cases=5, steps=1, start=0, context=0,
        names=("t", "blur"), seed=0, base=BASE, past=False,
    )  # fmt: skip
    assert observations.truth.dims == ("case", "channel", "y", "x")
    assert observations.y.shape == (5, 1, 8, 8)
    assert (observations.linear, observations.dimensions) == (True, 64)
    assert len(observations.condition) == len(observations.rank_deficiency) == 5
    assert min(observations.condition) > 1
    solver = "priorflow.solvers.restoration.exact:ExactPosterior"
    run = {
        "experiment": "t", "task": "blur", "method": "exact", "solver": {"class": solver},
        "model": "denoiser", "operator": MOTION, "system": PICTURES, "initial": "none",
        "members": 4, "block": 2, "seed": 0,
    }  # fmt: skip

    def posterior(cases, **changes):
        return sample(
            observations, run | changes, EXACT, None, cases=cases, device="cpu", base=BASE
        )

    whole = posterior(range(5))
    xr.testing.assert_identical(
        whole.drop_vars("seconds").isel(case=slice(2, 5)),
        posterior(range(2, 5)).drop_vars("seconds"),
    )
    assert whole.state.dims == ("case", "member", "channel", "y", "x")
    assert whole["mean"].dims == observations.truth.dims
    dps = {"class": "priorflow.solvers.restoration.dps:DPS", "steps": 7}
    guided = posterior(range(1), method="dps", solver=dps, members=2)
    assert (guided.nfe == 7).all()  # of an exact denoiser, which has no network
    assert (guided.nfe_backward == 7).all()
    metrics = {
        "mean_error": {
            "class": "priorflow.metrics.exactness:mean_error",
            "exact": "reference",
        },
        "consistency": {"class": "priorflow.metrics.images:consistency"},
    }
    other = posterior(range(5), method="other", members=64)
    found = measure(whole, observations, run, metrics, BASE, {"reference": other})
    errors = found[found.metric == "mean_error"].value
    assert len(errors) == 5
    assert np.sqrt((errors**2).mean()) == pytest.approx(4**-0.5, rel=0.2)
    residuals = found[found.metric == "consistency"].value  # each by the kernel of its own case
    assert (residuals < 2 * MOTION["noise_std"]).all()


def test_parts_of_a_posterior_are_judged_as_the_whole(tmp_path, monkeypatch):
    """Whatever its shards are; others are read for the same cases."""
    data = simulated(tmp_path, 1)
    cases = observed(data, context=1)
    store.write(cases, tmp_path / "seen.zarr")
    names = {"m": [], "other": []}
    for method, shards in names.items():
        for i, ids in enumerate((range(3), range(3, 5))):
            shards.append(tmp_path / f"{method}.{i}.zarr")
            job = run(method=method, block=1, seed=len(method))
            posterior = sample(cases, job, SIMULATOR, None, cases=ids, device="cpu", base=BASE)
            store.write(posterior, shards[-1])
    (tmp_path / "apart.py").write_text(
        "def apart(posterior, case, exact):\n"
        "    square = (posterior.state - exact.state) ** 2\n"
        "    return square.mean([dim for dim in square.dims if dim != 'case'])\n"
    )
    metrics = {
        "crps": {"class": "priorflow.metrics.crps:crps"},
        "apart": {"class": "./apart.py:apart", "exact": "other"},
        "spread_skill": {"class": "priorflow.metrics.crps:spread_skill", "members": 4},
    }
    pair = (run(), tmp_path / "seen.zarr", names["m"], {"other": names["other"]})
    tables = []
    for size in (2**28, 1, 2 * store.read(names["m"][0]).state[0].nbytes):
        monkeypatch.setattr("priorflow.stages.evaluate.PART_BYTES", size)
        evaluate([pair], metrics, tmp_path / "m.parquet", tmp_path / "t.parquet", tmp_path)
        tables.append(pd.read_parquet(tmp_path / "m.parquet"))
        tables[-1] = tables[-1].sort_values(["metric", "case"], ignore_index=True)
    whole, *others = tables
    assert set(whole.metric) == {"crps", "apart", *Cost.KINDS}  # three members are too few
    assert (whole[whole.metric == "apart"].value > 0).all()
    assert whole[whole.metric == "crps"].case.tolist() == [0, 1, 2, 3, 4]
    for table in others:
        pd.testing.assert_frame_equal(table, whole, check_exact=True)


def test_a_solver_that_diverges_names_the_case(tmp_path):
    (tmp_path / "bad.py").write_text(
        "from priorflow.solvers.base import Diverged\n\n\n"
        "def Bad():\n"
        "    def solve(y, operator, prior, rng, members=1):\n"
        "        raise Diverged([1], 7)\n"
        "    return solve\n"
    )
    cases = observed(simulated(tmp_path, 1), context=1)
    solver = {"class": "./bad.py:Bad"}
    with pytest.raises(BadInput, match=r"m on task: diverged at step 7 in case\(s\) 3;"):
        sample(
            cases, run(solver=solver), SIMULATOR, None,
            cases=range(2, 5), device="cpu", base=tmp_path,
        )  # fmt: skip


def test_costs_are_counted_in_states():
    cost = Cost()
    network = ResidualMLP((3,), 1, width=8, depth=1)
    cost.network(network)
    prior = Interpolant(network, (3,))
    x = torch.randn(4, 5, 3, requires_grad=True)
    prior.endpoint(x, 0.5, torch.randn(4, 5, 1, 3)).sum().backward()
    with torch.no_grad():
        prior.endpoint(x, 0.5, torch.randn(4, 5, 1, 3))
    system = cost.simulator(Lorenz63())
    system.advance(torch.randn(7, 3))
    assert dict(cost.counts) == {"nfe": 40, "nfe_backward": 20, "simulator_evals": 7}


def test_weights_survive_the_round_trip_in_16_bits(tmp_path):
    torch.manual_seed(0)
    prior = Interpolant(ResidualMLP((3,), 1, width=8, depth=1), (3,))
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter)
    prior.increment_std.fill_(0.123456789)
    round_parameters(prior)
    export(prior, tmp_path / "w.safetensors")
    other = restore(
        Interpolant(ResidualMLP((3,), 1, width=8, depth=1), (3,)), tmp_path / "w.safetensors"
    )
    for name, value in prior.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    with pytest.raises(BadInput, match=r"another network: .* has shape"):
        restore(
            Interpolant(ResidualMLP((3,), 1, width=9, depth=1), (3,)), tmp_path / "w.safetensors"
        )
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BadInput, match="not a readable safetensors file"):
        restore(prior, tmp_path / "w.safetensors")


def test_the_published_network_has_its_published_size():
    network = FourierMLP((3,), 1)
    assert sum(p.numel() for p in network.parameters()) == 593_155
    assert network(torch.randn(2, 5, 3), torch.rand(2, 5), torch.randn(2, 5, 1, 3)).shape == (
        2,
        5,
        3,
    )
