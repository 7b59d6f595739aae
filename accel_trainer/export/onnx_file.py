"""A graph in an ONNX file, compared with the model by onnxruntime."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.export.form import ExportOptions, Form, Use
from accel_trainer.export.graph import Graph, untraceable
from accel_trainer.export.program_file import traced_program
from accel_trainer.export.source import Source

FILE = "model.onnx"
OPSET = 18
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Of a file of protobuf, with room for what is beside the weights.
MAX_BYTES = 2**31 - 2**24
CODE = """\
import onnxruntime
from preprocessing import preprocess

session = onnxruntime.InferenceSession("model.onnx")
({output},) = session.run(None, {{"{input}": {inputs}.numpy()}})
"""


def write_onnx(source: Source, folder: Path, options: ExportOptions) -> Form:
    """model.onnx: one file, with batches of any size. Raises UserError for a model that is too large, or of which torch
    cannot make a graph, and where a package is missing."""
    refuse_missing_packages()
    _refuse_too_large(source)
    graph = Graph.of(source, options)
    proto = _converted(source, graph)
    _say_what_it_is(proto, source, graph)
    (folder / FILE).write_bytes(proto.SerializeToString())
    checks = graph.compare(lambda inputs: _run(folder / FILE, graph, inputs), source, FILE)
    code = CODE.format(input=graph.input_name, output=graph.output_name, inputs=source.input_of_use)
    notes = [] if graph.note is None else [graph.note]
    notes.append(
        f"ONNX opset {OPSET}; batches of any size. Preprocessing is not part of the graph; its metadata say it."
    )
    return Form("onnx", [Use("With onnxruntime", code)], {}, ["onnx"], notes, checks)


def refuse_missing_packages() -> None:
    """Raises UserError with the command that installs what an ONNX file is written and compared with."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"the format onnx needs {listed(missing)}", option="format", hint="pip install 'accel-train[onnx]'"
        )


def _refuse_too_large(source: Source) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in source.model.state_dict().values())
    if size > MAX_BYTES:
        raise UserError(
            f"the weights have {size / 1e9:.1f} GB, and one ONNX file holds 2 GB",
            option="format",
            hint="take torch-export or hf",
        )


def _converted(source: Source, graph: Graph) -> Any:
    program = traced_program(source, graph)
    try:
        converted: Any = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=[graph.input_name],
            output_names=[graph.output_name],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # of an operation that ONNX has not, in every way there is
        raise untraceable(source, "ONNX", error) from error
    return converted.model_proto


def _say_what_it_is(proto: Any, source: Source, graph: Graph) -> None:
    """Metadata by which a program without this package can use the file, in place of where its code was written."""
    import onnx

    for part in (proto.graph, *proto.functions):
        _without_places(part)
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == batch:
                dimension.dim_param = "batch"
    proto.graph.name = source.name
    proto.producer_name = "accel-train"
    onnx.helper.set_model_props(proto, _about(source, graph))


def _without_places(part: Any) -> None:
    for values in (part.node, getattr(part, "input", ()), getattr(part, "output", ()), part.value_info):
        for value in values:
            if hasattr(value, "metadata_props"):
                del value.metadata_props[:]
    for value in getattr(part, "initializer", ()):
        del value.metadata_props[:]
    del part.metadata_props[:]


def _about(source: Source, graph: Graph) -> dict[str, str]:
    about = {"architecture": source.architecture, "preprocessing": json.dumps(source.preprocessing.as_record())}
    return about if source.job.is_contrastive else {**about, "classes": json.dumps(source.classes)}


def _run(path: Path, graph: Graph, inputs: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {graph.input_name: inputs.numpy()})
    return torch.from_numpy(output)
