"""Plan: what a run would take, from its configuration alone: jobs, evaluations, GPU time, storage.

Jobs and bytes follow from the configuration. Network evaluations follow from the settings of every
solver (`CALLS`). Seconds do not: an evaluation takes its floating-point operations, counted on the
network without its numbers, over a rate that is assumed, and a call of the network no less than a
latency that is assumed, too:

    seconds of a block = max(calls * latency, states * operations / rate)

A gradient through a network counts as one evaluation more, a training example as three.
"""

__all__ = ["CALLS", "Calls", "Problem", "Stage", "calls_of", "markdown", "operations", "plan"]

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from priorflow.components import build

if TYPE_CHECKING:
    from priorflow.config import Experiment

NUMBER = 4  # bytes of a float32
WEIGHT = 2  # bytes of a parameter that is kept
EXAMPLE = 3  # evaluations of a training example: one forward, two backward
SIMULATOR = "priorflow.priors.simulator:Simulator"
PUBLIC = ("priorflow.priors.adm:", "priorflow.priors.public:")
STAGES = (
    *("storms", "simulate", "chunk", "observe", "train", "assess"),
    *("infer", "evaluate", "tables", "figures"),
)


@dataclass(frozen=True)
class Stage:
    """What one stage of an experiment takes.

    Attributes:
        jobs: Jobs.
        gpus: Those of them that ask for a GPU, if the run does.
        evaluations: Network evaluations of single states, gradients included.
        hours: GPU hours of these.
        longest: Hours of the longest job.
        gigabytes: What is stored, before compression; 1e9 bytes.
        unknown: Models whose operations are not known, and methods whose evaluations are not: what
            these take is not counted.
    """

    jobs: int
    gpus: int = 0
    evaluations: float = 0.0
    hours: float = 0.0
    longest: float = 0.0
    gigabytes: float = 0.0
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Problem:
    """What the number of network calls depends on, apart from the solver.

    Attributes:
        states: Observed states of a case; 1 for pictures.
        members: Posterior samples of a case.
        context: Past states that the prior sees.
        order: Neighbours on either side in a window of a score.
        drift: Whether the network is the drift of an interpolant.
        noisy: Whether the observations have noise.
    """

    states: int = 1
    members: int = 1
    context: int = 1
    order: int = 1
    drift: bool = False
    noisy: bool = True


@dataclass(frozen=True)
class Calls:
    """Evaluations of the prior.

    Attributes:
        forward: States of one case that pass through the network.
        backward: States that a gradient passes through.
        batches: Calls and gradients one after the other, each of all cases of a block.
    """

    forward: float = 0
    backward: float = 0
    batches: float = 0


def _forecast(solver: Any, p: Problem) -> Calls:
    """Ensembles that are propagated by the transition's own sampler."""
    from priorflow.priors.interpolant import StochasticInterpolant

    steps = inspect.signature(StochasticInterpolant.sample).parameters["steps"].default
    size = getattr(solver, "particles", None) or getattr(solver, "ensemble", None) or p.members
    return Calls(size * p.states * steps, 0, p.states * steps)


def _flowdas(solver: Any, p: Problem) -> Calls:
    second = solver.endpoint == "sde" and solver.order == 2 and p.drift
    steps = solver.steps * p.states * (2 if second else 1)
    guided = steps - (p.states if solver.endpoint == "interpolant" else 0)
    return Calls(steps * p.members, guided * p.members, steps + guided)


def _flowdas_bridge(solver: Any, p: Problem) -> Calls:
    steps = solver.steps * p.states
    return Calls((solver.particles or p.members) * steps, 0, steps)


def _kalman_bridge(solver: Any, p: Problem) -> Calls:
    """Members with one known past share the first call; the last state is purified for those alone
    that are reported.
    """
    size, steps = solver.ensemble or p.members, p.states * solver.steps
    purified = size * (p.states - 1) + p.members
    forward = size * (steps - 1) + 1 + purified * solver.levels
    return Calls(forward, 0, p.states * (solver.steps + solver.levels))


def _conditioned_bridge(solver: Any, p: Problem) -> Calls:
    return Calls(p.members * p.states * solver.steps, 0, p.states * solver.steps)


