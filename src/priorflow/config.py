"""The typed configuration: `config.yaml` for a run, and one file per experiment.

These models are the only source of defaults, of the JSON schema and of the table in
`docs/configuration.md` (`priorflow schema` prints both).
"""

__all__ = [
    "Config",
    "Experiment",
    "Run",
    "documentation",
    "json_schema",
    "load_config",
    "load_experiment",
    "select_methods",
]

import json
import os
import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from priorflow.components import BadInput, check

Scale = Literal["smoke", "laptop", "workstation", "paper"]
Stats = Literal["metrics", "posterior", "observations", "models", "assessment", "archive"]
Spec = dict[str, Any]
ROOT = Path("workflow/experiments")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it takes a tenth of the time
SUFFIXES = (".yaml", ".yml")
NAMES = dict.fromkeys(("tasks", "models", "ablations", "figures"), r"\w+") | {
    "methods": r"[\w.+-]+",
    "scales": "|".join(get_args(Scale)),
}


class Strict(BaseModel):
    """A section in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Config(Strict):
    """`config.yaml`: what a user edits for a run."""

    scale: Scale = Field("laptop", description="How large everything is; see the scales below.")
    experiments: list[str] = Field(
        [
            *("lorenz63", "double_well", "damped_spring", "navier_stokes", "piv", "sevir"),
            *("gaussian_mixture", "images"),
        ],
        min_length=1,
        description="Experiments to run: names in workflow/experiments, or paths of YAML files.",
    )
    methods: list[str] | Literal["all"] = Field(
        "all", description="Methods to run, with their variants; or `all`."
    )
    seed: int = Field(0, ge=0, description="The master seed of all random streams.")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="Where networks run: `cpu`, `cuda`, `cuda:1`, …",
    )
    weights: Literal["pretrained", "train"] = Field(
        "pretrained",
        description="`pretrained` uses shipped weights where the model's digest matches and trains "
        "the rest; `train` trains everything.",
    )
    threads: int = Field(
        1, ge=1, description="Threads of one inference job; part of the result's last digits."
    )
    shards: int = Field(
        1, ge=1, description="Parallel jobs per method and task, at most one per block of cases."
    )
    dask: Literal["local", "slurm"] = Field(
        "local",
        description="Where archives are ingested and large posteriors judged: this machine, or "
        "SLURM jobs of Dask's workers.",
    )
    workers: int = Field(2, ge=1, description="Dask workers of such a job, of one thread each.")
    results: str = Field("results", description="Folder of everything that is generated.")

    @field_validator("experiments", "methods", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """`--config experiments="a b"` gives one string."""
        return value.split() if isinstance(value, str) and value != "all" else value


class Data(Strict):
    """The trajectories that are simulated."""

    trajectories: int = Field(1024, ge=3, description="Trajectories, all splits together.")
    steps: int = Field(1024, ge=1, description="States per trajectory; 1 for pictures.")
    burn_in: int = Field(0, ge=0, description="Transitions dropped before the first state.")
    split: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="Shares of training, validation and test trajectories."
    )
    shards: int = Field(1, ge=1, description="Parallel simulation jobs per split.")
    chunks: dict[str, int] = Field(
        {"trajectory": 64}, description="Chunk lengths of the stores, by dimension."
    )

    def rows(self, split: str) -> range:
        """The indices of the trajectories of a split."""
        first = round(self.trajectories * self.split[0])
        second = first + round(self.trajectories * self.split[1])
        edges = {"train": (0, first), "valid": (first, second), "test": (second, self.trajectories)}
        return range(*edges[split])


class Task(Strict):
    """One problem: what is observed, for how long, and what is known before."""

    operator: Spec = Field(description="The operator: `class` and its arguments.")
    steps: int = Field(15, ge=1, description="Observed states per case.")
    initial: Literal["known", "climate", "none"] = Field(
        "known",
        description="`known`: the true past is given; `climate`: a draw of the initial law; "
        "`none`: pictures without a past, each of which is restored alone.",
    )
    start: int = Field(0, ge=0, description="Index of the first state of the window.")
    rollout: bool = Field(
        False, description="Whether metrics keep the observed states apart, in the column `lead`."
    )
    cases: int = Field(64, ge=1, description="Test cases, one per trajectory.")
    members: int = Field(16, ge=1, description="Posterior samples per case.")
    system: Spec = Field({}, description="Arguments of the system that differ in this task.")
    label: str = Field("", description="A few words for tables and figures.")

    @field_validator("operator")
    @classmethod
    def _noise(cls, spec: Spec) -> Spec:
        if "class" not in spec:
            raise ValueError("class: missing, name the operator as package.module:Name")
        noise = spec.get("noise_std", 1)
        if not isinstance(noise, int | float) or not noise >= 0:
            raise ValueError(f"noise_std: {noise} is not allowed, it must not be negative")
        return spec

    @model_validator(mode="after")
    def _certain(self) -> "Task":
        if self.initial != "none" and self.operator.get("noise_std") == 0:
            raise ValueError("operator.noise_std: 0 is not allowed, it must be a positive number")
        return self


class Training(Strict):
    """How a network is trained."""

    steps: int = Field(10_000, ge=1, description="Optimiser steps.")
    batch: int = Field(4096, ge=1, description="Windows per step.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="Decay to zero.")
    warmup: int = Field(100, ge=0, description="Steps of linear warm-up.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights; 0 for none.")
    clip: float = Field(1.0, gt=0, description="Gradient norm at which gradients are clipped.")
    interval: int = Field(500, ge=1, description="Steps between two checkpoints.")
    validation: int = Field(
        8192, ge=1, description="Windows of the validation loss; twice as many calibrate the prior."
    )
    precision: str = Field("32-true", description="Lightning's precision: `32-true`, `bf16-mixed`.")
    devices: int = Field(1, ge=1, description="GPUs of one training job.")
    threads: int = Field(1, ge=1, description="CPU threads of one training job.")


class Model(Strict):
    """A prior: learned if it has a network, otherwise built from the system."""

    prior: Spec = Field(description="The prior: `class` and its arguments.")
    network: Spec | None = Field(None, description="The network inside it.")
    training: Training = Field(Training(), description="How it is trained.")
    context: int = Field(1, ge=0, description="Past states that the model sees; 0 for pictures.")
    parent: str | None = Field(
        None,
        description="The model that it is built on or starts from, which is trained before it.",
    )

    @property
    def learned(self) -> bool:
        """Whether the model has to be trained."""
        return self.network is not None


class MethodTask(Strict):
    """What a method does differently on one task."""

    solver: Spec = Field({}, description="Hyper-parameters on this task.")
    cases: int | None = Field(None, ge=1, description="The first so many cases only.")
    members: int | None = Field(None, ge=1, description="Members, if not the task's.")
    note: str = Field("", description="Printed beside the numbers of this task.")


class Method(Strict):
    """A solver with its settings."""

    solver: Spec = Field(description="The solver: `class` and its hyper-parameters.")
    model: str = Field("simulator", description="The prior that it uses: a name in `models`.")
    tasks: dict[str, MethodTask] | None = Field(
        None, description="The tasks that it runs on, with what differs there; default all."
    )
    cases: int | None = Field(
        None, ge=1, description="The first so many cases only, where a task does not say how many."
    )
    label: str = Field("", description="Its name in tables and figures.")
    note: str = Field("", description="Printed beside its numbers.")
    tune: dict[str, list[Any]] = Field(
        {}, description="Grid of hyper-parameters that `priorflow tune` tries on validation cases."
    )
    ablation: str = Field("", description="The ablation that it belongs to; empty for the table.")

    @field_validator("tasks", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {name: {} for name in value}
        return {k: v or {} for k, v in value.items()} if isinstance(value, dict) else value


class Ablation(Strict):
    """A sweep: variants of methods that share a task."""

    tasks: dict[str, MethodTask] = Field(description="The tasks, with what differs there.")
    methods: dict[str, dict[str, Any]] = Field(
        description="Per method its grid: `solver: {field: [values]}`, or `model: [names]`."
    )


class Assessment(Strict):
    """How denoisers are assessed, where a figure needs it."""

    images: int = Field(1000, ge=2, description="Test pictures that are denoised.")
    samples: int = Field(
        32, ge=1, description="Pictures that are drawn, and real ones that are shown beside them."
    )
    steps: int = Field(
        36,
        ge=2,
        description="Levels of σ of a draw, which calls the denoiser twice at all but one.",
    )


class Figure(Strict):
    """A figure of the report."""

    draw: Spec = Field(description="The drawing function: `class` and its arguments.")
    caption: str = Field(description="What one sees, in a few sentences.")
    category: str = Field("Results", description="Its category in the report.")
    needs: list[Stats] = Field(["metrics"], description="What it reads.")
    tasks: list[str] = Field([], description="Its tasks; empty for all.")
    methods: list[str] = Field([], description="Its methods; empty for all.")
    ablation: str = Field("", description="The ablation that it shows.")
    models: list[str] = Field(
        [], description="The models that it shows, by training or assessment."
    )


class Run(Strict):
    """One method on one task, with everything resolved: what an inference job does."""

    experiment: str
    task: str
    method: str
    solver: Spec
    model: str
    operator: Spec
    system: Spec
    initial: str
    cases: int
    members: int
    block: int
    seed: int

    @property
    def blocks(self) -> int:
        """Blocks of cases, each of which is computed together."""
        return -(-self.cases // self.block)

    def parts(self, shards: int) -> int:
        """Jobs that share the work, where `shards` are asked for."""
        return min(shards, self.blocks)


class Experiment(Strict):
    """One file of workflow/experiments, at one scale."""

    name: str = Field(pattern=r"^\w+$", description="Its name; that of the file, if not given.")
    origin: str = Field(
        "",
        pattern=r"^\w*$",
        description="The experiment whose data and networks these are, so that they are "
        "the same to the last digit.",
    )
    title: str = Field("", description="One line for the report.")
    about: str = Field("", description="What the experiment shows; printed above its table.")
    base: Path = Field(description="The folder of the file; set by the loader.")
    system: Spec = Field(description="The system: `class` and its arguments.")
    data: Data = Data()
    tasks: dict[str, Task]
    models: dict[str, Model] = {}
    methods: dict[str, Method]
    ablations: dict[str, Ablation] = {}
    metrics: dict[str, Spec] = Field(
        description="The metrics, by name. `exact` names the method whose posterior one is given; "
        "one with `members: n` is of ensembles of at least so many."
    )
    assessment: Assessment = Assessment()
    figures: dict[str, Figure] = {}
    block: int = Field(16, ge=1, description="Cases that are computed together.")
    floor: str = Field("forecast", description="The method that ignores the observations.")
    limit: str = Field("", description="The method that is exact, or the best there is.")

    @property
    def source(self) -> str:
        """The name that data and networks go by."""
        return self.origin or self.name

    def tasks_of(self, method: str) -> list[str]:
        """The tasks that a method runs on."""
        chosen = self.methods[method].tasks
        return list(self.tasks) if chosen is None else list(chosen)

    @property
    def context(self) -> int:
        """The past states that observations are stored with: as many as any method's model sees."""
        return max(self.models[m.model].context for m in self.methods.values())

    def references(self, method: str) -> list[str]:
        """The methods whose posteriors the metrics of a method compare with: what `exact` names."""
        named = dict.fromkeys(spec["exact"] for spec in self.metrics.values() if "exact" in spec)
        return [name for name in named if name != method]

    def table_methods(self) -> list[str]:
        """The methods of the table, without those of the ablations."""
        return [name for name, method in self.methods.items() if not method.ablation]

    def labels(self) -> dict[str, str]:
        """What tasks and methods are called, where the file says it."""
        named = {**self.tasks, **self.methods}
        return {name: item.label for name, item in named.items() if item.label}

    def notes(self) -> dict[str, str]:
        """Remarks by `method` or `task/method`."""
        notes = {name: m.note for name, m in self.methods.items() if m.note}
        for name, method in self.methods.items():
            for task, special in (method.tasks or {}).items():
                if special.note:
                    notes[f"{task}/{name}"] = special.note
        return notes

    def system_of(self, task: str) -> Spec:
        """The system as a task sees it."""
        return {**self.system, **self.tasks[task].system}

    def run(self, method: str, task: str, seed: int) -> Run:
        """Everything that an inference job depends on but code, data and weights."""
        m, t = self.methods[method], self.tasks[task]
        special = (m.tasks or {}).get(task, MethodTask())
        cases = min(special.cases or m.cases or t.cases, t.cases)
        return Run(
            experiment=self.name,
            task=task,
            method=method,
            solver={**m.solver, **special.solver},
            model=m.model,
            operator=t.operator,
            system=self.system_of(task),
            initial=t.initial,
            cases=cases,
            members=special.members or t.members,
            block=min(self.block, cases),
            seed=seed,
        )

    def model_spec(self, model: str, seed: int) -> Spec:
        """Everything that a trained network depends on but code: what its digest is made of."""
        data = self.data.model_dump(mode="json", exclude={"shards", "chunks"})
        spec = self.model_section(model)
        for section in _lineage(spec):
            section["training"] = {
                k: v for k, v in section["training"].items() if k not in ("interval", "devices")
            }
        return {
            "experiment": self.source,
            "system": self.system,
            "data": data,
            "seed": seed,
            **spec,
        }

    def model_section(self, model: str) -> Spec:
        """The section of a model, with that of its parent in the place of the parent's name."""
        spec = self.models[model].model_dump(mode="json")
        parent = spec.pop("parent")
        return spec if parent is None else {**spec, "parent": self.model_section(parent)}

    def model_classes(self, model: str) -> list[str]:
        """The components that a model is made of, those of its parents included."""
        return [
            section[part]["class"]
            for section in _lineage(self.model_section(model))
            for part in ("prior", "network")
            if section[part] is not None
        ]


