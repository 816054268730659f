def judged(wildcards):
    name, method = wildcards.experiment, wildcards.method
    return [
        path
        for task in EXPERIMENTS[name].tasks_of(method)
        for path in (
            f"{ROOT}/{name}/observations/{task}.zarr",
            *posteriors(name, method, task),
        )
    ]


rule evaluate:
    input:
        judged,
    output:
        metrics=f"{TREE}/{{tree}}metrics/{{method}}.parquet",
        timing=f"{TREE}/{{tree}}metrics/timing/{{method}}.parquet",
    log:
        logged("evaluate", "{tree}{method}"),
    benchmark:
        timed("evaluate", "{tree}{method}")
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        source=source,
        results=f"{TREE}",
        shards=CONFIG.shards,
        metrics=lambda w: experiment_of(w).metrics,
        code=code(
            lambda w: [
                *(spec["class"] for spec in experiment_of(w).metrics.values()),
                *(t.operator["class"] for t in experiment_of(w).tasks.values()),
                experiment_of(w).system["class"],
            ],
            "priorflow.stages.evaluate:evaluate",
            libraries=("numpy", "pandas", "xarray", "scores", "pot"),
        ),
    message:
        "Evaluate {wildcards.experiment}: {wildcards.method}"
    shell:
        command("evaluate") + " --method {wildcards.method} --results {params.results}"
        " --shards {params.shards} --output {output.metrics} --timing {output.timing} 2> {log}"
