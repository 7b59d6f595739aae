"""The comparison of docs/wandb.md as a saved view of a project on Weights & Biases, or as a report.

    pip install wandb-workspaces
    python wandb_view.py LAB PROJECT
    python wandb_view.py LAB PROJECT --metric acc1 --parameters optimizer_args.lr batch_size seed --report

Needs a login (`wandb login`) and a server that answers: it is wandb's public API of workspaces and reports. What is
there already is left alone: each call makes a new view or report, and prints its address.
"""

import argparse

from wandb_workspaces import expr
from wandb_workspaces import workspaces as ws
from wandb_workspaces.reports import v2 as wr

TRAININGS = "JobType = 'train'"


def panels(metric: str, parameters: list[str]) -> list[wr.LinePlot | wr.ParallelCoordinatesPlot | wr.BarPlot]:
    """Groups of replicates as a mean with a band of a standard deviation, best values as bars, and what led to them."""
    band = {"x": "epoch", "groupby": "Group", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in parameters]
    best = wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(f"best/{metric}"))
    return [
        wr.LinePlot(title=f"Validation: {metric}", y=[f"val/{metric}"], layout=wr.Layout(x=0, y=0, w=12, h=8), **band),
        wr.LinePlot(
            title="Training: loss", y=["train/loss"], log_y=True, layout=wr.Layout(x=12, y=0, w=12, h=8), **band
        ),
        wr.BarPlot(
            title=f"Best {metric}",
            metrics=[wr.SummaryMetric(f"best/{metric}")],
            groupby="Group",
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            layout=wr.Layout(x=0, y=8, w=12, h=8),
        ),
        wr.ParallelCoordinatesPlot(
            title=f"What leads to the best {metric}",
            columns=[*columns, best],
            layout=wr.Layout(x=12, y=8, w=12, h=8),
        ),
    ]


def view(entity: str, project: str, metric: str, parameters: list[str]) -> ws.Workspace:
    """The trainings of a project by their groups, the best first, and the panels in one section."""
    runs = ws.RunsetSettings(
        filters=TRAININGS,
        groupby=[expr.Metric("Group")],
        order=[expr.Ordering(expr.Summary(f"best/{metric}"), ascending=False)],
        pinned_columns=[f"summary:best/{metric}", "summary:parameters", "summary:seconds"],
    )
    section = ws.Section(name="Comparison", panels=panels(metric, parameters), is_open=True)
    return ws.Workspace(
        entity=entity, project=project, name=f"Comparison by {metric}", sections=[section], runset_settings=runs
    )


def report(entity: str, project: str, metric: str, parameters: list[str]) -> wr.Report:
    """The same as a page with room for text."""
    runs = wr.Runset(
        entity=entity,
        project=project,
        name="Trainings",
        filters=TRAININGS,
        groupby=["Group"],
        order=[wr.OrderBy(wr.SummaryMetric(f"best/{metric}"), ascending=False)],
    )
    grid = wr.PanelGrid(runsets=[runs], panels=panels(metric, parameters))
    about = (
        "Replicates, which differ in nothing but the seed, are one line: the mean, and a standard deviation around it."
    )
    return wr.Report(
        entity=entity,
        project=project,
        title=f"Comparison by {metric}",
        blocks=[wr.H1("Comparison"), wr.P(about), grid],
    )


def main(words: list[str] | None = None) -> None:
    """Make it, and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project")
    parser.add_argument("--metric", default="acc1", help="the primary metric of the jobs")
    parser.add_argument("--parameters", nargs="+", default=["optimizer_args.lr", "batch_size", "seed"])
    parser.add_argument("--report", action="store_true", help="a report, in place of a view")
    given = parser.parse_args(words)
    make = report if given.report else view
    made = make(given.entity, given.project, given.metric, given.parameters)
    made.save()
    print(made.url)


if __name__ == "__main__":
    main()
