"""The command line: one sub-command per stage, run by the rules and by people."""

__all__ = ["app", "main"]

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from priorflow.components import BadInput
from priorflow.config import Config, Experiment, load_config, load_experiment, select_methods
from priorflow.fingerprint import code_of, digest

app = typer.Typer(
    help="Inverse problems with generative priors: the stages of the workflow, one by one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A name or a YAML file.")]
ConfigFile = Annotated[Path, typer.Option("--config", help="The configuration of the run.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value that replaces one of the config.")
]
Output = Annotated[Path, typer.Option(help="What to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
CONFIG = Path("config.yaml")
PRETRAINED = Path("workflow/pretrained")
# M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of malloc.h, in bytes
MALLOC = {-1: 2**31 - 1, -2: 2**26, -3: 2**30}


def _config(config: Path, overrides: list[str] | None) -> Config:
    return load_config(config, dict(item.partition("=")[::2] for item in overrides or []))


def _load(name: str, config: Path, overrides: list[str] | None) -> tuple[Config, Experiment]:
    loaded = _config(config, overrides)
    if name.isidentifier() and name not in loaded.experiments:
        # a rule knows an experiment by its name; its file stands in the configuration
        for path in (p for p in loaded.experiments if not p.isidentifier()):
            e = load_experiment(path, loaded.scale)
            if e.name == name:
                return loaded, e
    return loaded, load_experiment(name, loaded.scale)


def _fresh(output: Path, overwrite: bool) -> Path:
    if output.exists() and not overwrite:
        raise BadInput(f"{output}: exists already; --overwrite replaces it")
    return output


def _choose(kind: str, name: str, allowed: Any) -> str:
    if name not in allowed:
        raise BadInput(f"--{kind}: {name!r} is unknown; there are: {', '.join(allowed)}")
    return name


@app.command()
def storms(
    experiment: Name,
    output: Annotated[Path, typer.Option(help="The folder to write; finished files are kept.")],
    processes: Annotated[int, typer.Option(help="How many to make at a time.")] = 1,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
) -> None:
    """Make the synthetic storms of an experiment, in the files of SEVIR."""
    from priorflow.components import build
    from priorflow.stages.progress import track
    from priorflow.systems.storms import Storms, write_storms

    c, e = _load(experiment, config, overrides)
    system = build(e.system, e.base)
    if getattr(system, "source", "") != "storms":
        raise BadInput(f"{e.name}: system.source: not `storms`, there is nothing to make")
    law = Storms(size=system.pixels)
    progress = partial(track, description="files of storms")
    write_storms(output, system.storms, c.seed, law, processes, progress)


@app.command()
def simulate(
    experiment: Name,
    output: Output,
    archive: Annotated[Path | None, typer.Option(help="Folder of synthetic storms.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    shard: Annotated[int, typer.Option(help="Which part, from 0.")] = 0,
    shards: Annotated[int, typer.Option(help="Of how many.")] = 1,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Simulate trajectories of the experiment's system, in natural units."""
    from priorflow.stages.simulate import part, rows_of, simulate

    c, e = _load(experiment, config, overrides)
    _choose("split", split, ("train", "valid", "test"))
    system = e.system if archive is None else {**e.system, "folder": str(archive)}
    simulate(
        system,
        part(rows_of(system, e.data.rows(split), split, e.base), shard, shards),
        _fresh(output, overwrite),
        steps=e.data.steps,
        burn_in=e.data.burn_in,
        names=(e.source, "simulate"),
        seed=c.seed,
        base=e.base,
        workers=c.workers,
        dask=c.dask,
    )


@app.command()
def chunk(
    experiment: Name,
    shards: Annotated[list[Path], typer.Argument(help="Stores of the simulate stage.")],
    output: Output,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Join simulated shards to one standardised, rechunked, compressed Zarr store."""
    from priorflow.stages.chunk import chunk

    _, e = _load(experiment, config, overrides)
    chunk(shards, _fresh(output, overwrite), system=e.system, chunks=e.data.chunks, base=e.base)


def _observe(c: Config, e: Experiment, task: str, data: Path, split: str, cases: int) -> Any:
    from priorflow.stages.observe import observe

    t = e.tasks[task]
    return observe(
        data,
        operator=t.operator,
        system=e.system_of(task),
        cases=cases,
        steps=t.steps,
        start=t.start,
        context=e.context,
        rollout=t.rollout,
        past=t.initial != "none",
        names=(e.name, task, split),
        seed=c.seed,
        base=e.base,
    )


@app.command()
def observe(
    experiment: Name,
    task: Annotated[str, typer.Option(help="The task.")],
    data: Annotated[Path, typer.Option(help="The store of the test split.")],
    output: Output,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Make the observations of a task, which all methods share."""
    from priorflow import store

    c, e = _load(experiment, config, overrides)
    _choose("task", task, e.tasks)
    store.write(_observe(c, e, task, data, "test", e.tasks[task].cases), _fresh(output, overwrite))


@app.command()
def train(
    experiment: Name,
    model: Annotated[str, typer.Option(help="The model.")],
    output: Output,
    train_data: Annotated[Path | None, typer.Option("--train", help="Training store.")] = None,
    valid_data: Annotated[Path | None, typer.Option("--valid", help="Validation store.")] = None,
    parent: Annotated[
        Path | None, typer.Option(help="weights.safetensors of the model that it is built on.")
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="Folder of shipped weights to use instead of training.")
    ] = None,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
) -> None:
    """Train one network, or put its shipped weights in place; goes on where it was killed."""
    c, e = _load(experiment, config, overrides)
    _choose("model", model, [name for name, m in e.models.items() if m.learned])
    spec, code = e.model_spec(model, c.seed), model_code(e, model)
    if pretrained is not None:
        from priorflow.stages.pretrained import use_pretrained

        use_pretrained(pretrained, output, digest=digest(spec), code=code)
        return
    if train_data is None or valid_data is None:
        raise BadInput("--train and --valid: both stores are needed to train")
    if e.models[model].parent is not None and parent is None:
        raise BadInput(f"--parent: {model} is built on {e.models[model].parent}")
    from priorflow.stages.train import train

    full = spec | {"training": e.models[model].training.model_dump(mode="json")}
    train(
        train_data,
        valid_data,
        output,
        full,
        parent=parent,
        name=model,
        device=c.device,
        digest=digest(spec),
        code=code,
        base=e.base,
    )


@app.command()
def assess(
    experiment: Name,
    model: Annotated[str, typer.Option(help="The model, a denoiser of pictures.")],
    data: Annotated[Path, typer.Option(help="The store of the test split.")],
    output: Output,
    weights: Annotated[Path | None, typer.Option(help="weights.safetensors of the model.")] = None,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Assess a denoiser: its errors at every level of noise, and pictures drawn from it."""
    import torch

    from priorflow.stages.assess import assess

    c, e = _load(experiment, config, overrides)
    _choose("model", model, e.models)
    if e.models[model].learned and weights is None:
        raise BadInput(f"--weights: {model} is a network")
    torch.set_num_threads(c.threads)
    assess(
        data,
        _fresh(output, overwrite),
        e.model_section(model),
        weights,
        system=e.system,
        rows=e.data.rows("train"),
        settings=e.assessment.model_dump(),
        experiment=e.source,
        name=model,
        seed=c.seed,
        device=c.device,
        base=e.base,
    )


@app.command()
def infer(
    experiment: Name,
    task: Annotated[str, typer.Option(help="The task.")],
    method: Annotated[str, typer.Option(help="The method.")],
    observations: Annotated[Path, typer.Option(help="The store of the task's observations.")],
    output: Output,
    weights: Annotated[Path | None, typer.Option(help="weights.safetensors of its model.")] = None,
    shard: Annotated[int, typer.Option(help="Which part of the cases, from 0.")] = 0,
    shards: Annotated[int, typer.Option(help="Of how many.")] = 1,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw posterior samples with one method on one task."""
    import torch

    from priorflow.stages.infer import infer

    c, e = _load(experiment, config, overrides)
    _choose("task", task, e.tasks)
    _choose("method", method, e.methods)
    model = e.methods[method].model
    if e.models[model].learned and weights is None:
        raise BadInput(f"--weights: {method} uses the network {model}")
    torch.set_num_threads(c.threads)
    infer(
        observations,
        _fresh(output, overwrite),
        e.run(method, task, c.seed).model_dump(),
        e.model_section(model),
        weights,
        shard=shard,
        shards=shards,
        device=c.device,
        base=e.base,
    )


@app.command()
def evaluate(
    experiment: Name,
    method: Annotated[list[str], typer.Option(help="The methods, in one table.")],
    results: Annotated[Path, typer.Option(help="Folder with observations/ and posterior/.")],
    output: Output,
    timing: Annotated[Path, typer.Option(help="Where the seconds go.")],
    shards: Annotated[int, typer.Option(help="Parts of each posterior.")] = 1,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
) -> None:
    """Judge methods on all their tasks: a tidy Parquet table, a number per case."""
    from priorflow.stages.evaluate import evaluate

    c, e = _load(experiment, config, overrides)
    runs = [(_choose("method", m, e.methods), task) for m in method for task in e.tasks_of(m)]
    evaluate(
        [
            (
                e.run(m, task, c.seed).model_dump(),
                results / "observations" / f"{task}.zarr",
                [results / name for name in posterior_names(e, m, task, shards)],
                {
                    other: [results / name for name in posterior_names(e, other, task, shards)]
                    for other in e.references(m)
                },
            )
            for m, task in runs
        ],
        e.metrics,
        output,
        timing,
        e.base,
        dask=c.dask,
        workers=c.workers,
    )


@app.command()
def tables(
    experiment: Name,
    metrics: Annotated[list[Path], typer.Argument(help="Parquet files of the evaluate stage.")],
    output: Annotated[Path, typer.Option(help="The CSV; md, tex and html lie beside it.")],
    published: Annotated[Path | None, typer.Option(help="CSV of published values.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder with observations/.")] = None,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
) -> None:
    """Join metrics and published values to a table, as CSV, Markdown, LaTeX and HTML."""
    import pandas as pd

    from priorflow import store
    from priorflow.stages import tables as stage

    _, e = _load(experiment, config, overrides)
    measured = pd.concat([pd.read_parquet(file) for file in metrics], ignore_index=True)
    seen = {} if results is None else {t: f"observations/{t}.zarr" for t in set(measured.task)}
    table = stage.build(
        measured,
        None if published is None else stage.read_published(published),
        floor=e.floor,
        limit=e.limit or None,
        references=e.references(""),
        notes=e.notes(),
        labels=e.labels(),
        operators={task: store.read(results / name).attrs for task, name in seen.items()},
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    stage.write_csv(table, output)
    stage.write_markdown(table, output.with_suffix(".md"))
    stage.write_latex(table, output.with_suffix(".tex"))
    stage.write_html(table, output.with_suffix(".html"))


@app.command()
def figures(
    experiment: Name,
    figure: Annotated[str, typer.Option(help="The figure.")],
    results: Annotated[Path, typer.Option(help="The experiment's folder of results.")],
    output: Annotated[Path, typer.Option(help="The PNG; the SVG lies beside it.")],
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
) -> None:
    """Draw one figure."""
    from priorflow.components import load
    from priorflow.stages.figures.base import Results, save

    c, e = _load(experiment, config, overrides)
    _choose("figure", figure, e.figures)
    f = e.figures[figure]
    methods = figure_methods(e, figure, c.methods)
    tasks = f.tasks or (list(e.ablations[f.ablation].tasks) if f.ablation else list(e.tasks))
    draw = load(f.draw["class"], e.base)
    drawn = draw(
        Results(
            folder=results,
            methods=methods,
            tasks=tasks,
            models=figure_models(e, figure, c.methods),
            posteriors={
                (m, t): [results / name for name in posterior_names(e, m, t, c.shards)]
                for m in methods
                for t in e.tasks_of(m)
            },
            tables=[results / name for name in table_names(e, methods)],
            facts={
                "floor": e.floor,
                "limit": e.limit,
                "labels": e.labels(),
                "solvers": {
                    (m, t): e.run(m, t, c.seed).solver for m in methods for t in e.tasks_of(m)
                },
                "operators": {t: e.tasks[t].operator for t in tasks},
                "base": e.base,
            },
        ),
        **{key: value for key, value in f.draw.items() if key != "class"},
    )
    save(drawn, output, output.with_suffix(".svg"))


def figure_methods(e: Experiment, figure: str, chosen: list[str] | str) -> list[str]:
    """The methods of a run that a figure shows."""
    f, run = e.figures[figure], select_methods(e, chosen)
    if f.ablation:
        swept = [m for m in run if e.methods[m].ablation == f.ablation]
        return swept and [*swept, *(m for m in run if m in f.methods)]
    return [m for m in run if m in (f.methods or e.table_methods())]


def drawn_figures(e: Experiment, chosen: list[str] | str) -> list[str]:
    """The figures of a run: those of which it has the methods, and the models."""
    figures = [name for name in e.figures if figure_methods(e, name, chosen)]
    return [
        name
        for name in figures
        if not {"models", "assessment"} & set(e.figures[name].needs)
        or figure_models(e, name, chosen)
    ]


def figure_models(e: Experiment, figure: str, chosen: list[str] | str) -> list[str]:
    """The models that a figure shows, as far as a run's methods use them."""
    used = {e.methods[m].model for m in select_methods(e, chosen)}
    used |= {e.models[m].parent for m in used}
    return [m for m in e.figures[figure].models if m in used]


def posterior_names(e: Experiment, method: str, task: str, shards: int) -> list[str]:
    """The stores of a posterior below the experiment's folder, one per shard.

    There are at most as many as there are blocks of cases, which are computed together.
    """
    tree = "ablations/" if e.methods[method].ablation else ""
    shards = e.run(method, task, seed=0).parts(shards)
    suffixes = [""] if shards == 1 else [f".{i}of{shards}" for i in range(shards)]
    return [f"{tree}posterior/{task}/{method}{suffix}.zarr" for suffix in suffixes]


def table_names(e: Experiment, methods: list[str]) -> list[str]:
    """The tables of metrics below the experiment's folder: one per method, or per ablation."""
    names = []
    for method in methods:
        ablation = e.methods[method].ablation
        tree, name = ("ablations/", ablation) if ablation else ("", method)
        names += [f"{tree}metrics/{kind}{name}.parquet" for kind in ("", "timing/")]
    return list(dict.fromkeys(names))


def shipped_weights(e: Experiment, model: str, c: Config) -> Path | None:
    """The folder of shipped weights of a model, if a run uses them and their digest matches."""
    folder = PRETRAINED / e.source / model
    if c.weights != "pretrained" or not (folder / "config.json").is_file():
        return None
    record = json.loads((folder / "config.json").read_text())
    return folder if record["digest"] == digest(e.model_spec(model, c.seed)) else None


def model_code(e: Experiment, model: str) -> str:
    """The fingerprint of what trains a model."""
    targets = [*e.model_classes(model), e.system["class"], "priorflow.stages.train:train"]
    return code_of(targets, e.base, ("torch", "lightning", "numpy"))


@app.command()
def tune(
    experiments: Annotated[list[str] | None, typer.Argument(help="Names; default: all.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    cases: Annotated[int, typer.Option(help="Validation cases.")] = 32,
    chosen: Annotated[bool, typer.Option(help="Score the settings of the file alone.")] = False,
    results: Annotated[Path | None, typer.Option(help="Folder with the trained models.")] = None,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
) -> None:
    """Try the grid of each method on validation cases; never on test cases.

    Writes tuning.csv beside the tables and prints the best setting by the first metric that ranks
    (CRPS, if there is one). The experiment file is left as it is: settings are chosen by a person.
    """
    from priorflow.stages.tune import tune
    from priorflow.stages.vocabulary import RANKING

    c = _config(config, overrides)
    for name in experiments or c.experiments:
        e = load_experiment(name, c.scale)
        folder = results or Path(c.results) / c.scale / e.name
        valid = folder / "data" / "valid.zarr"
        if not valid.is_dir():
            raise BadInput(f"{valid}: missing; run `snakemake {valid}` first")
        jobs = [
            (m, t)
            for m in e.table_methods()
            for t in e.tasks_of(m)
            if e.methods[m].tune and m in (method or [m]) and t in (task or [t])
        ]
        if not jobs:
            typer.echo(f"{name}: nothing to tune: no such method and task has a grid (`tune:`)")
            continue
        ranks = [*RANKING, *e.metrics]
        judging = {name: spec for name, spec in e.metrics.items() if "exact" not in spec}
        tune(
            [
                (
                    e.run(m, t, c.seed).model_dump()
                    | {"cases": cases, "block": min(e.block, cases)},
                    {} if chosen else e.methods[m].tune,
                    e.model_section(e.methods[m].model),
                    folder / "models" / e.methods[m].model / "weights.safetensors",
                )
                for m, t in jobs
            ],
            {t: _observe(c, e, t, valid, "valid", cases) for t in {t for _, t in jobs}},
            dict(sorted(judging.items(), key=lambda item: ranks.index(item[0]))),
            folder / "tables" / "tuning.csv",
            device=c.device,
            base=e.base,
        )


@app.command()
def report(
    scale: Annotated[str, typer.Option(help="The scale of the run.")] = "laptop",
    experiments: Annotated[str, typer.Option(help="Names, separated by blanks.")] = "",
    config: ConfigFile = CONFIG,
) -> None:
    """Write results/<scale>/report.html, if it is older than what it shows."""
    import subprocess

    c = load_config(config, {"scale": scale})
    root = Path(c.results) / c.scale
    page = root / "report.html"
    shown = [*root.glob("*/tables/*.html"), *root.glob("*/figures/*.png")]
    shown += [*root.glob("*/ablations/tables/*.html"), Path("workflow/report/workflow.rst")]
    newest = max((file.stat().st_mtime for file in shown), default=0)
    if page.is_file() and page.stat().st_mtime >= newest:
        print(f"{page} is up to date")
        return
    command = ["snakemake", "--report", str(page), "--config", f"scale={scale}"]
    command += [f"experiments={experiments}"] if experiments else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"snakemake --report failed: {done.stderr.strip()}")
    print(f"wrote {page}")


@app.command()
def ship(
    experiments: Annotated[str, typer.Option(help="Names, separated by blanks.")] = "",
    target: Annotated[Path, typer.Option(help="Where weights are kept.")] = PRETRAINED,
    config: ConfigFile = CONFIG,
) -> None:
    """Copy the trained networks of the laptop scale to the weights that are shipped."""
    import shutil

    c = load_config(config, {"scale": "laptop"})
    for name in experiments.split() or c.experiments:
        e = load_experiment(name, "laptop")
        if e.origin:
            print(f"{e.name}: its networks are those of {e.origin}")
            continue
        for model in (m for m in e.models if e.models[m].learned):
            source = Path(c.results) / "laptop" / e.name / "models" / model
            if not (source / "weights.safetensors").is_file():
                print(f"not trained: {e.name}/{model}")
                continue
            (target / e.name / model).mkdir(parents=True, exist_ok=True)
            for file in ("weights.safetensors", "config.json", "metrics.csv"):
                shutil.copyfile(source / file, target / e.name / model / file)
            print(f"shipped {e.name}/{model}")


@app.command()
def schema(
    output: Annotated[Path, typer.Option(help="The folder of the docs.")] = Path("docs"),
) -> None:
    """Write docs/configuration.md and docs/schema.json from the typed configuration."""
    from priorflow.config import documentation, json_schema

    (output / "configuration.md").write_text(documentation())
    (output / "schema.json").write_text(json_schema())


@app.command()
def check(
    experiments: Annotated[list[str] | None, typer.Argument(help="Names; default: all.")] = None,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
) -> None:
    """Read the configuration and every experiment at every scale, and say what is wrong."""
    c = _config(config, overrides)
    for name in experiments or c.experiments:
        for scale in ("smoke", "laptop", "workstation", "paper"):
            e = load_experiment(name, scale)
            print(f"{e.name} at {scale}: {len(e.tasks)} tasks, {len(e.methods)} methods")


@app.command()
def plan(
    experiments: Annotated[list[str] | None, typer.Argument(help="Names; default: all.")] = None,
    scale: Annotated[str, typer.Option(help="The scale.")] = "paper",
    tflops: Annotated[float, typer.Option(help="10¹² operations a second, of a GPU.")] = 30.0,
    latency: Annotated[float, typer.Option(help="Least seconds of a network call.")] = 0.01,
    gflop: Annotated[
        list[str] | None, typer.Option(help="model=10⁹ operations of one evaluation.")
    ] = None,
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
) -> None:
    """Print, as Markdown, what a run would take: jobs, GPU hours, storage; nothing is run."""
    from priorflow.stages.plan import markdown, plan

    c = _config(config, [*(overrides or []), f"scale={scale}"])
    if not (tflops > 0 and latency >= 0):
        raise BadInput("--tflops and --latency: must be positive, and not negative")
    try:
        pairs = [item.partition("=")[::2] for item in gflop or []]
        known = {model: float(number) * 1e9 for model, number in pairs}
    except ValueError:
        raise BadInput(f"--gflop: {' '.join(gflop)!r} is not of the form model=number") from None
    plans = {}
    for name in experiments or c.experiments:
        e = load_experiment(name, c.scale)
        chosen = select_methods(e, c.methods)
        figures = drawn_figures(e, c.methods)
        plans[e.name] = plan(
            e,
            chosen,
            shipped={m for m in e.models if e.models[m].learned and shipped_weights(e, m, c)},
            assessed={
                model
                for figure in figures
                if "assessment" in e.figures[figure].needs
                for model in figure_models(e, figure, c.methods)
            },
            figures=len(figures),
            shards=c.shards,
            rate=tflops * 1e12,
            latency=latency,
            known=known,
        )
    print(
        f"# Plan of the scale {c.scale}\n\n"
        f"Assumed: a GPU does {tflops:g} · 10¹² operations a second, and a call of a network\n"
        f"takes {latency:g} s at least. GPU hours are those of networks alone; what solvers and\n"
        "simulators do beside them is not in them. Jobs and bytes follow from the configuration;\n"
        "bytes are before compression."
    )
    print(markdown(plans), end="")


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def warm(
    command: Annotated[list[str], typer.Argument(help="snakemake with its options, say.")],
) -> None:
    """Run a command that starts jobs of priorflow, which then need not import their libraries."""
    from priorflow.warm import warm

    def job() -> None:
        # this process has read a part of the package, which may have been edited since
        for name in [name for name in sys.modules if name.partition(".")[0] == "priorflow"]:
            del sys.modules[name]
        from priorflow.cli import main

        main()

    try:
        warm(command, job)
    except OSError as error:
        raise BadInput(f"{command[0]}: {error.strerror}") from None


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed, for the next tensor of that size.

    glibc gives large blocks back to the system at once, which then clears every page again: that
    took a fifth of the time of inference with fields. Elsewhere nothing is changed.
    """
    import ctypes

    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        for option, size in MALLOC.items():
            library.mallopt(option, size)


def main() -> None:
    """Run the command line; a mistake of the user's ends in one line and exit code 1."""
    _keep_freed_memory()
    try:
        app()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
