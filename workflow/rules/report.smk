def table_methods(wildcards):
    """The methods of a table: those of the experiment, or those of one ablation."""
    e, name = experiment_of(wildcards), wildcards.table
    ablation = name if wildcards.tree else ""
    return [
        m for m in METHODS[wildcards.experiment] if e.methods[m].ablation == ablation
    ]


def table_metrics(wildcards):
    return metric_tables(wildcards.experiment, table_methods(wildcards))


def published(wildcards):
    file = PUBLISHED / f"{wildcards.table}.csv"
    return [str(file)] if file.is_file() and not wildcards.tree else []


rule tables:
    input:
        metrics=table_metrics,
        published=published,
    output:
        csv=f"{TREE}/{{tree}}tables/{{table}}.csv",
        markdown=f"{TREE}/{{tree}}tables/{{table}}.md",
        latex=f"{TREE}/{{tree}}tables/{{table}}.tex",
        html=report(
            f"{TREE}/{{tree}}tables/{{table}}.html",
            caption="../report/table.rst",
            category="All tables",
            subcategory="{experiment}",
            labels={"table": "{table}", "format": "sortable page"},
        ),
    log:
        f"{ROOT}/logs/{{experiment}}/tables/{{tree}}{{table}}.log",
    benchmark:
        timed("tables", "{tree}{table}")
    wildcard_constraints:
        table="[A-Za-z0-9_]+",
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        about=lambda w: experiment_of(w).about,
        published=lambda w, input: (
            f"--published {input.published}" if input.published else ""
        ),
        notes=lambda w: experiment_of(w).notes(),
        labels=lambda w: experiment_of(w).labels(),
        roles=lambda w: (experiment_of(w).floor, experiment_of(w).limit),
        results=f"{TREE}",
        key=lambda w: metrics_key(w.experiment, tuple(table_methods(w))),
        code=lambda w: code(
            w.experiment,
            "priorflow.stages.tables:build",
            libraries=("numpy", "pandas"),
        ),
    message:
        "Tabulate {wildcards.experiment}: {wildcards.table}"
    shell:
        command("tables")
        + " {input.metrics} {params.published} --results {params.results}"
        " --output {output.csv} 2> {log}"


def shown(wildcards):
    """What a figure reads."""
    name = wildcards.experiment
    e, f = EXPERIMENTS[name], EXPERIMENTS[name].figures[wildcards.figure]
    methods = figure_methods(e, wildcards.figure, CONFIG.methods)
    tasks = f.tasks or list(e.tasks)
    files = metric_tables(name, methods) if "metrics" in f.needs else []
    if "posterior" in f.needs:
        files += [
            path
            for method in methods
            for task in EXPERIMENTS[name].tasks_of(method)
            if task in tasks
            for path in posteriors(name, method, task)
        ]
    if "observations" in f.needs:
        files += [f"{ROOT}/{name}/observations/{task}.zarr" for task in tasks]
    if "archive" in f.needs:
        files += archive_of(wildcards)
    of_models = ["metrics.csv", "config.json"] if "models" in f.needs else []
    of_models += ["assessment.zarr"] if "assessment" in f.needs else []
    models = figure_models(e, wildcards.figure, CONFIG.methods)
    return files + [
        f"{ROOT}/{name}/models/{m}/{file}" for m in models for file in of_models
    ]


def figure_of(wildcards):
    return experiment_of(wildcards).figures[wildcards.figure]


def shown_key(wildcards):
    """The key of all that a figure shows."""
    name = wildcards.experiment
    e, f = EXPERIMENTS[name], EXPERIMENTS[name].figures[wildcards.figure]
    methods = tuple(figure_methods(e, wildcards.figure, CONFIG.methods))
    models = figure_models(e, wildcards.figure, CONFIG.methods)
    keys = [model_key(name, m) for m in models]
    if "assessment" in f.needs:
        keys += [assessment_key(name, m) for m in models]
    if "metrics" in f.needs:
        keys.append(metrics_key(name, methods))
    if "posterior" in f.needs:
        tasks = f.tasks or list(e.tasks)
        shown = [(m, t) for m in methods for t in e.tasks_of(m) if t in tasks]
        keys += [posterior_key(name, m, t) for m, t in shown]
    return digest(keys)


rule figures:
    input:
        shown,
    output:
        png=report(
            f"{TREE}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category=lambda w: figure_of(w).category,
            subcategory="{experiment}",
            labels={"figure": "{figure}"},
        ),
        svg=f"{TREE}/figures/{{figure}}.svg",
    log:
        logged("figures", "{figure}"),
    benchmark:
        timed("figures", "{figure}")
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        results=f"{TREE}",
        figure=lambda w: figure_of(w).model_dump(exclude={"category"}),
        caption=lambda w: figure_of(w).caption,
        labels=lambda w: experiment_of(w).labels(),
        key=shown_key,
        code=lambda w: code(
            w.experiment,
            figure_of(w).draw["class"],
            "priorflow.stages.figures.base:save",
            libraries=("matplotlib", "seaborn"),
        ),
    message:
        "Draw {wildcards.experiment}: {wildcards.figure}"
    shell:
        command("figures") + " --figure {wildcards.figure} --results {params.results}"
        " --output {output.png} 2> {log}"
