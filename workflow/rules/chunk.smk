def simulated(wildcards):
    shards = range(experiment_of(wildcards).data.shards)
    return [f"{TREE}/data/raw/{{split}}.{i}.zarr".format(**wildcards) for i in shards]


rule chunk:
    input:
        simulated,
    output:
        store=directory(f"{TREE}/data/{{split}}.zarr"),
        manifest=f"{TREE}/data/{{split}}.zarr.manifest.json",
    log:
        logged("chunk", "{split}"),
    benchmark:
        timed("chunk", "{split}")
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        chunks=lambda w: experiment_of(w).data.chunks,
        key=lambda w: data_key(w.experiment),
    message:
        "Chunk {wildcards.experiment}: {wildcards.split}"
    shell:
        command("chunk") + " {input} --output {output.store} --overwrite 2> {log}"


rule observe:
    input:
        f"{TREE}/data/test.zarr",
    output:
        store=directory(f"{TREE}/observations/{{task}}.zarr"),
        manifest=f"{TREE}/observations/{{task}}.zarr.manifest.json",
    log:
        logged("observe", "{task}"),
    benchmark:
        timed("observe", "{task}")
    localrule: CONFIG.scale in ("smoke", "laptop")
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        task=lambda w: experiment_of(w).tasks[w.task].model_dump(include=OBSERVED),
        key=lambda w: task_key(w.experiment, w.task),
    message:
        "Observe {wildcards.experiment}: {wildcards.task}"
    shell:
        command("observe")
        + " --task {wildcards.task} --data {input} --output {output.store}"
        " --overwrite 2> {log}"
