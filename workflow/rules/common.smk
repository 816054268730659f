# What the rules share: the configuration, the paths, the fingerprints of code, the resources.
import re
import sys
from functools import cache
from pathlib import Path

import yaml

from priorflow.cli import (
    drawn_figures,
    figure_methods,
    figure_models,
    model_code,
    posterior_names,
    shipped_weights,
    table_names,
)
from priorflow.components import BadInput
from priorflow.config import Config, load_config, load_experiment, select_methods
from priorflow.fingerprint import code_of, digest

PUBLISHED = Path("workflow/published")
OBSERVED = {"operator", "steps", "start", "rollout", "cases", "system"}


def read_configuration():
    """The configuration and the experiments; a mistake ends here, in one line."""
    try:
        given = load_config(Path("config.yaml"), config)
        loaded = [load_experiment(name, given.scale) for name in given.experiments]
        known = {method for e in loaded for method in e.methods}
        for method in [] if given.methods == "all" else given.methods:
            if method not in known:
                raise BadInput(
                    f"config.yaml: methods: {method!r} is unknown; there are: "
                    f"{', '.join(sorted(m for m in known if '.' not in m))}"
                )
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    return given, {e.name: e for e in loaded}


CONFIG, EXPERIMENTS = read_configuration()
METHODS = {name: select_methods(e, CONFIG.methods) for name, e in EXPERIMENTS.items()}
ROOT = f"{CONFIG.results}/{CONFIG.scale}"
TREE = f"{ROOT}/{{experiment}}"
RUN_CONFIG = f"{ROOT}/config.yaml"


wildcard_constraints:
    experiment="|".join(map(re.escape, EXPERIMENTS)),
    split="train|valid|test",
    tree="(ablations/)?",
    task="[A-Za-z0-9_]+",
    model="[A-Za-z0-9_]+",
    method="[A-Za-z0-9_.+-]+?",
    part=r"(\.\d+of\d+)?",
    shard=r"\d+",
    figure="[A-Za-z0-9_]+",


onstart:
    # the jobs read what the head read, overrides of the command line included
    Path(RUN_CONFIG).parent.mkdir(parents=True, exist_ok=True)
    Path(RUN_CONFIG).write_text(
        yaml.safe_dump(CONFIG.model_dump(), sort_keys=False)
    )


def experiment_of(wildcards):
    return EXPERIMENTS[wildcards.experiment]


def command(stage):
    """The beginning of the shell command of a stage."""
    return f"priorflow {stage} {{wildcards.experiment}} --config {RUN_CONFIG}"


def logged(stage, name):
    """Paths of a rule's log and benchmark."""
    return (f"{ROOT}/logs/{{experiment}}/{stage}/{name}.log",)


def timed(stage, name):
    return f"{ROOT}/benchmarks/{{experiment}}/{stage}/{name}.tsv"


COMPUTING = ("torch", "numpy", "xarray", "zarr")


def code(name, *targets, libraries=COMPUTING):
    """A fingerprint of what a rule runs."""
    return code_of(targets, EXPERIMENTS[name].base, libraries)


# Snakemake keeps the parameters of a job that failed, so that they alone do not tell whether what
# hangs on it is out of date. Every rule therefore has the key of all that lies upstream of it.


@cache
def data_key(name):
    e = EXPERIMENTS[name]
    return digest(
        [
            e.source,
            e.system,
            e.data.model_dump(exclude={"shards", "chunks"}),
            CONFIG.seed,
            code(name, e.system["class"], "priorflow.stages.simulate:simulate"),
            code(name, "priorflow.stages.chunk:chunk"),
        ]
    )


@cache
def task_key(name, task):
    e, t = EXPERIMENTS[name], EXPERIMENTS[name].tasks[task]
    targets = (
        t.operator["class"],
        e.system["class"],
        "priorflow.stages.observe:observe",
    )
    observed = t.model_dump(include=OBSERVED)
    return digest([data_key(name), observed, e.context, code(name, *targets)])


@cache
def model_key(name, model):
    e = EXPERIMENTS[name]
    if not e.models[model].learned:
        return digest(e.models[model].prior)
    return digest([e.model_spec(model, CONFIG.seed), model_code(e, model)])


@cache
def posterior_key(name, method, task):
    e = EXPERIMENTS[name]
    m = e.methods[method]
    targets = [m.solver["class"], e.tasks[task].operator["class"], e.system["class"]]
    targets += e.model_classes(m.model)
    run = e.run(method, task, CONFIG.seed).model_dump()
    own = code(name, *targets, "priorflow.stages.infer:infer")
    return digest([task_key(name, task), model_key(name, m.model), run, own])


@cache
def assessment_key(name, model):
    e = EXPERIMENTS[name]
    settings = e.assessment.model_dump()
    targets = ["priorflow.stages.assess:assess", e.system["class"]]
    targets += e.model_classes(model)
    own = code(name, *targets, libraries=(*COMPUTING, "azula"))
    return digest([data_key(name), model_key(name, model), settings, own])


@cache
def metrics_key(name, methods):
    e = EXPERIMENTS[name]
    keys = [
        posterior_key(name, other, task)
        for m in methods
        for task in e.tasks_of(m)
        for other in (m, *e.references(m))
    ]
    targets = [spec["class"] for spec in e.metrics.values()]
    targets += [t.operator["class"] for t in e.tasks.values()] + [e.system["class"]]
    libraries = ("numpy", "pandas", "xarray", "scores", "pot")
    own = code(
        name, *targets, "priorflow.stages.evaluate:evaluate", libraries=libraries
    )
    return digest([keys, e.metrics, own])


def posteriors(name, method, task):
    """The stores of a posterior: one per shard."""
    names = posterior_names(EXPERIMENTS[name], method, task, CONFIG.shards)
    return [f"{ROOT}/{name}/{path}" for path in names]


def metric_tables(name, methods):
    """The tables of metrics of methods: one per method, or per ablation."""
    return [f"{ROOT}/{name}/{path}" for path in table_names(EXPERIMENTS[name], methods)]


def weights_of(name, model):
    """The weights that a prior needs: none for a simulator."""
    learned = EXPERIMENTS[name].models[model].learned
    return [f"{ROOT}/{name}/models/{model}/weights.safetensors"] if learned else []


def shipped(name, model):
    """The folder of shipped weights of a model, if their digest matches; else None."""
    return shipped_weights(EXPERIMENTS[name], model, CONFIG)


def products(name):
    """The tables and figures of an experiment."""
    e = EXPERIMENTS[name]
    ablations = {e.methods[m].ablation for m in METHODS[name]} - {""}
    figures = drawn_figures(e, CONFIG.methods)
    return [
        f"{ROOT}/{name}/tables/{name}.csv",
        *(
            f"{ROOT}/{name}/ablations/tables/{ablation}.csv"
            for ablation in sorted(ablations)
        ),
        *(f"{ROOT}/{name}/figures/{figure}.png" for figure in figures),
    ]


def gpu(wildcards):
    return int(CONFIG.device.startswith("cuda"))
