"""A graph of torch.export, in a .pt2 file."""

from pathlib import Path

import torch
from torch import Tensor

from accel_trainer.core.installed import version_of
from accel_trainer.export.form import ExportOptions, Form, Use
from accel_trainer.export.graph import Graph, untraceable, without_places
from accel_trainer.export.source import Source

PROGRAM = "model.pt2"
CODE = """\
import torch
from preprocessing import preprocess

model = torch.export.load("model.pt2").module()
with torch.inference_mode():
    {output} = model({inputs})
"""


def traced_program(source: Source, graph: Graph) -> torch.export.ExportedProgram:
    """With batches of any size. Raises UserError for a model of which torch cannot make a graph."""
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            program = torch.export.export(graph.module, (graph.example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # of the model's own code, in every way there is
        raise untraceable(source, "a graph", error) from error
    without_places(program.graph_module)
    return program


def write_program(source: Source, folder: Path, options: ExportOptions) -> Form:
    """model.pt2, compared with the model after it was loaded again. Raises UserError."""
    graph = Graph.of(source, options)
    torch.export.save(traced_program(source, graph), folder / PROGRAM)
    loaded = torch.export.load(folder / PROGRAM).module()

    def run(inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = loaded(inputs)
            return output

    checks = graph.compare(run, source, PROGRAM)
    code = CODE.format(output=graph.output_name, inputs=source.input_of_use)
    notes = [] if graph.note is None else [graph.note]
    notes.append(f"`{PROGRAM}` was written by torch {version_of('torch')}; older ones may not read it.")
    return Form("pytorch", [Use("With torch", code)], {}, ["torch-export"], notes, checks)
