"""How metrics, methods, tasks and experiments are called in tables and figures.

A name that is not here is shown as it is, so that an extension needs no entry. A variant
`method.variant` has the label of the method with the variant in brackets, and a task
`<task>_rollout` that of the task with ", rollout", unless they have labels of their own.
"""

__all__ = [
    "COSTS",
    "EXPERIMENTS",
    "METHODS",
    "METRICS",
    "RANKING",
    "TASKS",
    "Measure",
    "experiment_label",
    "measure",
    "method_label",
    "task_label",
]

import re
from dataclasses import dataclass
from typing import Literal

UNITS = "standardised"
CSI = (
    "critical success index of the {} at {} of the full scale, mean over the cases that have such "
    "an event"
)
NO_WEIGHTS = (
    "the weights of the classifier could not be fetched, the log of the evaluation says why; "
    "`weights` of the metric may name their file"
)


@dataclass(frozen=True)
class Measure:
    """What there is to know of a metric to show it.

    Attributes:
        label: Its name in tables and on axes.
        unit: Its unit; empty for a pure number.
        direction: Whether lower or higher is better, or neither (`match`): then it should match
            what the truth has, which `target` gives where it is the same everywhere.
        digits: Significant digits in tables.
        description: One sentence without a full stop.
        target: The value of a perfect method, for direction `match`.
        missing: Why a run may have no values of it.
    """

    label: str
    unit: str = ""
    direction: Literal["lower", "higher", "match"] = "match"
    digits: int = 3
    description: str = ""
    target: float | None = None
    missing: str = ""

    def __post_init__(self) -> None:
        if self.direction not in ("lower", "higher", "match"):
            raise ValueError(
                f"direction: value {self.direction!r}, allowed: 'lower', 'higher', 'match'"
            )
        if self.digits < 1:
            raise ValueError(f"digits: value {self.digits}, allowed: at least 1")

    @property
    def arrow(self) -> str:
        """↓ if lower is better, ↑ if higher is, else the target or nothing."""
        if self.direction == "match":
            return "" if self.target is None else f"→ {self.target:g}"
        return "↓" if self.direction == "lower" else "↑"


