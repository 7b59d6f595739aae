import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from accel_trainer.report.documents import as_csv, as_latex, as_markdown

HEADER = ["job", "loss", "n_%", "a|b"]
ROWS = [["a_1 & {b}", 0.123456789, 3, "x|y"], ["50% ~^\\ $#", None, None, None]]
NAMES = [
    "a_1",
    "50%",
    "R&D",
    "#3",
    "$5",
    "{x}",
    "a~b",
    "x^2",
    "c:\\d",
    "p < 0.0001",
    "é ü ß ñ",
    'say "so"',
    "a|b",
    "--x",
]


def test_csv_has_all_digits_and_is_read_back() -> None:
    lines = list(csv.reader(io.StringIO(as_csv(HEADER, ROWS))))
    assert lines == [HEADER, ["a_1 & {b}", "0.123456789", "3", "x|y"], ["50% ~^\\ $#", "", "", ""]]


def test_markdown_has_a_cell_for_each_column() -> None:
    lines = as_markdown(HEADER, ROWS, [2, 4, 2, 2]).splitlines()
    assert lines[1] == "| --- | ---: | ---: | --- |"
    assert lines[2] == r"| a_1 & {b} | 0.1235 | 3 | x\|y |"
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("__init__ *new*", r"\_\_init\_\_ \*new\*"),
        ("<b>x</b> &lt; R&D", r"\<b>x\</b> \&lt; R&D"),
        ("see [x](y) in [1, 2]", r"see \[x](y) in [1, 2]"),
        ("a`b ~~c~~ \\", r"a\`b \~\~c\~\~ \\"),
        ("`optimizer_args.lr`", "`optimizer_args.lr`"),
        ("in_the_word", "in_the_word"),
    ],
)
def test_markdown_shows_names_as_they_are(given: str, written: str) -> None:
    assert as_markdown(["job"], [[given]], [0]).splitlines()[2] == f"| {written} |"


def test_latex_escapes_what_means_something_else_there() -> None:
    text = as_latex(HEADER, ROWS, [2, 4, 2, 2])
    assert text.splitlines() == [
        r"\begin{tabular}{lrrl}",
        r"\toprule",
        r"job & loss & n\_\% & a\textbar{}b \\",
        r"\midrule",
        r"a\_1 \& \{b\} & 0.1235 & 3 & x\textbar{}y \\",
        r"50\% \textasciitilde{}\textasciicircum{}\textbackslash{} \$\# & -- & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def all_names() -> str:
    return as_latex(["name", "loss_%"], [[name, -0.5 - place] for place, name in enumerate(NAMES)], [2, 2])


def test_latex_is_a_tabular_of_whole_rows_in_which_every_character_is_itself() -> None:
    begin, top, header, middle, *rows, bottom, end = all_names().splitlines()
    assert (begin, end) == (r"\begin{tabular}{lr}", r"\end{tabular}")
    assert (top, middle, bottom) == (r"\toprule", r"\midrule", r"\bottomrule")
    assert len(rows) == len(NAMES)
    meaning = r"\\[&%$#_{}]|\\text[a-z]+\{\}|\$-\$"
    for line in (header, *rows):
        assert line.endswith(r" \\")
        cells = line.removesuffix(r" \\").split(" & ")
        assert len(cells) == 2
        for cell in cells:
            # What is left when all that means a character is taken out means nothing else.
            assert not re.search(r"[\\&%$#_{}~^<>|]", re.sub(meaning, "", cell)), cell
    assert rows[0].endswith(r"& $-$0.50 \\")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles_without_a_word(tmp_path: Path) -> None:
    document = [
        r"\documentclass{article}",
        r"\usepackage{booktabs}",
        r"\begin{document}",
        all_names(),
        r"\end{document}",
    ]
    (tmp_path / "table.tex").write_text("\n".join(document))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert (tmp_path / "table.pdf").exists(), said
    assert not re.search("Warning|Overfull|Missing character", said), said
