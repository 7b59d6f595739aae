"""What a training does not use of torch is not imported for it, and is what it always was for who uses it."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch.fx.experimental.symbolic_shapes as symbols
from faults.fork_server import ForkServer

from accel_trainer.core import late_imports
from accel_trainer.core.late_imports import SYMBOLS

BEGIN = """
import sys, threading
from accel_trainer.core.late_imports import COMPILER, COMPILER_UTILS, SYMBOLS, SYMPY, import_late, is_imported
import_late()
import torch, torchvision
assert not any(map(is_imported, (COMPILER, COMPILER_UTILS, SYMBOLS, SYMPY)))
"""
# As a training does it.
TRAIN = """
model = torchvision.models.resnet18(num_classes=2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    model(torch.ones(2, 3, 32, 32)).sum().backward()
    optimizer.step()
with torch.device("meta"):
    torchvision.models.vit_b_32()(torch.ones(1, 3, 224, 224))
import inspect
inspect.getmodule(sys)  # walks through all modules
assert not any(map(is_imported, (COMPILER, COMPILER_UTILS, SYMBOLS, SYMPY)))
assert "torch._inductor" not in sys.modules
"""
USED = {
    "who compiles": """
kept = []
graphs = []
def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward
compiled = torch.compile(torch.nn.Linear(2, 2), backend=backend)
assert is_imported(COMPILER) and is_imported(COMPILER_UTILS) and is_imported(SYMBOLS) and is_imported(SYMPY)
compiled(torch.ones(1, 2))
assert len(graphs) == 1
assert isinstance(compiled, torch._dynamo.eval_frame.OptimizedModule)
assert torch._dynamo is sys.modules[COMPILER] and torch._dynamo.utils is sys.modules[COMPILER_UTILS]
disable = torch._dynamo.disable
def keep_away(function, *args, **kwargs):
    kept.append(function.__name__)
    return disable(function, *args, **kwargs)
torch._dynamo.disable = keep_away
optimizer.zero_grad()
assert kept == ["zero_grad"]  # from now on it has to be kept away
""",
    "a module in the package": """
import torch._dynamo.config as config
from torch._dynamo.eval_frame import OptimizedModule
assert config is torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert config.__spec__.name == "torch._dynamo.config" and config.__spec__.origin
config.cache_size_limit = 3
assert torch._dynamo.config.cache_size_limit == 3
assert isinstance(torch.compile(torch.nn.Linear(1, 1)), OptimizedModule)
""",
    "symbols": """
from torch.fx.experimental.symbolic_shapes import ShapeEnv, expect_true
import sympy
before = sympy.Basic
class Mine(before):
    pass
assert is_imported(SYMPY) and Mine.__mro__[1] is sys.modules["sympy"].Basic
assert isinstance(sympy.Symbol("x"), before) and issubclass(Mine, before) and not isinstance(1, (str, before))
assert sympy.__version__ and sympy.core is sys.modules["sympy.core"]
assert torch._check(True) is None
assert torch.export.export(torch.nn.Linear(2, 2), (torch.ones(3, 2),)).module()(torch.ones(3, 2)).shape == (3, 2)
""",
    "two threads at once": """
found = []
held = torch._dynamo
def ask():
    found.append((held.config, sys.modules[SYMBOLS].ShapeEnv))
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join(200)
assert found == [(torch._dynamo.config, sys.modules[SYMBOLS].ShapeEnv)] * 4
""",
}


# Each in a fork of one process that has imported torch: its exit code, and the error that ended it.
FORK_EACH = """
import json, os, traceback
found = {}
for name, code in json.loads(sys.argv[1]).items():
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            exec(code, globals())
            os._exit(0)
        except BaseException:
            os.write(writes, traceback.format_exc().encode())
        finally:
            os._exit(1)
    os.close(writes)
    with os.fdopen(reads) as said:
        error = said.read()
    found[name] = (os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Any]]:
    """What became of each use."""
    codes = {used: (TRAIN if used == "who compiles" else "") + code for used, code in USED.items()}
    command = [sys.executable, "-c", BEGIN + FORK_EACH, json.dumps(codes)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[Any]] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("used", USED)
def test_what_is_imported_late_is_itself_for_who_uses_it(outcomes: dict[str, list[Any]], used: str) -> None:
    assert outcomes[used] == [0, ""], outcomes[used][1]


def test_what_is_imported_already_stays(server: ForkServer, tmp_path: Path) -> None:
    code = "import torch._dynamo as real, sys; from accel_trainer.core.late_imports import import_late; import_late()\n"
    code += (
        "import torch._dynamo; from torch._dynamo import utils; assert torch._dynamo is real and utils is real.utils"
    )
    log = tmp_path / "log"
    assert server.script(code, [], log, processes=1) == [0], log.read_text()


VALUES: tuple[Any, ...] = (True, False, 0, 1, 7, (2, 3), [2, 3], (2, 4), (2,), ())


@pytest.mark.parametrize("name", [name for name in late_imports._ANSWERS[SYMBOLS] if hasattr(symbols, name)])
def test_stand_ins_answer_as_torch_does(name: str) -> None:
    known, real = late_imports._ANSWERS[SYMBOLS][name], getattr(symbols, name)

    def said(function: Any, *args: Any) -> Any:
        try:
            found = function(*args)
        except Exception as error:
            return type(error)
        return type(found), found

    for args in (*product(VALUES), *product(VALUES, repeat=2)):
        assert said(known, *args) == said(real, *args), args