METRICS = {
    "crps": Measure(
        "CRPS",
        UNITS,
        "lower",
        description="fair continuous ranked probability score, mean over time and space",
    ),
    "rmse_mean": Measure(
        "RMSE of mean", UNITS, "lower", description="root-mean-square error of the ensemble mean"
    ),
    "rmse": Measure(
        "RMSE",
        UNITS,
        "lower",
        description="root-mean-square error of single samples, mean over members; "
        "it rewards collapsed ensembles and is not used to rank",
    ),
    "crps_natural": Measure(
        "CRPS, natural units",
        direction="lower",
        description="CRPS in the natural units of the system",
    ),
    "rmse_mean_natural": Measure(
        "RMSE of mean, natural units",
        direction="lower",
        description="RMSE of the ensemble mean in the natural units of the system",
    ),
    "rmse_natural": Measure(
        "RMSE, natural units",
        direction="lower",
        description="RMSE of single samples in the natural units of the system, as published; it "
        "rewards collapsed ensembles",
    ),
    "spread_skill": Measure(
        "Spread / skill",
        description="ensemble spread over the error of the ensemble mean, squares pooled over "
        "cases; below 1 the ensemble is too sure",
        target=1.0,
    ),
    "log_prior": Measure(
        "Log-prior",
        "nats",
        description="log-density of the transitions under the true dynamics; it should match that "
        "of the truth (17.87 for 14 transitions of Lorenz-63): higher is too smooth",
    ),
    "log_likelihood": Measure(
        "Log-likelihood",
        "nats",
        description="log-density of the observations given the samples; it should match that of "
        "the truth (−0.49 for 15 arctan observations of Lorenz-63): higher fits noise",
    ),
    "w1": Measure(
        "W₁",
        UNITS,
        "lower",
        description="earth mover's distance between the points in state space that the members "
        "and the truth visit; the published number has another, unknown definition",
    ),
    "spectrum_error": Measure(
        "Spectrum error", "", "lower", description="relative error of the spectrum"
    ),
    "csi_0.3": Measure("CSI 0.3 of mean", "", "higher", description=CSI.format("mean", 0.3)),
    "csi_0.5": Measure("CSI 0.5 of mean", "", "higher", description=CSI.format("mean", 0.5)),
    "csi_0.3_member": Measure("CSI 0.3", "", "higher", description=CSI.format("members", 0.3)),
    "csi_0.5_member": Measure("CSI 0.5", "", "higher", description=CSI.format("members", 0.5)),
    "fss": Measure(
        "FSS",
        "",
        "higher",
        description="fractions skill score of single samples, mean over members: do events cover "
        "the right share of every neighbourhood",
    ),
    "psnr": Measure("PSNR", "dB", "higher", description="peak signal-to-noise ratio"),
    "psnr_mean": Measure(
        "PSNR of mean",
        "dB",
        "higher",
        description="peak signal-to-noise ratio of the members' mean",
    ),
    "ssim": Measure("SSIM", "", "higher", description="structural similarity"),
    "lpips": Measure(
        "LPIPS",
        "",
        "lower",
        description="learned perceptual distance on features of VGG-16, as published; pictures of "
        "less than 64² pixels are resized to 64²",
        missing=NO_WEIGHTS,
    ),
    "lpips_alex": Measure(
        "LPIPS (AlexNet)",
        "",
        "lower",
        description="learned perceptual distance on features of AlexNet, which is 30 times faster "
        "than VGG-16; pictures of less than 64² pixels are resized to 64²",
        missing=NO_WEIGHTS,
    ),
    "lpips_alex_mean": Measure(
        "LPIPS of mean (AlexNet)",
        "",
        "lower",
        description="the same of the members' mean",
        missing=NO_WEIGHTS,
    ),
    "consistency": Measure(
        "Consistency",
        description="root-mean-square residual of the observations, in their units; about γ where "
        "an image explains them, below it where noise is fitted",
    ),
    "mean_error": Measure(
        "Error of mean",
        "posterior std",
        "lower",
        description="root-mean-square distance of the members' mean from the exact posterior mean, "
        "in standard deviations of the exact posterior",
    ),
    "sliced_w2": Measure(
        "Sliced W₂",
        "",
        "lower",
        description="sliced Wasserstein-2 distance between the members and draws of the exact "
        "posterior",
    ),
    "coverage_50": Measure(
        "Coverage 50 %",
        description="share of the truth's pixels inside the central 50 % interval of the members",
        target=0.5,
    ),
    "coverage_90": Measure(
        "Coverage 90 %",
        description="share of the truth's pixels inside the central 90 % interval of the members",
        target=0.9,
    ),
    "diversity": Measure(
        "Diversity", "", description="standard deviation over the members, mean over the pixels"
    ),
}

COSTS = {
    "nfe": Measure("NFE", "", "lower", description="forward network evaluations"),
    "nfe_backward": Measure("Backward", "", "lower", description="backward network evaluations"),
    "operator_evals": Measure(
        "Operator", "", "lower", description="applications of A, Aᵀ, A† or the proximal map"
    ),
    "encoder_evals": Measure("Encoder", "", "lower", description="evaluations of the encoder"),
    "decoder_evals": Measure("Decoder", "", "lower", description="evaluations of the decoder"),
    "simulator_evals": Measure(
        "Simulator", "", "lower", description="transitions of the true simulator"
    ),
    "seconds": Measure("Seconds", "s", "lower", description="wall-clock time"),
}

# By the first of these that a task has, its methods are sorted.
RANKING = ("sliced_w2", "crps", "rmse_mean", "lpips", "psnr", "rmse")

