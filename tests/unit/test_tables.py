"""The long table, and the pages that are made of it."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from priorflow.config import load_experiment
from priorflow.stages import tables, vocabulary

COLUMNS = ["experiment", "task", "method", "case", "lead", "metric", "value", "members"]
N = 24


def tidy(task: str, scores: dict[str, dict], members: int = 8) -> pd.DataFrame:
    """Rows of one task; `scores` maps methods to metrics to a number or one number per case."""
    rows = [
        ("lorenz63", task, method, case, np.nan, metric, float(value), members)
        for method, metrics in scores.items()
        for metric, values in metrics.items()
        for case, value in enumerate(np.broadcast_to(values, N))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def methods(floor: float) -> dict[str, dict]:
    """Four methods whose cases vary together; `sda` and `enkf` cannot be told apart."""
    rng = np.random.default_rng(0)
    hard, noise = rng.uniform(0.5, 1.5, size=N), rng.normal(size=(2, N)) * 0.004
    noise -= noise.mean(1, keepdims=True)
    return {
        "forecast": {"crps": floor * hard, "rmse_mean": 2 * floor * hard, "seconds": 0.01},
        "sda": {"crps": 0.08 * hard + 2e-5, "log_prior": -281.0, "nfe": 256, "seconds": 0.8},
        "enkf": {"crps": 0.08 * hard + noise[0], "rmse_mean": 0.16 * hard + noise[1]},
        "bpf": {"crps": 0.05 * hard, "rmse_mean": 0.1 * hard, "simulator_evals": 15_360},
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> pd.DataFrame:
    """Two sources for one number, a method that was not run, and another experiment."""
    path = tmp_path_factory.mktemp("published") / "lorenz63.csv"
    path.write_text(
        "experiment,task,method,metric,value,std,source\n"
        "lorenz63,known_x0,sda,crps,0.270,,talk\n"
        "lorenz63,known_x0,sda,crps,0.112,0.017,paper <2>\n"
        "lorenz63,known_x0,ensf,rmse,0.298,,talk\n"
        "lorenz63,elsewhere,sda,rmse,0.1,,talk\n"
        "piv,known_x0,sda,crps,0.5,,talk\n"
    )
    return tables.read_published(path)


@pytest.fixture(scope="module")
def table(published) -> pd.DataFrame:
    """Two tasks: one that ranks methods, one whose floor is at the limit."""
    better = methods(0.2)
    better["flowdas"] = {
        "crps": 0.9 * better["enkf"]["crps"] - 0.01,
        "rmse_mean": 0.14,
        "nfe": 500,
    }
    metrics = pd.concat([tidy("known_x0", better), tidy("long_x0", methods(0.055))])
    return tables.build(
        metrics,
        published,
        limit="bpf",
        notes={"sda": "a slow one", "long_x0/enkf": "inflated & localised"},
        labels={"enkf": "My filter"},
    )


def row(table: pd.DataFrame, task: str, method: str, metric: str) -> pd.Series:
    """The one row of a task, method and metric."""
    keys = (table["task"] == task) & (table["method"] == method) & (table["metric"] == metric)
    assert keys.sum() == 1
    return table[keys].iloc[0]


def test_methods_are_ordered_over_the_cases_that_all_have():
    """One was run on the easier half alone: its mean is lower, and it is worse."""
    hard = np.repeat([0.1, 0.3], N // 2)
    metrics = tidy("t", {"forecast": {"crps": 2 * hard}, "sda": {"crps": hard}})
    easy = tidy("t", {"enkf": {"crps": 1.1 * hard}}).query("case < @N // 2")
    table = tables.build(pd.concat([metrics, easy]))
    assert table.method.tolist() == ["sda", "enkf", "forecast"]
    assert row(table, "t", "sda", "crps")["mean"] == pytest.approx(0.2)
    assert row(table, "t", "enkf", "crps")["mean"] == pytest.approx(0.11)
    assert table.shared.tolist() == pytest.approx([0.1, 0.11, 0.2])
    assert table.shared_n.tolist() == [N // 2] * 3
    assert row(table, "t", "sda", "crps").best
    (section,) = tables._sections(table)
    head = next(i for i, head in enumerate(section.heads) if head[0] == "CRPS, same 12")
    assert [r.cells[head].value for r in section.rows] == pytest.approx([0.1, 0.11, 0.2])
    (section,) = tables._sections(tables.build(metrics))
    assert not any("same" in head[0] for head in section.heads)


def test_rows_hold_means_intervals_costs_and_labels(table):
    """One row per number, in the columns that are promised."""
    assert list(table.columns) == tables.COLUMNS
    sda = row(table, "known_x0", "sda", "crps")
    assert sda["low"] < sda["mean"] < sda["high"]
    assert (sda["n"], sda["members"], sda["nfe"]) == (N, 8, 256)
    assert sda["seconds"] == pytest.approx(0.8)
    assert np.isnan(sda["simulator_evals"])
    assert (sda["method_label"], sda["metric_label"]) == ("SDA", "CRPS")
    assert row(table, "known_x0", "enkf", "crps")["method_label"] == "My filter"
    assert row(table, "long_x0", "enkf", "crps")["note"] == "inflated & localised"
    assert row(table, "known_x0", "enkf", "crps")["note"] == ""
    assert not set(table["metric"]) & set(vocabulary.COSTS)


def test_a_reference_is_never_the_best():
    """Though it is the closest to itself."""
    metrics = tidy("known_x0", methods(0.2))

    def ranked(**settings):
        return row(tables.build(metrics, **settings), "known_x0", "bpf", "crps")

    assert ranked()["best"]
    kept = ranked(references=["bpf"])
    assert kept["role"] == "reference"
    assert pd.isna(kept["best"])


def test_of_a_score_the_highest_is_the_best_and_cases_without_one_are_left_out():
    """A case without an event has no CSI of any method; one paired with it would not count."""
    hard = np.linspace(0.3, 0.7, N)
    hard[:6] = np.nan
    scores = {
        "persistence": {"csi_0.3": hard, "crps": 0.5},
        "sda": {"csi_0.3": hard - 0.1, "crps": 0.4},
        "flowdas": {"csi_0.3": hard + 0.1, "crps": 0.3},
        "flowdas_bridge": {"csi_0.3": hard + 0.2, "crps": 0.2},
    }
    table = tables.build(tidy("sparse_10", scores), floor="persistence")
    found = {name: row(table, "sparse_10", name, "csi_0.3") for name in scores}
    assert {r["n"] for r in found.values()} == {N - 6}
    assert found["sda"]["mean"] == pytest.approx(np.nanmean(hard) - 0.1)
    assert [found[m]["better_than_reference"] for m in list(scores)[1:]] == [False, True, True]
    assert [bool(r["best"]) for r in found.values()] == [False, False, False, True]
    assert vocabulary.measure("csi_0.3").arrow == vocabulary.measure("fss").arrow == "↑"


def test_published_values_are_joined(table):
    """All values of a number with their digits; what was not run stays with n = 0."""
    sda = row(table, "known_x0", "sda", "crps")
    assert sda["published"] == "0.270 | 0.112 ± 0.017"
    assert sda["published_source"] == "talk | paper <2>"
    ensf = row(table, "known_x0", "ensf", "rmse")
    assert (ensf["n"], ensf["published"]) == (0, "0.298")
    assert np.isnan(ensf["mean"])
    assert "elsewhere" not in set(table["task"])


def test_skill_flags_and_order(table):
    """Limit 1, floor 0; the limit is never the best; methods by CRPS."""
    assert row(table, "known_x0", "bpf", "crps")["skill"] == 1
    assert row(table, "known_x0", "forecast", "rmse_mean")["skill"] == 0
    assert 0.7 < row(table, "known_x0", "enkf", "crps")["skill"] < 0.9
    assert np.isnan(row(table, "known_x0", "sda", "log_prior")["skill"])
    known = table[(table["task"] == "known_x0") & (table["metric"] == "crps")]
    assert list(known["method"]) == ["bpf", "flowdas", "enkf", "sda", "forecast"]
    assert list(known["best"].fillna(False)) == [False, True, False, False, False]
    better = known.set_index("method")["better_than_reference"]
    assert better[["bpf", "flowdas", "enkf", "sda"]].all()
    assert better.isna()["forecast"]
    assert pd.isna(row(table, "known_x0", "sda", "log_prior")["best"])
    assert not row(table, "long_x0", "sda", "crps")["better_than_reference"]


def test_no_best_where_the_first_two_cannot_be_told_apart():
    """The lowest mean alone earns nothing."""
    scores = {k: v for k, v in methods(0.2).items() if k != "bpf"}
    table = tables.build(tidy("known_x0", scores))
    assert not table.loc[table["metric"] == "crps", "best"].any()
    assert table["skill"].isna().all()


def test_higher_is_better_is_known():
    """PSNR: the highest mean is the best and the first."""
    noise = np.random.default_rng(0).normal(size=N)
    scores = {m: {"psnr": v + noise} for m, v in {"pinv": 20, "dps": 24, "dcdp_ddim": 27}.items()}
    table = tables.build(tidy("inpainting", scores), floor="pinv")
    assert list(table["method"]) == ["dcdp_ddim", "dps", "pinv"]
    assert list(table["best"]) == [True, False, False]
    assert list(table["better_than_reference"].fillna(False)) == [True, True, False]


def test_spread_over_skill_is_pooled_over_cases():
    """√(mean spread² / mean error²), not the mean of the ratios."""
    error, spread = np.random.default_rng(1).uniform(0.1, 2, size=(2, N))
    scores = {"enkf": {"rmse_mean": error, "spread_skill": spread / error}}
    value = row(tables.build(tidy("known_x0", scores)), "known_x0", "enkf", "spread_skill")["mean"]
    assert value == pytest.approx(np.sqrt((spread**2).mean() / (error**2).mean()))


def test_leads_of_a_case_are_averaged():
    """n counts cases, not leads."""
    frames = [tidy("sr_16", {"enkf": {"crps": v}}).assign(lead=v) for v in (1, 3)]
    found = row(tables.build(pd.concat(frames)), "sr_16", "enkf", "crps")
    assert (found["mean"], found["n"]) == (2, N)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.drop(columns="case"), r"columns \['case'\]"),
        (lambda m: pd.concat([m, m.head(1)]), "occurs twice"),
        (lambda m: pd.concat([m, m.head(1).assign(experiment="piv")]), "one experiment"),
        (lambda m: m.head(0), "one experiment"),
        (lambda m: m.assign(members=range(len(m))), "one number"),
    ],
)
def test_bad_metrics_are_refused(change, message):
    """In one line, before anything is computed."""
    with pytest.raises(ValueError, match=message):
        tables.build(change(tidy("known_x0", {"sda": {"crps": 1.0}})))


def test_csv_round_trip(table, tmp_path):
    """What is written is what is read, to six digits."""
    tables.write_csv(table, tmp_path / "table.csv")
    again = tables.read_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(again, table, rtol=1e-5)


def test_markdown_marks(table, tmp_path):
    """Best in bold, ends named, footnotes, and a warning on the task that cannot rank."""
    tables.write_markdown(table, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    known, long = text.split("## Known initial state")[1].split("## Long window")
    flowdas = row(table, "known_x0", "flowdas", "crps")
    cell = f"**{flowdas['mean']:.4f}** [{flowdas['low']:.4f}, {flowdas['high']:.4f}]"
    assert cell in known
    assert "*Bootstrap filter (limit)*" in known
    assert "*Forecast (floor)*" in known
    assert "| SDA [a] |" in known
    assert "[a] a slow one" in known
    assert "*SDA (published)* [1] | 0.270 |" in known
    assert "*SDA (published)* [2] | 0.112 ± 0.017 |" in known
    assert "[2] paper <2>" in known
    assert "cannot rank" not in known
    assert "1.10 times" in long
    assert "−281" in long
    heads = [line.count("|") for line in known.splitlines() if line.startswith("|")]
    assert len(set(heads)) == 1


def test_a_cell_of_fewer_cases_says_so(tmp_path):
    """No number without its n."""
    values = np.where(np.arange(N) < 20, np.arange(N), np.nan)
    table = tables.build(tidy("known_x0", {"sda": {"crps": 1.0, "w1": values}}))
    tables.write_markdown(table, tmp_path / "table.md")
    assert "n = 20" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, ""),
        ({"linear": False}, "Nonlinear operator."),
        ({"linear": True}, "Linear operator."),
        (
            {"condition": [1.0], "rank_deficiency": [169], "dimensions": 1024},
            "Linear operator, κ = 1.0, rank deficiency 169 of 1,024.",
        ),
        (
            {"condition": [1.26e6, 23.4, 4470.0], "rank_deficiency": [0, 2, 0], "dimensions": 9},
            "Linear operator, κ = 4,500 (median over cases; 23 to 1.3e6), "
            "rank deficiency 0 (median over cases; 0 to 2) of 9.",
        ),
    ],
)
def test_what_an_operator_is_stands_under_its_task(known, said, tmp_path):
    """And what κ is, where there is one; in all forms, also of a table that is read again."""
    known = {"linear": True, **known} if known else {}
    metrics = pd.concat([tidy(task, {"pinv": {"psnr": 20.0}}) for task in ("inpainting", "mine")])
    tables.write_csv(tables.build(metrics, operators={"mine": known}), tmp_path / "t.csv")
    table = tables.read_csv(tmp_path / "t.csv")
    for name, write in (("md", tables.write_markdown), ("html", tables.write_html)):
        write(table, tmp_path / name)
    text, page = (tmp_path / "md").read_text(), Page()
    page.feed((tmp_path / "html").read_text())
    first, second = text.split("## Mine (`mine`)")
    assert second.startswith(f"\n\n{said}\n\n|" if said else "\n\n|")
    assert ("κ: condition number" in first) == ("κ" in said)
    assert page.text.count("rank deficiency:") == ("κ" in said)
    assert said in page.text
    tables.write_latex(table, tmp_path / "tex")
    caption = (tmp_path / "tex").read_text().split(r"\caption{")[2].split("}\n")[0]
    assert caption == f"Lorenz-63, mine. {said}".strip().replace("κ", r"$\kappa$")


def test_a_metric_without_values_says_why(tmp_path):
    """In the column of dashes, also where there is but a published value."""
    scores = {"dps": {"psnr": 20.0, "lpips_alex": np.nan, "mine": np.nan}, "mcg": {"psnr": 17.0}}
    columns = ["experiment", "task", "method", "metric", "value", "std", "source"]
    row = ["lorenz63", "inpainting", "dps", "lpips", "0.2", "", "talk"]
    table = tables.build(tidy("inpainting", scores), pd.DataFrame([row], columns=columns))
    tables.write_markdown(table, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    (remark,) = (line for line in text.splitlines() if line.startswith("- [–]"))
    reason = vocabulary.measure("lpips_alex").missing
    expected = f"LPIPS (AlexNet) is not available: {reason}; mine is not available"
    expected += "; LPIPS: published, not measured at this scale"
    assert remark == f"- [–] {expected}"
    tables.write_html(table, tmp_path / "table.html")
    assert "LPIPS (AlexNet) is not available" in (tmp_path / "table.html").read_text()
    assert "resized to 64²" in text


def test_latex_is_balanced_and_escaped(table, tmp_path):
    """Every row has as many cells as columns, and nothing breaks the compiler."""
    tables.write_latex(table, tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 2
    assert r"inflated \& localised" in text
    assert "−" not in text
    for body in text.split(r"\begin{tabular}{")[1:]:
        columns = len(body.split("}")[0])
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        assert {line.count(" & ") + 1 for line in rows} == {columns}


class Page(HTMLParser):
    """The text of a page, its open tags and its links to anything outside."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.text, self.outside, self.tasks = "", [], []

    def handle_starttag(self, tag, attrs):
        """Note ids of sections and addresses."""
        attrs = dict(attrs)
        self.outside += [v for k, v in attrs.items() if k in ("src", "href")]
        self.tasks += [attrs["id"]] if tag == "section" else []
        if tag != "meta":
            self.stack.append(tag)

    def handle_endtag(self, tag):
        """Every tag closes the one that was opened last."""
        assert self.stack.pop() == tag

    def handle_data(self, data):
        """Collect what can be read."""
        self.text += data + " "


