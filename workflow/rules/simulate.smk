rule simulate:
    output:
        store=directory(f"{TREE}/data/raw/{{split}}.{{shard}}.zarr"),
        manifest=f"{TREE}/data/raw/{{split}}.{{shard}}.zarr.manifest.json",
    log:
        logged("simulate", "{split}.{shard}"),
    benchmark:
        timed("simulate", "{split}.{shard}")
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
        gpu=gpu,
    params:
        data=lambda w: experiment_of(w).data.model_dump(exclude={"chunks"}),
        system=lambda w: experiment_of(w).system,
        shards=lambda w: experiment_of(w).data.shards,
        key=lambda w: data_key(w.experiment),
    message:
        "Simulate {wildcards.experiment}: {wildcards.split}, part {wildcards.shard}"
    shell:
        command("simulate")
        + " --split {wildcards.split} --shard {wildcards.shard} --shards {params.shards}"
        " --output {output.store} --overwrite 2> {log}"
