def method_of(wildcards):
    return experiment_of(wildcards).methods[wildcards.method]


rule infer:
    input:
        observations=f"{TREE}/observations/{{task}}.zarr",
        weights=lambda w: weights_of(w.experiment, method_of(w).model),
    output:
        store=directory(f"{TREE}/{{tree}}posterior/{{task}}/{{method}}{{part}}.zarr"),
        manifest=f"{TREE}/{{tree}}posterior/{{task}}/{{method}}{{part}}.zarr.manifest.json",
    log:
        logged("infer", "{tree}{task}/{method}{part}"),
    benchmark:
        timed("infer", "{tree}{task}/{method}{part}")
    threads: CONFIG.threads
    resources:
        mem_mb=6000,
        runtime=240,
        gpu=gpu,
    params:
        run=lambda w: experiment_of(w).run(w.method, w.task, CONFIG.seed).model_dump(),
        weights=lambda w, input: f"--weights {input.weights}" if input.weights else "",
        shard=lambda w: "--shard {} --shards {}".format(
            *re.findall(r"\d+", w.part) or (0, 1)
        ),
        threads=CONFIG.threads,
        key=lambda w: posterior_key(w.experiment, w.method, w.task),
    message:
        "Infer {wildcards.experiment}: {wildcards.method} on {wildcards.task} {wildcards.part}"
    shell:
        command("infer") + " --task {wildcards.task} --method {wildcards.method}"
        " --observations {input.observations} {params.weights} {params.shard}"
        " --output {output.store} --overwrite 2> {log}"
