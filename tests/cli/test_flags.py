import ast
from pathlib import Path

import accel_trainer
from accel_trainer.cli.app import with_flags
from accel_trainer.core.errors import Problem


def test_an_argument_that_an_error_names_is_printed_as_its_flag() -> None:
    problem = Problem("no GPU 7", option="gpus", hint="leave `num_processes` out")
    assert with_flags(str(problem)) == "--gpus: no GPU 7; leave --num-processes out"


def test_what_is_in_backticks_and_no_flag_stays_as_it_is() -> None:
    line = "run `accel-train pack` or `no_such_flag` or `z`"
    assert with_flags(line) == line


def test_every_argument_that_an_error_may_name_is_a_flag_of_some_verb() -> None:
    named = set()
    for file in Path(accel_trainer.__path__[0]).rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call):
                named |= {
                    k.value.value
                    for k in call.keywords
                    if k.arg == "option" and isinstance(k.value, ast.Constant) and k.value.value is not None
                }
    assert all(with_flags(f"`{name}`").startswith("--") for name in named)