EXPERIMENTS = {
    "lorenz63": "Lorenz-63",
    "double_well": "Double well",
    "damped_spring": "Damped spring",
    "navier_stokes": "Navier-Stokes",
    "sevir": "SEVIR radar",
    "piv": "Particle image velocimetry",
    "images": "Image restoration",
    "gaussian_mixture": "Gaussian mixture",
}

METHODS = {
    "truth": "Truth",
    "flowdas": "FlowDAS",
    "flowdas_bridge": "FlowDAS bridge",
    "sda": "SDA",
    "bpf": "Bootstrap filter",
    "enkf": "EnKF",
    "ensf": "EnSF",
    "kalman": "Kalman",
    "fno_da": "FNO-DA",
    "transolver_da": "Transolver-DA",
    "forecast": "Forecast",
    "persistence": "Persistence",
    "extrapolation": "Extrapolation",
    "steps": "STEPS",
    "interpolation": "Interpolation",
    "dps": "DPS",
    "mcg": "MCG",
    "admm_pnp": "ADMM-PnP",
    "ddnm": "DDNM",
    "red_diff": "RED-Diff",
    "diffpir": "DiffPIR",
    "dcdp_ddim": "DCDP (DDIM)",
    "dcdp_tweedie": "DCDP (Tweedie)",
    "dcdp_cm": "DCDP (consistency)",
    "dcdp_ldm_ddim": "DCDP latent (DDIM)",
    "dcdp_ldm_tweedie": "DCDP latent (Tweedie)",
    "latent_dps": "Latent-DPS",
    "psld": "PSLD",
    "resample": "ReSample",
    "sitcom": "SITCOM",
    "ddrm": "DDRM",
    "pgdm": "ΠGDM",
    "mmps": "MMPS",
    "exact": "Exact posterior",
    "pinv": "Pseudo-inverse",
    "tv": "Total variation",
    "wavelet": "Wavelet",
}

TASKS = {
    "known_x0": "known initial state",
    "unknown_x0": "unknown initial state",
    "long_x0": "long window",
    "sr_32": "super-resolution from 32²",
    "sr_16": "super-resolution from 16²",
    "points_819": "819 points (5 %)",
    "points_256": "256 points (1.5625 %)",
    "sparse_10": "10 % of the pixels",
    "density_003": "0.03 particles per pixel",
    "gaussian_deblur": "Gaussian deblurring",
    "motion_deblur": "motion deblurring",
    "super_resolution": "super-resolution",
    "inpainting": "inpainting",
    "phase_retrieval": "phase retrieval",
    "hdr": "high dynamic range",
}

SUFFIXES = {"_rollout": ", rollout", "_noise005": ", noise 0.05", "_noise0": ", no noise"}


def measure(metric: str) -> Measure:
    """What there is to know of a metric or of a cost; of an unknown one only its name."""
    return METRICS.get(metric) or COSTS.get(metric) or Measure(metric)


def method_label(method: str) -> str:
    """The label of a method, a variant `method.variant`, or `method.ablation.field_value.…`."""
    name, dot, variant = method.partition(".")
    if method in METHODS or name not in METHODS or not dot:
        return METHODS.get(method, method)
    first, *settings = re.split(r"\.(?=[a-z])", variant)  # a value may have a point, as 0.5 has
    said = ", ".join(settings or [first]).replace("_", " ")
    return f"{METHODS[name]} ({said})"


def task_label(task: str) -> str:
    """The label of a task, with what its suffixes say."""
    stem, words = task, ""
    for suffix, said in SUFFIXES.items():
        if stem not in TASKS and stem.endswith(suffix):
            stem, words = stem.removesuffix(suffix), said + words
    return TASKS[stem] + words if stem in TASKS else task


def experiment_label(experiment: str) -> str:
    """The label of an experiment."""
    return EXPERIMENTS.get(experiment, experiment)