def test_html_is_whole_and_self_contained(table, tmp_path):
    """Well-formed, one section per task, all numbers of the Markdown in it, nothing outside."""
    tables.write_html(table, tmp_path / "table.html")
    tables.write_markdown(table, tmp_path / "table.md")
    text = (tmp_path / "table.html").read_text()
    page = Page()
    page.feed(text)
    assert page.stack == []
    assert page.tasks == ["known_x0", "long_x0"]
    assert page.outside == []
    assert "url(" not in text
    assert "paper <2>" in page.text
    rows = [r for r in (tmp_path / "table.md").read_text().splitlines() if r.startswith("| ")]
    cells = [c for r in rows for c in r.replace("*", "").replace("°", "").split(" | ")[1:-1]]
    numbers = {part for cell in cells for part in cell.split(" [") if any(map(str.isdigit, part))}
    assert len(numbers) > 30
    assert [n for n in numbers if n.rstrip("]") not in page.text] == []


@pytest.mark.parametrize("name", ["images", "lorenz63", "navier_stokes"])
def test_published_values_have_a_place(name):
    """Their tasks are those of the experiment: otherwise they would be dropped without a word."""
    root = Path(__file__).parents[2] / "workflow"
    published = tables.read_published(root / "published" / f"{name}.csv")
    experiment = load_experiment(name, "laptop", root / "experiments")
    assert set(published["experiment"]) == {name}
    assert set(published["task"]) <= set(experiment.tasks)


def test_vocabulary_falls_back_to_names():
    """Extensions need no entry; variants and suffixes are put in words."""
    assert vocabulary.method_label("mine") == "mine"
    assert vocabulary.method_label("mine.fast") == "mine.fast"
    assert vocabulary.method_label("flowdas.released") == "FlowDAS (released)"
    assert vocabulary.method_label("dps.steps.steps_20") == "DPS (steps 20)"
    assert vocabulary.method_label("dcdp_tweedie.x.start_50.power_0.5") == (
        "DCDP (Tweedie) (start 50, power 0.5)"
    )
    assert vocabulary.task_label("sr_16_rollout") == "super-resolution from 16², rollout"
    assert vocabulary.task_label("inpainting_noise0") == "inpainting, no noise"
    assert vocabulary.task_label("hdr_noise005_rollout").endswith(", noise 0.05, rollout")
    assert vocabulary.task_label("mine_rollout") == "mine_rollout"
    assert vocabulary.measure("nfe").label == "NFE"
    assert vocabulary.measure("mine").label == "mine"
    with pytest.raises(ValueError, match="direction: value 'up'"):
        vocabulary.Measure("x", direction="up")
