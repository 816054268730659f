# With shipped weights nothing is simulated to train on: the rule then only puts them in place.


def training_data(wildcards):
    folder = shipped(wildcards.experiment, wildcards.model)
    if folder is not None:
        return [str(folder / "weights.safetensors"), str(folder / "config.json")]
    data = [
        f"{ROOT}/{wildcards.experiment}/data/{split}.zarr"
        for split in ("train", "valid")
    ]
    return data + parent_weights(wildcards)


def parent_weights(wildcards):
    parent = experiment_of(wildcards).models[wildcards.model].parent
    return [] if parent is None else weights_of(wildcards.experiment, parent)


def training_arguments(wildcards):
    folder = shipped(wildcards.experiment, wildcards.model)
    if folder is not None:
        return f"--pretrained {folder}"
    data = "--train {} --valid {}".format(*training_data(wildcards)[:2])
    return " ".join([data, *(f"--parent {path}" for path in parent_weights(wildcards))])


def training_threads(wildcards):
    if shipped(wildcards.experiment, wildcards.model) is not None:
        return 1
    return experiment_of(wildcards).models[wildcards.model].training.threads


def training_gpus(wildcards):
    if shipped(wildcards.experiment, wildcards.model) is not None:
        return 0
    training = experiment_of(wildcards).models[wildcards.model].training
    return gpu(wildcards) * training.devices


rule train:
    input:
        training_data,
    output:
        weights=f"{TREE}/models/{{model}}/weights.safetensors",
        config=f"{TREE}/models/{{model}}/config.json",
        metrics=f"{TREE}/models/{{model}}/metrics.csv",
    log:
        logged("train", "{model}"),
    benchmark:
        timed("train", "{model}")
    threads: training_threads
    resources:
        mem_mb=6000,
        runtime=240,
        gpu=training_gpus,
    params:
        arguments=training_arguments,
        folder=f"{TREE}/models/{{model}}",
        model=lambda w: experiment_of(w).model_spec(w.model, CONFIG.seed),
        key=lambda w: model_key(w.experiment, w.model),
    message:
        "Train {wildcards.experiment}: {wildcards.model}"
    shell:
        command("train")
        + " --model {wildcards.model} {params.arguments} --output {params.folder}"
        " 2> {log}"