def _lineage(section: Spec) -> Iterable[Spec]:
    """The section of a model, and those of its parents."""
    while section is not None:
        yield section
        section = section.get("parent")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, section by section; a value of None removes a key."""
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read `config.yaml`.

    Raises:
        BadInput: Names the file and the key, and says what is allowed.
    """
    return _validate(Config, {**_read_yaml(Path(path)), **(overrides or {})}, Path(path))


def load_experiment(name: str, scale: Scale, root: Path = ROOT) -> Experiment:
    """Read an experiment at one scale, by its name in `root` or by the path of its file.

    A file may begin with `extends: NAME` (or a path): what it says is laid over that experiment,
    whose name and results it shares unless it has a `name` of its own.

    Raises:
        BadInput: Names the file and the key, and says what is allowed.
    """
    path = Path(name) if name.endswith(SUFFIXES) else root / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in root.glob("*.yaml"))) or "none"
        raise BadInput(f"experiments: {name!r} is unknown; there are: {known}, or give a path")
    raw = _read_experiment(path, root, scale)
    raw["methods"] |= _expand_ablations(raw.get("ablations") or {}, raw["methods"], path)
    raw = {**raw, "base": path.parent.resolve()}
    experiment = _validate(Experiment, raw, path)
    _check_names(experiment, path)
    return experiment