def _sda(solver: Any, p: Problem) -> Calls:
    """All windows of a trajectory at once."""
    windows = p.context + p.states - 2 * p.order
    steps = solver.steps * (1 + solver.corrections)
    forward = windows * p.members * steps
    chunks = math.ceil(p.members / solver.chunk) if solver.chunk else 1
    detached = 0 if solver.detach else 1
    return Calls(forward, forward * detached, steps * chunks * (1 + detached))


def _predictor(solver: Any, p: Problem) -> Calls:
    """One prediction for all members."""
    return Calls(p.states, 0, p.states)


def _guided(solver: Any, p: Problem) -> Calls:
    """Every step has a gradient through the network."""
    steps = _levels(solver)
    return Calls(steps * p.members, steps * p.members, 2 * steps)


def _unguided(solver: Any, p: Problem) -> Calls:
    steps = _levels(solver)
    return Calls(steps * p.members, 0, steps)


def _diffpir(solver: Any, p: Problem) -> Calls:
    from priorflow.solvers.restoration.diffpir import quadratic

    steps = len(quadratic(solver.start, solver.steps))
    return Calls(steps * p.members, 0, steps)


def _admm(solver: Any, p: Problem) -> Calls:
    """One estimate for all members."""
    return Calls(solver.steps, 0, solver.steps)


def _mmps(solver: Any, p: Problem) -> Calls:
    """An iteration of the linear solver takes a gradient, and what it finds one more."""
    forward, backward = solver.steps, solver.steps * (solver.iterations + 1)
    return Calls(forward * p.members, backward * p.members, forward + backward)


def _pgdm(solver: Any, p: Problem) -> Calls:
    return Calls(solver.steps * p.members, solver.steps * p.members, 2 * solver.steps)


def _dcdp(solver: Any, p: Problem) -> Calls:
    from priorflow.solvers.restoration.dcdp import schedule
    from priorflow.solvers.restoration.ddpm import spaced

    levels = schedule(solver)
    final = p.noisy if solver.final is None else solver.final
    levels = levels if final else levels[:-1]
    ddim = getattr(solver, "ddim_steps", 1)
    steps = sum(len(spaced(max(t, 2) - 1, min(ddim, max(t, 2)))) for t in levels)
    return Calls(steps * p.members, 0, steps)


def _resample(solver: Any, p: Problem) -> Calls:
    from priorflow.solvers.restoration.common import levels

    path = levels(solver.start, solver.steps)
    left = [len(path) - 1 - i for i, (t, _) in enumerate(path) if t <= solver.start_resample]
    estimates = [min(n, solver.ddim_steps) for n in left if n > 0 and n % solver.interval == 0]
    forward = len(path) + sum(estimates)
    return Calls(forward * p.members, len(path) * p.members, forward + len(path))


def _sitcom(solver: Any, p: Problem) -> Calls:
    """At most: a level is left as soon as all images fit."""
    steps = _levels(solver) * solver.descent
    return Calls(steps * p.members, steps * p.members, 2 * steps)


def _none(solver: Any, p: Problem) -> Calls:
    return Calls()


def _levels(solver: Any) -> int:
    from priorflow.solvers.restoration.ddpm import spaced

    return len(spaced(solver.start, solver.steps))


