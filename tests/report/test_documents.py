import csv
import io
import re

from accel_trainer.report.documents import as_csv, as_latex, as_markdown

HEADER = ["job", "loss", "n_%", "a|b"]
ROWS = [["a_1 & {b}", 0.123456789, 3, "x|y"], ["50% ~^\\ $#", None, None, None]]


def test_csv_has_all_digits_and_is_read_back() -> None:
    lines = list(csv.reader(io.StringIO(as_csv(HEADER, ROWS))))
    assert lines == [HEADER, ["a_1 & {b}", "0.123456789", "3", "x|y"], ["50% ~^\\ $#", "", "", ""]]


def test_markdown_has_a_cell_for_each_column() -> None:
    lines = as_markdown(HEADER, ROWS, [2, 4, 2, 2]).splitlines()
    assert lines[1] == "| --- | ---: | ---: | --- |"
    assert lines[2] == r"| a_1 & {b} | 0.1235 | 3 | x\|y |"
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}


def test_latex_escapes_what_means_something_else_there() -> None:
    text = as_latex(HEADER, ROWS, [2, 4, 2, 2])
    assert text.splitlines() == [
        r"\begin{tabular}{lrrl}",
        r"\toprule",
        r"job & loss & n\_\% & a|b \\",
        r"\midrule",
        r"a\_1 \& \{b\} & 0.1235 & 3 & x|y \\",
        r"50\% \textasciitilde{}\textasciicircum{}\textbackslash{} \$\# & -- & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
