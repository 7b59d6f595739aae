"""What a format makes of a trained model: the files that it has written, and what is to be said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Cycles = Literal["last", "all"]


@dataclass(frozen=True)
class ExportOptions:
    """weights: best, final, ema, swa, or an epoch. license: an identifier of the Hugging Face hub, such as apache-2.0;
    None says none. cycles: of which cycles a recurrent model's graph gives logits. layers: which can be asked of a
    Brain-Score model, by default some of each depth. regions: which layer stands for which area of the brain."""

    weights: str = "best"
    license: str | None = None
    cycles: Cycles = "last"
    layers: Sequence[str] = ()
    regions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Use:
    """How a form is loaded: Python code that runs in the exported folder, with image.png as an image beside it."""

    title: str
    code: str


@dataclass(frozen=True)
class Form:
    """library: whose the form is, by its name on the hub. config: for config.json. uses: how to load it. notes:
    sentences on what it is not, or where it differs. checks: largest differences from the model's own output, by what
    was compared."""

    library: str
    uses: Sequence[Use]
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    notes: Sequence[str] = ()
    checks: Mapping[str, float] = field(default_factory=dict)
