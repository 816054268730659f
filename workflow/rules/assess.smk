# Only where a figure needs it: what a denoiser is worth by itself.


rule assess:
    input:
        data=f"{TREE}/data/test.zarr",
        weights=lambda w: weights_of(w.experiment, w.model),
    output:
        store=directory(f"{TREE}/models/{{model}}/assessment.zarr"),
        manifest=f"{TREE}/models/{{model}}/assessment.zarr.manifest.json",
    log:
        logged("assess", "{model}"),
    benchmark:
        timed("assess", "{model}")
    threads: CONFIG.threads
    resources:
        mem_mb=4000,
        runtime=30,
        gpu=gpu,
    params:
        weights=lambda w, input: f"--weights {input.weights}" if input.weights else "",
        settings=lambda w: experiment_of(w).assessment.model_dump(),
        threads=CONFIG.threads,
        key=lambda w: assessment_key(w.experiment, w.model),
    message:
        "Assess {wildcards.experiment}: {wildcards.model}"
    shell:
        command("assess") + " --model {wildcards.model} --data {input.data}"
        " {params.weights} --output {output.store} --overwrite 2> {log}"