ASSIMILATION: Mapping[str, Callable[[Any, Problem], Calls]] = {
    "forecast:Forecast": _forecast,
    "bpf:BootstrapParticleFilter": _forecast,
    "enkf:EnsembleKalmanFilter": _forecast,
    "ensf:EnsembleScoreFilter": _forecast,
    "kalman:KalmanFilter": _none,
    "interpolation:Interpolation": _none,
    "persistence:Persistence": _none,
    "extrapolation:Extrapolation": _none,
    "steps:STEPS": _none,
    "curl:Curl": _none,
    "flowdas:FlowDAS": _flowdas,
    "flowdas_bridge:FlowDASBridge": _flowdas_bridge,
    "kalman_bridge:KalmanBridge": _kalman_bridge,
    "conditioned_bridge:ConditionedBridge": _conditioned_bridge,
    "sda:SDA": _sda,
    "predictor:PredictorDA": _predictor,
}
RESTORATION: Mapping[str, Callable[[Any, Problem], Calls]] = {
    "exact:ExactPosterior": _none,
    "pinv:PseudoInverse": _none,
    "tv:TotalVariation": _none,
    "wavelet:Wavelet": _none,
    "dps:DPS": _guided,
    "mcg:MCG": _guided,
    "latent_dps:LatentDPS": _guided,
    "psld:PSLD": _guided,
    "ddnm:DDNM": _unguided,
    "red_diff:REDDiff": _unguided,
    "ddrm:DDRM": _unguided,
    "library:DDRM": _unguided,
    "library:PGDM": _pgdm,
    "library:MMPS": _mmps,
    "diffpir:DiffPIR": _diffpir,
    "admm_pnp:ADMMPnP": _admm,
    "dcdp:DCDP": _dcdp,
    "dcdp_cm:DCDPCM": _dcdp,
    "dcdp_ldm:DCDPLDM": _dcdp,
    "resample:ReSample": _resample,
    "sitcom:SITCOM": _sitcom,
}
CALLS = {
    f"priorflow.solvers.{family}.{name}": function
    for family, functions in (("assimilation", ASSIMILATION), ("restoration", RESTORATION))
    for name, function in functions.items()
}
PREVIOUS: Mapping[str, Callable[[Any], bool]] = {  # whose members come from other ones
    "bpf:BootstrapParticleFilter": lambda solver: True,
    "kalman:KalmanFilter": lambda solver: True,
    "flowdas_bridge:FlowDASBridge": lambda solver: True,
    "enkf:EnsembleKalmanFilter": lambda solver: solver.variant == "square_root",
    "ensf:EnsembleScoreFilter": lambda solver: solver.score == "ensemble",
}


def plan(
    e: "Experiment",
    methods: Sequence[str],
    *,
    shipped: Collection[str] = (),
    assessed: Collection[str] = (),
    figures: int = 0,
    shards: int = 1,
    rate: float = 30e12,
    latency: float = 0.01,
    known: Mapping[str, float] | None = None,
) -> dict[str, Stage]:
    """What every stage of an experiment takes.

    Args:
        e: The experiment, at a scale.
        methods: The methods of the run, with those of the ablations.
        shipped: The models whose weights are only put in place.
        assessed: The models that are assessed.
        figures: The number of figures.
        shards: Of every method and task, at most one per block of cases.
        rate: Floating-point operations that a GPU does in a second.
        latency: Seconds that a call of a network takes at least.
        known: Operations of an evaluation of models that are public, by name.
    """
    learned = _used(e, methods)
    trained = [model for model in learned if model not in shipped]
    splits = ["test", *(("train", "valid") if trained else ())]
    parts = len(splits) * e.data.shards
    trajectory = e.data.steps * math.prod(_shape(e))
    simulated = _gigabytes(len(e.data.rows(split)) * trajectory for split in splits)
    tasks = {task for m in methods for task in e.tasks_of(m)}
    ablations = {e.methods[m].ablation for m in methods} - {""}
    judged = {e.methods[m].ablation or m for m in methods}
    cost = {
        model: (known or {}).get(model, operations(e, model))
        for model in {e.methods[m].model for m in methods} | set(learned)
    }
    jobs = {
        "storms": Stage(int(e.system.get("source") == "storms")),
        "simulate": Stage(parts, gigabytes=simulated),
        "chunk": Stage(len(splits), gigabytes=simulated),
        "observe": Stage(len(tasks), gigabytes=_gigabytes(_observed(e, task) for task in tasks)),
        "train": _train(e, learned, trained, cost, rate, latency),
        "assess": Stage(len(assessed), len(assessed)),
        "infer": _infer(e, methods, shards, cost, rate, latency),
        "evaluate": Stage(len(judged)),
        "tables": Stage(1 + len(ablations)),
        "figures": Stage(figures),
    }
    return {name: stage for name in STAGES if (stage := jobs[name]).jobs}


def _gigabytes(numbers: Iterable[int], size: int = NUMBER) -> float:
    return sum(numbers) * size / 1e9


