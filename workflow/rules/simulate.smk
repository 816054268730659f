# Where the archive is not at hand, synthetic storms in its files stand for it.


def archive_of(wildcards):
    synthetic = experiment_of(wildcards).system.get("source") == "storms"
    return [f"{TREE}/archive/CATALOG.csv"] if synthetic else []


def ingesting(wildcards):
    """The processes of a simulation: one, unless it is an archive that is read."""
    archive = "source" in experiment_of(wildcards).system
    return CONFIG.workers if archive and CONFIG.dask == "local" else 1


rule storms:
    output:
        f"{TREE}/archive/CATALOG.csv",
    log:
        f"{ROOT}/logs/{{experiment}}/storms.log",
    benchmark:
        f"{ROOT}/benchmarks/{{experiment}}/storms.tsv"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        system=lambda w: experiment_of(w).system,
        folder=f"{TREE}/archive",
        code=lambda w: code(w.experiment, "priorflow.systems.storms:write_storms"),
    message:
        "Make the storms of {wildcards.experiment}"
    shell:
        command("storms") + " --processes {threads} --output {params.folder} 2> {log}"


rule simulate:
    input:
        archive_of,
    output:
        store=directory(f"{TREE}/data/raw/{{split}}.{{shard}}.zarr"),
        manifest=f"{TREE}/data/raw/{{split}}.{{shard}}.zarr.manifest.json",
    log:
        logged("simulate", "{split}.{shard}"),
    benchmark:
        timed("simulate", "{split}.{shard}")
    threads: ingesting
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        archive=lambda w, input: f"--archive {Path(input[0]).parent}" if input else "",
        data=lambda w: experiment_of(w).data.model_dump(exclude={"chunks"}),
        system=lambda w: experiment_of(w).system,
        shards=lambda w: experiment_of(w).data.shards,
        key=lambda w: data_key(w.experiment),
    message:
        "Simulate {wildcards.experiment}: {wildcards.split}, part {wildcards.shard}"
    shell:
        command("simulate")
        + " --split {wildcards.split} --shard {wildcards.shard} --shards {params.shards} {params.archive}"
        " --output {output.store} --overwrite 2> {log}"
