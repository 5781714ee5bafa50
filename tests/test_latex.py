"""The LaTeX table: its contents, its fit to a page, and that LaTeX compiles it."""

from __future__ import annotations

import re
import shutil
import string
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mvae.measure import ACCURACY, Measure
from mvae.trial import Trial
from sweeps.planning.plan import Cell, plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.comparison import Report
from sweeps.table.files import tabulate
from sweeps.table.latex import latex, latex_differences
from sweeps.table.latex_text import escaped, typeset, wrapped
from sweeps.table.published import TABLE_4, Quantity, Table
from sweeps.table.published_likelihoods import PUBLISHED_QUANTITIES, QUANTITIES, likelihood_table
from sweeps.table.rounding import as_printed

LIKELIHOOD = Measure("likelihood", 1, "test/log_marginal")
HOSTILE = (
    string.punctuation,
    "[x] & y",
    "*",
    "50% of $x_1$ \\input{y}",
    "naïve Çelik ße",
    "Đ 模型 ✓ ±1 → β",
    "a\nb",
)
"""Names that LaTeX would read as commands, or cannot print."""

Values = Callable[[Cell], float | None]


def made(root: Path, cells: Sequence[Cell], values: Values, **settings: object) -> Report:
    """Makes a report of cells whose values come from a function; None means no result."""
    store = Store.open(root, "main", create=True)
    planned = plan(cells, store, "f")
    metrics: dict[tuple[str, Measure], dict[str, float]] = {}
    trials: dict[str, Trial] = {}
    for cell, key in zip(planned.cells, planned.keys, strict=True):
        value = values(cell)
        trials[key] = cell.trial
        if value is not None:
            metrics.setdefault((key, cell.measure), {})[cell.metric] = value
    for (key, measure), found in metrics.items():
        store.results.write(Result(key, measure.token, trials[key].model_dump(), found, {}, []))
    return tabulate(planned, store.results, **settings)  # type: ignore[arg-type]


def accuracies(arms: Sequence[str], columns: Sequence[float], seeds: int = 3) -> list[Cell]:
    """Cells of Table 4."""
    trial = Trial.create(dataset="fashion_mnist", model="mvae", image_network="mlp")
    return [
        Cell(
            *(arm, column, trial.with_(paired_fraction=column, seed=10 * seed + arms.index(arm)), ACCURACY),
            published=TABLE_4.published(arm, column),
            arm=arm,
        )
        for arm in arms
        for column in columns
        for seed in range(seeds)
    ]


def likelihoods(
    quantities: Sequence[Quantity], table: Table | None, rows: Sequence[str] = ("jmvae", "mvae")
) -> list[Cell]:
    """Cells whose columns are different quantities."""
    trial = Trial.create(dataset="binary_mnist", model="mvae")
    return [
        Cell(
            *(row, quantity.label, trial.with_(seed=10 * seed + rows.index(row)), LIKELIHOOD),
            published=table.published(row, quantity.label) if table else None,
            arm=row,
            quantity=quantity.metric,
        )
        for row in rows
        for quantity in quantities
        for seed in range(2)
    ]


def near_published(cell: Cell) -> float:
    return (cell.published or 0.5) + 0.01 * (cell.trial.seed // 10)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Every arm and fraction of Table 4, three seeds."""
    cells = accuracies(tuple(TABLE_4.rows), TABLE_4.shares)
    return made(tmp_path_factory.mktemp("wide"), cells, near_published, table=TABLE_4)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two arms, two fractions, three seeds; some seeds have no result, and one trial failed."""
    cells = accuracies(("nn", "mvae"), (0.1, 1.0))
    failing = cells[-1].trial.key("f")

    def value(cell: Cell) -> float | None:
        none = cell.row == "mvae" and (cell.column == 1.0 or cell.trial.seed > 10)
        return None if none else 0.8 + 0.01 * (cell.trial.seed // 10)

    return made(tmp_path_factory.mktemp("narrow"), cells, value, table=TABLE_4, failures={failing: "loss is nan"})


@pytest.fixture(scope="module")
def of_quantities(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Tables 1 and 2: six long-named columns."""
    table = likelihood_table("binary_mnist")
    return made(tmp_path_factory.mktemp("six"), likelihoods(PUBLISHED_QUANTITIES, table), near_published, table=table)


def rows_of(text: str) -> list[list[str]]:
    """Cells of each line between the rules."""
    body = "".join(re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL)).replace("\\addlinespace\n", "")
    return [[cell.strip() for cell in line.removesuffix(r" \\").split(" & ")] for line in body.splitlines()]


