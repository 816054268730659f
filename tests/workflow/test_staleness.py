"""What runs again after an edit, and what does not."""

import time

import pytest
from helpers import Project, verbs

REPORTED = {"Evaluate", "Tabulate", "Draw"}
METHODS = ("forecast", "bpf", "flowdas", "flowdas_bridge")


def of(jobs: set[str], verb: str) -> set[str]:
    """The jobs of one kind, without the kind and the experiment."""
    return {job.split(": ", 1)[1] for job in jobs if job.startswith(verb)}


def figure(project: Project) -> str:
    """The name of a figure of the run."""
    names = sorted(file.stem for file in (project.tree / "figures").glob("*.png"))
    if not names:
        pytest.skip("the experiment has no figure at smoke scale")
    return names[0]


def test_second_run_does_nothing(project: Project) -> None:
    before = project.listing()
    begin = time.monotonic()
    said = project.run()
    seconds = time.monotonic() - begin
    assert "Nothing to be done" in said.stdout + said.stderr
    assert project.listing() == before
    assert seconds < 10


@pytest.mark.parametrize("file", ["metrics/crps.py", "solvers/base.py", "systems/lorenz63.py"])
def test_comments_and_docstrings_change_nothing(project: Project, file: str) -> None:
    path = project.root / "src/priorflow" / file
    path.write_text('"""Another docstring.\n\n' + path.read_text()[3:] + "\n# A comment.\n")
    assert project.jobs() == set()


def test_metric_evaluates_again(project: Project) -> None:
    project.patch(
        "metrics/crps.py", "    return score.mean(", "    score = score * 1\n    return score.mean("
    )
    jobs = project.jobs()
    assert of(jobs, "Evaluate") == set(METHODS)
    assert of(jobs, "Tabulate") == {"lorenz63"}
    assert verbs(jobs) <= REPORTED


def test_metric_evaluates_again_with_the_new_code(project: Project) -> None:
    before = project.listing()
    project.patch(
        "metrics/crps.py",
        "    return score.mean(",
        "    score = score * 0 + 7\n    return score.mean(",
    )
    project.run()
    assert project.jobs() == set()
    rows = (project.tree / "tables/lorenz63.csv").read_text().splitlines()
    crps = [row for row in rows if ",crps," in row and ",7,7,7," in row]
    assert len(crps) == len(METHODS)
    changed = {name for name, at in project.listing().items() if before.get(name) != at}
    parts = {name.split("/")[3] for name in changed if name.startswith("results/smoke/lorenz63/")}
    assert {"metrics", "tables"} <= parts <= {"metrics", "tables", "figures"}


def test_setting_of_a_method_infers_it_again(project: Project) -> None:
    def change(experiment: dict) -> None:
        experiment["scales"]["smoke"]["methods"]["flowdas"]["solver"]["steps"] = 11

    project.edit(change)
    jobs = project.jobs()
    assert of(jobs, "Infer") == {"flowdas on known_x0"}
    assert of(jobs, "Evaluate") == {"flowdas"}
    assert of(jobs, "Tabulate") == {"lorenz63"}
    assert verbs(jobs) <= REPORTED | {"Infer"}


def test_code_of_a_method_infers_it_again(project: Project) -> None:
    project.patch(
        "solvers/assimilation/forecast.py", "        states = []", "        states = list()"
    )
    jobs = project.jobs()
    assert of(jobs, "Infer") == {"forecast on known_x0"}
    assert of(jobs, "Evaluate") == {"forecast"}
    assert verbs(jobs) <= REPORTED | {"Infer"}


def test_width_of_a_network_trains_it_again(project: Project) -> None:
    def change(experiment: dict) -> None:
        experiment["scales"]["smoke"]["models"]["drift"]["network"]["width"] = 24

    project.edit(change)
    jobs = project.jobs()
    assert of(jobs, "Train") == {"drift"}
    assert of(jobs, "Infer") == {"flowdas on known_x0"}
    assert of(jobs, "Evaluate") == {"flowdas"}
    assert verbs(jobs) <= REPORTED | {"Infer", "Train"}


def test_noise_observes_again(project: Project) -> None:
    def change(experiment: dict) -> None:
        experiment["tasks"]["known_x0"]["operator"]["noise_std"] = 0.5

    project.edit(change)
    jobs = project.jobs()
    assert of(jobs, "Observe") == {"known_x0"}
    assert len(of(jobs, "Infer")) == len(METHODS)
    assert verbs(jobs).isdisjoint({"Simulate", "Chunk", "Train"})


def test_deleted_figure_is_drawn_alone(project: Project) -> None:
    name = figure(project)
    (project.tree / f"figures/{name}.png").unlink()
    assert project.jobs() == {f"Draw lorenz63: {name}"}
    drawn = (project.tree / f"figures/{name}.svg").read_bytes()
    project.run()
    assert (project.tree / f"figures/{name}.png").is_file()
    assert (project.tree / f"figures/{name}.svg").read_bytes() == drawn


def test_words_compute_nothing(project: Project) -> None:
    """A title, a label, a caption: at most tables and figures are written again."""

    def change(experiment: dict) -> None:
        experiment["title"] = "Another title"
        experiment["about"] = "Other words."
        experiment["methods"]["bpf"]["label"] = "another label"
        experiment["tasks"]["known_x0"]["label"] = "another label"
        for name in experiment["figures"]:
            experiment["figures"][name]["caption"] = "Another caption."

    project.edit(change)
    assert verbs(project.jobs()) <= {"Tabulate", "Draw"}


def test_caption_draws_its_figure_only(project: Project) -> None:
    name = figure(project)

    def change(experiment: dict) -> None:
        experiment["figures"][name]["caption"] = "Another caption."

    project.edit(change)
    assert project.jobs() <= {f"Draw lorenz63: {name}"}
