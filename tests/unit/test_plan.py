"""The plan of a run: hand-computed numbers, and calls against those of the solvers themselves."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from priorflow.cli import drawn_figures, posterior_names
from priorflow.components import build
from priorflow.config import load_experiment, select_methods
from priorflow.priors.base import Known, StateSpace
from priorflow.rng import Streams
from priorflow.stages.cost import Cost
from priorflow.stages.models import build_prior
from priorflow.stages.plan import CALLS, Problem, Stage, calls_of, markdown, operations, plan
from priorflow.systems.base import Standardised

BASE = Path(__file__).parents[2]
ASSIMILATION, RESTORATION = "priorflow.solvers.assimilation.", "priorflow.solvers.restoration."
SMALL = {
    "system": {"class": "priorflow.systems.double_well:DoubleWell"},
    "data": {"trajectories": 40, "steps": 12, "shards": 2},
    "block": 3,
    "tasks": {
        "short": {
            "operator": {"class": "priorflow.operators.pointwise:Cube", "noise_std": 0.2},
            "steps": 5,
            "cases": 4,
            "members": 3,
        }
    },
    "models": {
        "simulator": {"prior": {"class": "priorflow.priors.simulator:Simulator"}},
        "drift": {
            "prior": {
                "class": "priorflow.priors.interpolant:Interpolant",
                "parametrisation": "drift",
            },
            "network": {
                "class": "priorflow.priors.networks.mlp:ResidualMLP",
                "width": 8,
                "depth": 1,
            },
            "training": {"steps": 100, "batch": 64},
        },
    },
    "methods": {
        "forecast": {"solver": {"class": f"{ASSIMILATION}forecast:Forecast"}},
        "bpf": {"solver": {"class": f"{ASSIMILATION}bpf:BootstrapParticleFilter", "particles": 64}},
        "flowdas": {
            "model": "drift",
            "solver": {"class": f"{ASSIMILATION}flowdas:FlowDAS", "steps": 10},
        },
    },
    "metrics": {"rmse": {"class": "priorflow.metrics.errors:rmse"}},
    "ablations": {
        "steps": {
            "tasks": {"short": {"cases": 2}},
            "methods": {"flowdas": {"solver": {"steps": [1, 2]}}},
        }
    },
}
OPERATIONS = 2 * (11 * 8 + 8 * 8 + 8 * 8 + 8)  # x, x0, s and 8 waves; a block of two layers; outlet
PARAMETERS = (11 * 8 + 8) + 2 * 8 + 2 * (8 * 8 + 8) + (8 + 1)


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    return load_experiment(str(file), "paper")


def test_jobs_and_bytes_by_hand(small):
    """Three splits in two parts, 40 trajectories of 12 numbers; a task of 4 cases, 3 members."""
    stages = plan(small, list(small.methods), figures=1, shards=5)
    assert {name: (s.jobs, s.gpus) for name, s in stages.items()} == {
        "simulate": (6, 0),
        "chunk": (3, 0),
        "observe": (1, 0),
        "train": (1, 1),
        "infer": (3 * 2 + 2 * 1, 8),  # 4 cases are two blocks of 3, 2 cases are one
        "evaluate": (3 + 1, 0),
        "tables": (2, 0),
        "figures": (1, 0),
    }
    numbers = {
        "simulate": 40 * 12,
        "chunk": 40 * 12,
        "observe": 4 * (5 * (1 + 1) + 1),  # y and the truth of 5 states, and 1 state before
        "infer": 4 * 3 * 5 * (1 + 2 + 1) + 2 * 2 * 3 * 5,  # a filter keeps where members came from
    }
    for name, number in numbers.items():
        assert stages[name].gigabytes * 1e9 == pytest.approx(4 * number)
    assert stages["train"].gigabytes * 1e9 == pytest.approx(2 * PARAMETERS)


def test_gpu_hours_by_hand(small):
    """Either the operations take their time, or the calls do."""
    methods = ["forecast", "bpf", "flowdas"]
    busy = plan(small, methods, rate=1e3, latency=0)
    assert busy["train"].evaluations == 100 * 64 * 3
    assert busy["train"].hours == pytest.approx(100 * 64 * 3 * OPERATIONS / 1e3 / 3600)
    # two blocks of 3 cases, 3 members, 5 states, 10 steps of two calls and their gradients
    assert busy["infer"].evaluations == 6 * 3 * 5 * 10 * 2 * 2
    assert busy["infer"].hours == pytest.approx(busy["infer"].evaluations * OPERATIONS / 1e3 / 3600)

    assert busy["train"].longest == busy["train"].hours  # on one GPU
    training = small.models["drift"].training.model_copy(update={"devices": 4})
    drift = small.models["drift"].model_copy(update={"training": training})
    four = small.model_copy(update={"models": {**small.models, "drift": drift}})
    on_four = plan(four, methods, rate=1e3, latency=0)["train"]
    assert on_four.hours == pytest.approx(busy["train"].hours)
    assert on_four.longest == pytest.approx(busy["train"].hours / 4)

    idle = plan(small, methods, rate=math.inf, latency=0.1)
    assert idle["train"].hours == pytest.approx(100 * 3 * 0.1 / 3600)
    assert idle["infer"].hours == pytest.approx(2 * 5 * 10 * 2 * 2 * 0.1 / 3600)
    assert idle["infer"].longest == pytest.approx(idle["infer"].hours)  # one job of two blocks
    shared = plan(small, methods, rate=math.inf, latency=0.1, shards=2)["infer"]
    assert shared.hours == idle["infer"].hours
    assert shared.longest == pytest.approx(shared.hours / 2)


def test_shipped_weights_need_no_data(small):
    stages = plan(small, ["flowdas"], shipped={"drift"})
    assert (stages["simulate"].jobs, stages["chunk"].jobs, stages["train"].jobs) == (2, 1, 1)
    assert stages["train"].hours == stages["train"].evaluations == stages["train"].gpus == 0


def test_what_is_known_is_not_counted(small):
    (given,) = [plan(small, ["flowdas"], rate=1.0, latency=0, known={"drift": 5.0})["infer"]]
    assert given.hours == pytest.approx(given.evaluations * 5 / 3600)


def test_shards_are_at_most_blocks(small):
    """So that one number fits all experiments."""
    assert posterior_names(small, "bpf", "short", 8) == [
        f"posterior/short/bpf.{i}of2.zarr" for i in range(2)
    ]
    assert posterior_names(small, "bpf", "short", 1) == ["posterior/short/bpf.zarr"]


def test_methods_of_a_user_are_named(small):
    """They are in the jobs and in the storage."""
    mine = {"class": "./mine.py:Mine"}
    (small.base / "mine.py").write_text(
        "from priorflow.solvers.assimilation.forecast import Forecast as Mine\n"
    )
    drawn = small.methods["flowdas"].model_copy(update={"solver": mine})
    e = small.model_copy(update={"methods": {"mine": drawn}})
    infer = plan(e, ["mine"])["infer"]
    assert (infer.jobs, infer.evaluations, infer.hours) == (1, 0, 0)
    assert infer.gigabytes * 1e9 == pytest.approx(4 * 3 * 5 * 4)
    assert infer.unknown == {"mine"}


def test_markdown(small):
    """A table for each experiment, and a last one that adds them up."""
    one = {"simulate": Stage(2, 2, gigabytes=1.5), "infer": Stage(3, 3, 1e6, 0.25, 0.125, 2.0)}
    two = {"infer": Stage(1, 1, 2e6, 0.5, 0.5, 1.0, frozenset({"latent"}))}
    text = markdown({"a": one, "b": two})
    *_, last = text.split("## ")
    assert "| infer | 4 | 4 | 3e+06 | 0.75 | 0.5 | 3 |" in last
    assert "| all | 6 | 6 | 3e+06 | 0.75 | 0.5 | 4.5 |" in last
    assert "nothing is known of them: latent" in text


DIMENSIONS, STATES, MEMBERS, ENSEMBLE = 4, 6, 3, 5
NETWORK = {"class": "priorflow.priors.networks.mlp:ResidualMLP", "width": 8, "depth": 1}
INTERPOLANT = {"class": "priorflow.priors.interpolant:Interpolant"}
PRIORS = {
    "endpoint": INTERPOLANT,
    "drift": {**INTERPOLANT, "parametrisation": "drift"},
    "score": {"class": "priorflow.priors.score:WindowScore", "order": 2},
    "predictor": {"class": "priorflow.priors.predictor:Predictor"},
}
FILTERS = [
    ("forecast:Forecast", "endpoint", {}),
    ("bpf:BootstrapParticleFilter", "endpoint", {"particles": 7}),
    ("enkf:EnsembleKalmanFilter", "endpoint", {"ensemble": ENSEMBLE}),
    ("ensf:EnsembleScoreFilter", "endpoint", {"ensemble": ENSEMBLE, "steps": 2}),
    ("flowdas:FlowDAS", "drift", {"steps": 3, "zeta": 1e-3}),
    ("flowdas:FlowDAS", "drift", {"steps": 3, "zeta": 1e-3, "order": 1}),
    ("flowdas:FlowDAS", "endpoint", {"steps": 3, "zeta": 1e-3}),
    ("flowdas:FlowDAS", "endpoint", {"steps": 3, "zeta": 1e-3, "endpoint": "interpolant"}),
    ("flowdas_bridge:FlowDASBridge", "endpoint", {"steps": 2, "draws": 4, "particles": 7}),
    ("flowdas_bridge:FlowDASBridge", "endpoint", {"steps": 1, "draws": 4}),
    ("kalman_bridge:KalmanBridge", "endpoint", {"steps": 2, "ensemble": ENSEMBLE, "levels": 2}),
    ("conditioned_bridge:ConditionedBridge", "endpoint", {"steps": 3}),
    ("sda:SDA", "score", {"steps": 3, "corrections": 2}),
    ("sda:SDA", "score", {"steps": 2, "corrections": 0, "detach": True, "chunk": 2}),
    ("predictor:PredictorDA", "predictor", {"alpha": 1.0, "iterations": 2}),
]


@pytest.mark.parametrize(("name", "kind", "settings"), FILTERS)
def test_calls_of_assimilation(name, kind, settings):
    """What is planned is what a solver does, counted from outside."""
    system = Standardised(build({"class": "priorflow.systems.damped_spring:DampedSpring"}, BASE))
    operator = build(
        {
            "class": "priorflow.operators.pointwise:Components",
            "size": DIMENSIONS,
            "stride": 2,
            "noise_std": 0.5,
        },
        BASE,
    )
    torch.manual_seed(0)
    section = {"prior": PRIORS[kind], "network": NETWORK, "context": 1}
    prior = build_prior(section, system, BASE).requires_grad_(False)
    cost = Cost()
    cost.network(prior.network)
    solver = build({"class": ASSIMILATION + name, **settings}, BASE)
    rng = Streams(0, "test", cases=[0, 1])
    y = operator(system.initial(STATES, rng))
    initial = Known(system.initial(1, rng))
    solver(y, operator, StateSpace(initial, prior, None, None), rng, members=MEMBERS)
    planned = CALLS[ASSIMILATION + name](
        solver,
        Problem(STATES, MEMBERS, order=PRIORS[kind].get("order", 1), drift=kind == "drift"),
    )
    assert cost.counts["nfe"] == 2 * planned.forward
    assert cost.counts["nfe_backward"] == 2 * planned.backward


RESTORERS = [
    ("pinv:PseudoInverse", "denoiser", {}),
    ("tv:TotalVariation", "denoiser", {}),
    ("wavelet:Wavelet", "denoiser", {}),
    ("exact:ExactPosterior", "denoiser", {}),
    ("dps:DPS", "denoiser", {"steps": 4}),
    ("mcg:MCG", "denoiser", {"steps": 4}),
    ("ddnm:DDNM", "denoiser", {"steps": 4}),
    ("red_diff:REDDiff", "denoiser", {"steps": 4}),
    ("red_diff:REDDiff", "denoiser", {"steps": 9, "start": 5}),  # there are not so many levels
    ("ddrm:DDRM", "denoiser", {"steps": 4}),
    ("library:DDRM", "denoiser", {"steps": 4}),
    ("library:PGDM", "denoiser", {"steps": 4}),
    # of a network in a denoiser, as gradients of what the exact one gives count as through it
    ("library:MMPS", "learned", {"steps": 3, "iterations": 1}),
    ("library:MMPS", "learned", {"steps": 3, "iterations": 2, "solver": "cg"}),
    ("diffpir:DiffPIR", "denoiser", {"steps": 4}),
    ("admm_pnp:ADMMPnP", "denoiser", {"steps": 4}),
    ("dcdp:DCDP", "denoiser", {"iterations": 3, "descent": 2, "ddim_steps": 5}),
    ("dcdp:DCDP", "denoiser", {"iterations": 3, "descent": 2, "ddim_steps": 5, "final": False}),
    ("dcdp_cm:DCDPCM", "consistency", {"iterations": 3, "descent": 2}),
    ("dcdp_ldm:DCDPLDM", "latent", {"iterations": 3, "descent": 2, "ddim_steps": 2}),
    ("latent_dps:LatentDPS", "latent", {"steps": 4}),
    ("psld:PSLD", "latent", {"steps": 4}),
    ("resample:ReSample", "latent", {"steps": 40, "pixel_steps": 2, "latent_steps": 2}),
]
EXACT = {
    "denoiser": {"class": "priorflow.priors.mixture:ExactDenoiser"},
    "consistency": {"class": "priorflow.priors.mixture:ExactConsistency"},
    "latent": {"class": "priorflow.priors.exact_latent:ExactLatent", "rank": 8},
}


LEARNED = {
    "prior": {"class": "priorflow.priors.denoiser:LearnedDenoiser"},
    "network": {
        "class": "priorflow.priors.networks.unet:PeriodicUNet",
        "channels": [16],
        "blocks": 1,
        "periodic": False,
    },
    "context": 0,
}


@pytest.fixture(scope="module")
def pictures():
    """The mixture of digits, and a blur of its pictures."""
    experiment = load_experiment("gaussian_mixture", "smoke", BASE / "workflow/experiments")
    system = build(experiment.system, BASE)
    blur = {"class": "priorflow.operators.blur:GaussianBlur", "size": 3, "noise_std": 0.1}
    return system, build(blur, BASE, shape=tuple(system.shape))


@pytest.mark.parametrize(("name", "kind", "settings"), RESTORERS)
def test_calls_of_restoration(pictures, name, kind, settings):
    system, operator = pictures
    if kind == "consistency":  # which is exact for a single Gaussian
        first = {part: getattr(system, part)[:1] for part in ("means", "factors")}
        system = replace(system, weights=torch.ones(1), **first)
    if kind == "learned":
        prior = build_prior(LEARNED, system, BASE).requires_grad_(False)
    else:
        prior = build(EXACT[kind], BASE, system=system)
    cost = Cost()
    cost.network(getattr(prior, "network", prior))
    rng = Streams(0, "test", cases=[0, 1])
    y = operator(system.initial(1, rng)).squeeze(1)
    solver = build({"class": RESTORATION + name, **settings}, BASE)
    with torch.no_grad():
        solver(y, operator, prior, rng, members=MEMBERS)
    planned = CALLS[RESTORATION + name](solver, Problem(members=MEMBERS))
    assert cost.counts["nfe"] == 2 * planned.forward
    assert cost.counts["nfe_backward"] == 2 * planned.backward


def test_every_published_method_is_counted():
    """At all scales of all experiments of this repository."""
    for file in sorted((BASE / "workflow/experiments").glob("*.yaml")):
        e = load_experiment(str(file), "paper")
        for method in select_methods(e, "all"):
            assert e.methods[method].solver["class"] in CALLS
        assert set(drawn_figures(e, "all")) <= set(e.figures)


def test_a_simulator_is_no_network(small):
    assert calls_of(small, "bpf", "short").forward == 0
    assert operations(small, "simulator") == 0