def _used(e: "Experiment", methods: Iterable[str]) -> list[str]:
    """The models with networks that methods need, with those that these are built on."""
    used = []
    for method in methods:
        model = e.methods[method].model
        while model is not None and e.models[model].learned:
            used.append(model)
            model = e.models[model].parent
    return list(dict.fromkeys(used))


def _observed(e: "Experiment", task: str) -> int:
    """Numbers in the observations of a task: y, the truth, and the past."""
    import torch

    from priorflow.stages.observe import at, operator_of
    from priorflow.systems.base import Standardised

    t, system = e.tasks[task], Standardised(build(e.system_of(task), e.base))
    operator = at(operator_of(t.operator, system, e.base), [0])
    size, seen = math.prod(system.shape), operator(torch.zeros(1, 1, *system.shape)).numel()
    if t.initial == "none":
        return t.cases * (size + seen)
    return t.cases * (t.steps * (size + seen) + e.context * size)


def _train(
    e: "Experiment",
    learned: Sequence[str],
    trained: Collection[str],
    cost: Mapping[str, float | None],
    rate: float,
    latency: float,
) -> Stage:
    evaluations = hours = longest = 0.0
    for model in trained:
        training = e.models[model].training
        examples = training.batch * EXAMPLE
        evaluations += training.steps * examples
        seconds = max(EXAMPLE * latency * training.devices, examples * cost[model] / rate)
        hours += training.steps * seconds / 3600
        longest = max(longest, training.steps * seconds / training.devices / 3600)
    stored = _gigabytes((parameters(e, model) for model in learned), WEIGHT)
    return Stage(len(learned), len(trained), evaluations, hours, longest, stored)


def _infer(
    e: "Experiment",
    methods: Iterable[str],
    shards: int,
    cost: Mapping[str, float | None],
    rate: float,
    latency: float,
) -> Stage:
    jobs, evaluations, hours, longest, numbers, unknown = 0, 0.0, 0.0, 0.0, 0, set()
    for method in methods:
        model = e.methods[method].model
        for task in e.tasks_of(method):
            run = e.run(method, task, seed=0)
            parts = run.parts(shards)
            jobs += parts
            numbers += run.cases * run.members * _kept(e, method, task)
            calls = calls_of(e, method, task)
            if calls is None:
                unknown.add(method)
                continue
            states = run.blocks * run.block * (calls.forward + calls.backward)
            evaluations += states
            if calls.batches and cost[model] is None:
                unknown.add(model)
                continue
            seconds = max(run.blocks * calls.batches * latency, states * (cost[model] or 0) / rate)
            hours += seconds / 3600
            share = math.ceil(run.blocks / parts) / run.blocks
            longest = max(longest, share * seconds / 3600)
    stored = _gigabytes([numbers])
    return Stage(jobs, jobs, evaluations, hours, longest, stored, frozenset(unknown))


def calls_of(e: "Experiment", method: str, task: str) -> Calls | None:
    """How often a method calls its prior, for one case of a task; None if `CALLS` does not say."""
    run = e.run(method, task, seed=0)
    model, t = e.models[run.model], e.tasks[task]
    if model.prior["class"] == SIMULATOR:
        return Calls()
    problem = Problem(
        states=1 if t.initial == "none" else t.steps,
        members=run.members,
        context=model.context,
        order=model.prior.get("order", 1),
        drift=model.prior.get("parametrisation") == "drift",
        noisy=run.operator["noise_std"] > 0,
    )
    count = CALLS.get(run.solver["class"])
    return count and count(build(run.solver, e.base), problem)


def _kept(e: "Experiment", method: str, task: str) -> int:
    """Numbers that are stored of one member of a case."""
    run, t = e.run(method, task, seed=0), e.tasks[task]
    shape = build(run.system, e.base).shape
    size = math.prod(shape) * (1 if t.initial == "none" else t.steps)
    previous = PREVIOUS.get(run.solver["class"].rpartition(".")[2], lambda solver: False)
    return size * (2 if previous(build(run.solver, e.base)) else 1)


