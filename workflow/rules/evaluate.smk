def judged_methods(wildcards):
    """The methods of one table of metrics: one, or all of an ablation."""
    if not wildcards.tree:
        return [wildcards.group]
    e = experiment_of(wildcards)
    return [m for m in METHODS[e.name] if e.methods[m].ablation == wildcards.group]


def judged(wildcards):
    name = wildcards.experiment
    e = EXPERIMENTS[name]
    paths = [
        path
        for method in judged_methods(wildcards)
        for task in e.tasks_of(method)
        for path in (
            f"{ROOT}/{name}/observations/{task}.zarr",
            *posteriors(name, method, task),
            *(
                p
                for other in e.references(method)
                for p in posteriors(name, other, task)
            ),
        )
    ]
    return list(dict.fromkeys(paths))


rule evaluate:
    input:
        judged,
    output:
        metrics=f"{TREE}/{{tree}}metrics/{{group}}.parquet",
        timing=f"{TREE}/{{tree}}metrics/timing/{{group}}.parquet",
    log:
        logged("evaluate", "{tree}{group}"),
    benchmark:
        timed("evaluate", "{tree}{group}")
    wildcard_constraints:
        group="[A-Za-z0-9_.+-]+",
    localrule: CONFIG.scale in ("smoke", "laptop")
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        methods=lambda w: " ".join(f"--method {m}" for m in judged_methods(w)),
        results=f"{TREE}",
        shards=CONFIG.shards,
        metrics=lambda w: experiment_of(w).metrics,
        key=lambda w: metrics_key(w.experiment, tuple(judged_methods(w))),
    message:
        "Evaluate {wildcards.experiment}: {wildcards.group}"
    shell:
        command("evaluate") + " {params.methods} --results {params.results}"
        " --shards {params.shards} --output {output.metrics} --timing {output.timing} 2> {log}"