def headings(text: str) -> list[str]:
    """Lines below the rule across the columns, in every part of the table."""
    lines = re.findall(r"\\cmidrule\(l\)\{[\d-]+\}\n& (.*) \\\\\n\\midrule", text)
    return [
        re.sub(r"\\begin\{tabular\}\[b\]\{@\{\}r@\{\}\}|\\end\{tabular\}", "", one)
        for line in lines
        for one in line.split(" & ")
    ]


# Contents


def test_our_values_are_above_the_published_values_of_the_same_column(wide: Report) -> None:
    text = latex(wide)
    assert headings(text) == ["0.1\\%", "0.2\\%", "0.5\\%", "1\\%", "2\\%", "5\\%", "10\\%", "50\\%", "100\\%"]
    rows = rows_of(text)
    for arm, published in TABLE_4.rows.items():
        place = next(place for place, row in enumerate(rows) if row[0] == arm)
        ours, spread, paper = rows[place : place + 3]
        assert paper[0] == r"\quad\emph{paper}" and paper[1:] == [f"${as_printed(value)}$" for value in published]
        assert all(re.fullmatch(r"\$0\.\d{3}\$", one) for one in ours[1:]), (
            "a value shows two digits of its spread, .010"
        )
        assert [float(one.strip("$")) for one in ours[1:]] == pytest.approx([p + 0.01 for p in published], abs=6e-4)
        assert all(r"\pm 0.010" in one for one in spread[1:])


def test_a_narrow_table_has_each_spread_after_its_mean(narrow: Report) -> None:
    (nn, *_) = rows_of(latex(narrow))
    assert nn == ["nn", r"$0.810 \pm 0.010$", r"$0.810 \pm 0.010$"]


def test_cells_with_missing_seeds_are_marked_and_explained_in_the_caption(narrow: Report) -> None:
    text = latex(narrow)
    mvae = next(row for row in rows_of(text) if row[0] == "mvae")
    assert mvae == ["mvae", r"$0.800$\rlap{$^\dagger$}", "failed"]
    assert r"$\dagger$: fewer seeds." in text and "Failed trials: 1." in text
    assert r"mean $\pm$ standard deviation over 3 seeds" in text


def test_the_caption_has_the_protocol_and_the_file_names_the_packages_it_needs(wide: Report) -> None:
    text = latex(wide)
    assert text.startswith("% ") and r"\usepackage{booktabs}" in text.splitlines()[0]
    (caption,) = re.findall(r"\\caption\{(.*?)\}\n\\label\{(.*?)\}", text, re.DOTALL)
    for line in wide.caption:
        assert escaped(line) in caption[0]
    assert "Table 4 of the paper" in caption[0] and caption[1] == "tab:table-4-fashion-mnist"


def test_differences_have_signs_and_are_omitted_if_no_seed_is_shared(wide: Report, tmp_path: Path) -> None:
    assert latex_differences(wide) == "", "these rows have their own numbers of seeds"
    trial = Trial.create(dataset="digits", model="mvae")
    cells = [
        Cell(row, 1.0, trial.with_(seed=seed, latents=latents), ACCURACY, None, "mvae")
        for row, latents in (("nn", 4), ("mvae", 8))
        for seed in range(2)
    ]
    report = made(tmp_path / "two", cells, lambda cell: 0.8 - 0.1 * (cell.row == "mvae") * (1 + cell.trial.seed))
    text = latex_differences(report)
    assert rows_of(text) == [["mvae $-$ nn", r"$-0.150 \pm 0.071$"]]
    assert "Test accuracy: difference" in text and r"\label{tab:digits-test-accuracy-differences}" in text


def test_a_table_absent_from_the_paper_names_its_heading_and_has_no_published_line(tmp_path: Path) -> None:
    cells = likelihoods(QUANTITIES[:2], None)
    report = made(tmp_path, cells, lambda _: -86.0, axis="quantity", heading="Figure 6 on mnist19: more terms")
    text = latex(report)
    assert "paper" not in "".join(row[0] for row in rows_of(text))
    assert r"\caption{Figure 6 on mnist19: more terms." in text and r"\label{tab:figure-6-on-mnist19}" in text


def test_tables_1_and_2_have_formulas_as_column_headings_and_the_usual_data_set_name(of_quantities: Report) -> None:
    text = latex(of_quantities)
    assert headings(text)[0] == r"$\log p(x_{1})$ by\\ $q(z \mid x_{1}, x_{2})$"
    assert "on binarised MNIST (Tables 1 and 2 of the paper)" in text


# Fit to the page