def select_methods(experiment: Experiment, methods: list[str] | Literal["all"]) -> list[str]:
    """The methods of a run: those named, their variants, and the floor and the limit."""
    names = list(experiment.methods)
    if methods == "all":
        return names
    always = (experiment.floor, experiment.limit)
    return [n for n in names if {n, n.partition(".")[0]} & set(methods) or n in always]


def json_schema() -> str:
    """The JSON schema of the configuration and of an experiment file, for editors."""
    kinds = {"config.yaml": Config, "workflow/experiments/*.yaml": Experiment}
    return (
        json.dumps({name: kind.model_json_schema() for name, kind in kinds.items()}, indent=1)
        + "\n"
    )


def documentation() -> str:
    """The tables of all keys, with types, defaults and what they mean, in Markdown."""
    sections = (Data, Task, Model, Training, Method, MethodTask, Ablation, Assessment, Figure)
    parts = ["# Configuration\n\nWritten by `priorflow schema` from `src/priorflow/config.py`.\n"]
    for kind in (Config, Experiment, *sections):
        parts.append(f"\n## {kind.__name__}\n\n{kind.__doc__.strip()}\n\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|\n")
        for name, field in kind.model_fields.items():
            if name in ("name", "base") and kind is Experiment:
                continue
            value = "required" if field.is_required() else f"`{field.default!r}`"
            if isinstance(field.default, BaseModel):
                value = "the section's defaults"
            shown = _type_name(field.annotation)
            parts.append(f"| `{name}` | {shown} | {value} | {field.description or ''} |\n")
    return "".join(parts)


