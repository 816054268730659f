# priorflow: simulate -> chunk -> observe -> train -> infer -> evaluate -> tables and figures -> report
#
#   snakemake                                    everything in config.yaml
#   snakemake lorenz63                           one experiment
#   snakemake --config scale=smoke               the same workflow, tiny
#   snakemake --workflow-profile workflow/profiles/slurm
#
# One rules file per stage; what they share (paths, resources, fingerprints) is in common.smk.


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/chunk.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/assess.smk"
include: "workflow/rules/infer.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        [products(name) for name in EXPERIMENTS],


for name in EXPERIMENTS:

    rule:
        name:
            name
        input:
            products(name),