def test_nine_columns_fit_one_table_and_twenty_quantities_are_split_without_losing_any(
    wide: Report, tmp_path: Path
) -> None:
    assert latex(wide).count(r"\toprule") == 1
    report = made(tmp_path / "all", likelihoods(QUANTITIES, None), near_published, axis="quantity")
    text = latex(report)
    assert text.count(r"\toprule") > 1
    shown = ["".join(heading.split()).replace("\\\\", "") for heading in headings(text)]
    assert shown == ["".join(typeset(quantity.label).split()) for quantity in QUANTITIES]
    rows = rows_of(text)
    assert sum(len(row) - 1 for row in rows if row[0] == "mvae") == len(QUANTITIES)


def test_a_long_table_continues_in_further_floats_with_one_number_and_one_label(tmp_path: Path) -> None:
    names = tuple(f"row {number}" for number in range(90))
    report = made(tmp_path, likelihoods(QUANTITIES[:1], None, names), near_published, axis="quantity")
    text = latex(report)
    floats = text.count(r"\begin{table}")
    assert floats > 1 and text.count(r"\label{") == 1
    assert text.count(r"\addtocounter{table}{-1}") == floats - 1
    assert [row[0] for row in rows_of(text)] == list(names)


# Text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("50% & more_of #1", r"50\% \& more\_of \#1"),
        ("{a} $b ~c ^d", r"\{a\} \$b \textasciitilde{}c \textasciicircum{}d"),
        ("\\end", r"\textbackslash{}end"),
        ("a < b | c > d", "a $<$ b $|$ c $>$ d"),
        ("[x] *", "{[}x{]} {*}"),
        ("two\n\tlines", "two lines"),
        ("é ± 模", r"é $\pm$ {[}U+6A21{]}"),
    ],
)
def test_special_characters_are_escaped_for_latex(text: str, written: str) -> None:
    assert escaped(text) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("log p(x1,x2) by q(z|x1,x2)", r"$\log p(x_{1}, x_{2})$ by $q(z \mid x_{1}, x_{2})$"),
        ("log p(x1|others), 5%", r"$\log p(x_{1} \mid \mathrm{others})$, 5\%"),
        ("top(x1)", "top(x1)"),
    ],
)
def test_densities_are_formulas(text: str, written: str) -> None:
    assert typeset(text) == written


def test_line_wrapping_never_splits_a_formula() -> None:
    assert wrapped("log p(x1|x2), the conditional", 12) == ["log p(x1|x2),", "the", "conditional"]
    assert wrapped("", 12) == [""]


# Compilation


@pytest.fixture(scope="module")
def pdflatex() -> str:
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, encoding="utf-8", timeout=60)
    if not found.stdout.strip():
        pytest.skip("LaTeX's package booktabs is not installed (Debian: texlive-latex-recommended)")
    return program


def test_latex_compiles_every_kind_of_table_within_its_page(
    pdflatex: str, wide: Report, narrow: Report, of_quantities: Report, tmp_path: Path
) -> None:
    signed = accuracies(("nn", "mvae"), TABLE_4.shares)
    shared = [
        Cell(
            f"{cell.row.upper()} (own)",
            cell.column,
            cell.trial.with_(latents=4 if cell.row == "nn" else 8, seed=cell.trial.seed // 10),
            ACCURACY,
            None,
            cell.row,
        )
        for cell in signed
    ]
    hostile = likelihoods(QUANTITIES[:1], None, HOSTILE)
    rows = tuple(f"MVAE19 fixed noise quantity number {number}" for number in range(90))
    reports = {
        "wide": wide,
        "narrow": narrow,
        "quantities": of_quantities,
        "bands": made(tmp_path / "all", likelihoods(QUANTITIES, None), lambda _: -6234.5, axis="quantity"),
        "long": made(tmp_path / "long", likelihoods(QUANTITIES[:3], None, rows), near_published, axis="quantity"),
        "hostile": made(tmp_path / "hostile", hostile, near_published, axis="a_b%", heading=" ".join(HOSTILE)),
        "empty": made(tmp_path / "empty", accuracies(("nn",), (0.1,)), lambda _: None, table=TABLE_4),
        "signs": made(tmp_path / "signs", shared, lambda cell: 0.8 - 0.1234 * (cell.row[0] == "M") * cell.trial.seed),
    }
    texts = {name: latex(report) for name, report in reports.items()}
    texts["differences"] = latex_differences(reports["signs"])
    assert texts["differences"]
    for name, text in texts.items():
        (tmp_path / f"{name}.tex").write_text(text, encoding="utf-8")
    inputs = "\n".join(rf"\input{{{name}}}\clearpage" for name in texts)
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + inputs + "\n\\end{document}\n"
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", errors="replace", timeout=300)
    assert ran.returncode == 0, ran.stdout[-3000:]
    log = (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")
    for complaint in ("Overfull \\hbox", "Float too large", "Missing character", "multiply defined"):
        assert complaint not in log, log[log.index(complaint) - 200 :][:600]