def _type_name(annotation: Any) -> str:
    """A type as a reader of the documentation should see it."""
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if hasattr(annotation, "__args__"):
        name = str(annotation)
    name = re.sub(r"(typing|priorflow\.config|pathlib)\.", "", name).replace("|", "or")
    return name.replace("dict[str, Any]", "component")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), Loader=LOADER) or {}
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    _mapping(path, "the file", content)
    return content


def _check_sections(path: Path, content: Mapping[str, Any]) -> None:
    """What is merged before it is validated must have keys, and names that paths can have."""
    for section, pattern in NAMES.items():
        if content.get(section) is None:
            continue
        _mapping(path, section, content[section])
        for name, value in content[section].items():
            if not re.fullmatch(pattern, str(name)):
                raise BadInput(f"{path}: {section}: {name!r} is not allowed as a name")
            if value is not None:
                _mapping(path, f"{section}.{name}", value)


def _mapping(path: Path, key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise BadInput(f"{path}: {key}: must have keys, found {value!r}")


def _read_experiment(path: Path, root: Path, scale: str) -> dict[str, Any]:
    """An experiment file at a scale, laid over the one that it extends."""
    raw = {"name": path.stem, **_read_yaml(path)}
    _check_sections(path, raw)
    parent = raw.pop("extends", None)
    if parent is not None:
        file = path.parent / parent if parent.endswith(SUFFIXES) else root / f"{parent}.yaml"
        if not file.is_file():
            raise BadInput(f"{path}: extends: {parent!r}: there is no file {file}")
        folder = os.path.relpath(file.parent, path.parent)
        inherited = _relocate(_read_experiment(file, root, scale), folder)
        raw = merge(inherited, _read_yaml(path) | {"extends": None})
    scales = raw.pop("scales", {})
    raw = merge(raw, scales.get(scale) or {})
    select = raw.pop("select", {})
    raw["methods"] = _inherit(raw.get("methods") or {}, path)
    for section, names in select.items():
        _known(path, f"scales.{scale}.select", section, ("tasks", "methods", "figures", "metrics"))
        for name in names:
            _known(path, f"scales.{scale}.select.{section}", name, raw.get(section, {}))
        raw[section] = {name: raw[section][name] for name in names}
    if select:
        _prune(raw)
    return raw


def _relocate(value: Any, folder: str) -> Any:
    """Components of a file in `folder`, as they are called from where that path starts."""
    if isinstance(value, Mapping):
        return {key: _relocate(item, folder) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("./") and ".py:" in value:
        return f"./{folder}/{value[2:]}"
    return value


def _validate(kind: type[Strict], raw: Mapping[str, Any], path: Path) -> Any:
    try:
        return kind(**raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        found = f", found {first['input']!r}" if not isinstance(first["input"], Mapping) else ""
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown key; allowed here: {', '.join(_siblings(kind, first['loc']))}"
            found = ""
        raise BadInput(f"{path}: {key}: {message}{found}") from None


def _siblings(kind: type[BaseModel], location: Iterable[Any]) -> list[str]:
    """The keys that are allowed where the last part of `location` stands."""
    model: Any = kind
    for part in list(location)[:-1]:
        if isinstance(model, type) and issubclass(model, BaseModel):
            if part not in model.model_fields:
                continue
            annotation = model.model_fields[part].annotation
            candidates = [annotation, *getattr(annotation, "__args__", ())]
            candidates += [b for a in candidates for b in getattr(a, "__args__", ())]
            models = [a for a in candidates if isinstance(a, type) and issubclass(a, BaseModel)]
            model = models[0] if models else model
    return sorted(model.model_fields)


def _inherit(methods: Mapping[str, Any], path: Path) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for name, raw in methods.items():
        raw = dict(raw or {})
        parent = raw.pop("extends", None)
        if parent is not None and parent not in resolved:
            raise BadInput(
                f"{path}: methods.{name}.extends: {parent!r} is not a method above it; "
                f"there are: {', '.join(resolved) or 'none'}"
            )
        inherited = {k: v for k, v in resolved.get(parent, {}).items() if k not in INDIVIDUAL}
        resolved[name] = merge(inherited, raw)
    return resolved


def _prune(raw: dict[str, Any]) -> None:
    """Forget what methods and figures say of tasks and methods that a scale does not select."""
    for method in raw["methods"].values():
        tasks = method.get("tasks")
        if isinstance(tasks, Mapping):
            method["tasks"] = {t: v for t, v in tasks.items() if t in raw["tasks"]}
        elif tasks is not None:
            method["tasks"] = [t for t in tasks if t in raw["tasks"]]
    for name, figure in list((raw.get("figures") or {}).items()):
        for section in ("tasks", "methods"):
            if figure.get(section):
                figure[section] = [item for item in figure[section] if item in raw[section]]
                if not figure[section]:
                    raw["figures"].pop(name, None)
        if figure.get("ablation", "") not in {"", *(raw.get("ablations") or {})}:
            raw["figures"].pop(name, None)


INDIVIDUAL = ("label", "note", "tune")  # keys that a variant does not inherit


def _expand_ablations(
    ablations: Mapping[str, Any], methods: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    variants: dict[str, Any] = {}
    for ablation, raw in ablations.items():
        for part in ("tasks", "methods"):
            _mapping(path, f"ablations.{ablation}.{part}", raw.get(part))
        for method, grid in raw["methods"].items():
            key = f"{path}: ablations.{ablation}.methods.{method}"
            if method not in methods:
                raise BadInput(f"{key}: unknown method; there are: {', '.join(methods)}")
            solver, models = grid.get("solver") or {}, grid.get("model") or [None]
            for field, values in {**solver, "model": models}.items():
                if not isinstance(values, list):
                    raise BadInput(f"{key}.{field}: must be a list of values, found {values!r}")
            for model, *values in product(models, *solver.values()):
                settings = dict(zip(solver, values, strict=True))
                parts = [f"{k}_{v}" for k, v in settings.items()] + ([model] if model else [])
                name = ".".join([method, ablation, *parts]).replace("/", "_")
                parent = {k: v for k, v in methods[method].items() if k not in INDIVIDUAL}
                tasks = {}
                for task, special in raw["tasks"].items():
                    tasks[task] = merge(_tuned(parent, task), special or {})
                    tasks[task]["solver"] |= settings  # a value may be null
                variants[name] = {**parent, "tasks": tasks, "ablation": ablation}
                variants[name] |= {"model": model} if model else {}
    return variants


def _tuned(method: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The hyper-parameters that a method has on a task alone, which its variants share."""
    special = method.get("tasks")
    special = (special.get(task) or {}) if isinstance(special, Mapping) else {}
    return {"solver": dict(special.get("solver") or {})}


def _check_names(experiment: Experiment, path: Path) -> None:
    """Every name that one section uses must stand in another, every component must exist."""
    e = experiment
    for name, method in e.methods.items():
        for task in method.tasks or {}:
            _known(path, f"methods.{name}.tasks", task, e.tasks)
        _known(path, f"methods.{name}.model", method.model, e.models)
    for name, model in e.models.items():
        seen = [name]
        while (parent := e.models[seen[-1]].parent) is not None:
            _known(path, f"models.{seen[-1]}.parent", parent, e.models)
            if parent in seen:
                raise BadInput(f"{path}: models.{name}.parent: goes round in a circle")
            seen.append(parent)
        if model.learned and not all(e.models[other].learned for other in seen):
            raise BadInput(f"{path}: models.{name}.parent: {model.parent} has no network")
    _known(path, "floor", e.floor, e.methods)
    if e.limit:
        _known(path, "limit", e.limit, e.methods)
    for name, figure in e.figures.items():
        for task in figure.tasks:
            _known(path, f"figures.{name}.tasks", task, e.tasks)
        for method in figure.methods:
            _known(path, f"figures.{name}.methods", method, e.methods)
        for model in figure.models:
            _known(path, f"figures.{name}.models", model, e.models)
        if "assessment" in figure.needs and any(t.initial != "none" for t in e.tasks.values()):
            raise BadInput(f"{path}: figures.{name}.needs: assessment is of denoisers of pictures")
        if figure.ablation:
            _known(path, f"figures.{name}.ablation", figure.ablation, e.ablations)
    for name, metric in e.metrics.items():
        least = metric.get("members", 1)
        if not isinstance(least, int) or least < 1:
            raise BadInput(f"{path}: metrics.{name}.members: {least!r} is not a number of members")
        if "exact" in metric:
            _known(path, f"metrics.{name}.exact", metric["exact"], e.methods)
    longest = max(t.start + t.steps + 1 if t.initial != "none" else 1 for t in e.tasks.values())
    if longest > e.data.steps:
        raise BadInput(f"{path}: data.steps: {e.data.steps} is too short, a task needs {longest}")
    for name, task in e.tasks.items():
        if task.initial != "none" and task.start < e.context - 1:
            raise BadInput(
                f"{path}: tasks.{name}.start: {task.start} is too early, a model sees "
                f"{e.context} past states: at least {e.context - 1}"
            )
        if task.cases > len(e.data.rows("test")):
            raise BadInput(
                f"{path}: tasks.{name}.cases: {task.cases} is more than the "
                f"{len(e.data.rows('test'))} test trajectories"
            )
    for key, spec in _components(e):
        try:
            check(spec, e.base)
        except BadInput as error:
            raise BadInput(f"{path}: {key}: {error}") from None
        except KeyError:
            raise BadInput(
                f"{path}: {key}: class: missing, name it as package.module:Name"
            ) from None


def _components(e: Experiment) -> Iterable[tuple[str, Spec]]:
    yield "system", e.system
    for name, task in e.tasks.items():
        yield f"tasks.{name}.operator", task.operator
        yield f"tasks.{name}.system", e.system_of(name)
    for name, model in e.models.items():
        yield f"models.{name}.prior", model.prior
        if model.network is not None:
            yield f"models.{name}.network", model.network
    for name, method in e.methods.items():
        yield f"methods.{name}.solver", method.solver
        for task, special in (method.tasks or {}).items():
            yield f"methods.{name}.tasks.{task}.solver", {**method.solver, **special.solver}
    for name, metric in e.metrics.items():
        yield f"metrics.{name}", {k: value for k, value in metric.items() if k != "members"}
    for name, figure in e.figures.items():
        yield f"figures.{name}.draw", figure.draw


def _known(path: Path, key: str, name: str, allowed: Iterable[str]) -> None:
    if name not in allowed:
        raise BadInput(f"{path}: {key}: {name!r} is unknown; there are: {', '.join(allowed)}")