def operations(e: "Experiment", model: str) -> float | None:
    """Floating-point operations of one evaluation; 0 for closed forms, None where unknown.

    Those of matrix products, convolutions and attention, of a network that has shapes, but no
    numbers. Fourier transforms and what is done element by element are not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    prior = _empty(e, model)
    if prior is None:
        return None if _public(e, model) else 0.0
    shape = prior.shape if not hasattr(prior, "latent_shape") else _shape(e)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        history = torch.zeros(1, 1, e.models[model].context, *shape)
        if hasattr(prior, "encode"):
            prior.decode(prior.encode(torch.zeros(1, 1, *shape)))
        elif hasattr(prior, "predict"):
            prior.predict(history)
        elif hasattr(prior, "endpoint"):
            prior.endpoint(torch.zeros(1, 1, *shape), 0.5, history)
        elif hasattr(prior, "epsilon") and callable(prior.epsilon):
            prior.epsilon(torch.zeros(1, 1, prior.window, *shape), 0.5)
        else:
            prior(torch.zeros(1, *shape), torch.ones(1))
    return float(counter.get_total_flops())


def parameters(e: "Experiment", model: str) -> int:
    """The number of parameters of a model that is learned, without those it is built on."""
    prior = _empty(e, model)
    return sum(p.numel() for p in prior.parameters() if p.requires_grad)


def _empty(e: "Experiment", model: str) -> Any:
    """A prior whose parameters have shapes, but no numbers; None if it has no network."""
    import physicsnemo.models  # noqa: F401 - it cannot be imported where tensors have no numbers
    import torch

    from priorflow.stages.models import build_prior
    from priorflow.systems.base import Standardised

    section = e.model_section(model)
    if section["prior"]["class"] == f"{PUBLIC[0]}ADM":
        return _adm(section["prior"], _shape(e))
    if section["network"] is None:
        return None
    system = Standardised(build(e.system, e.base))
    with torch.device("meta"):  # large networks take gigabytes, and minutes to initialise
        return build_prior(section, system, e.base).to("meta")


def _adm(spec: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    """The public network, as its card describes it, without a download."""
    import torch
    from azula.plugins import adm
    from azula.plugins.utils import load_cards

    from priorflow.priors.adm import ADM, Noise

    default = inspect.signature(ADM).parameters["name"].default
    config = load_cards(adm)[spec.get("name", default)].config
    with torch.device("meta"):
        backbone = adm.make_model(**{**config, **spec.get("architecture", {})}).backbone
        return Noise(backbone, shape)


def _public(e: "Experiment", model: str) -> bool:
    return e.models[model].prior["class"].startswith(PUBLIC)


def _shape(e: "Experiment") -> tuple[int, ...]:
    return tuple(build(e.system, e.base).shape)


def markdown(plans: Mapping[str, Mapping[str, Stage]]) -> str:
    """One table for each experiment, and one for all of them."""
    parts = []
    for name, stages in plans.items():
        parts.append(f"\n## {name}\n\n{_table(stages)}")
        if unknown := sorted(set().union(*(stage.unknown for stage in stages.values()))):
            names = ", ".join(unknown)
            parts.append(f"\nNot in the hours, as nothing is known of them: {names}.\n")
    if len(plans) > 1:
        whole = {
            name: _sum([stages[name] for stages in plans.values() if name in stages])
            for name in STAGES
            if any(name in stages for stages in plans.values())
        }
        parts.append(f"\n## all\n\n{_table(whole)}")
    return "".join(parts)


def _table(stages: Mapping[str, Stage]) -> str:
    lines = [
        "| stage | jobs | of them on GPUs | evaluations | GPU hours | longest job, h | GB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, s in {**stages, "all": _sum(stages.values())}.items():
        numbers = (s.evaluations, s.hours, s.longest, s.gigabytes)
        shown = (f"{number:.3g}" if number else "" for number in numbers)
        lines.append(f"| {name} | {s.jobs} | {s.gpus or ''} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _sum(stages: Iterable[Stage]) -> Stage:
    stages = list(stages)
    summed = ("jobs", "gpus", "evaluations", "hours", "gigabytes")
    return Stage(
        **{name: sum(getattr(s, name) for s in stages) for name in summed},
        longest=max(s.longest for s in stages),
        unknown=frozenset().union(*(s.unknown for s in stages)),
    )
