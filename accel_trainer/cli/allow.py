"""The verb that says which packages the jobs of a queue may import, once for all runs of the queue."""

import json
from typing import Annotated

import typer

from accel_trainer.cli.app import DEFAULT_QUEUE, JsonOption, QueueOption, app, echo, echo_text, existing_queue
from accel_trainer.core.allowed_queues import allow_for, allowed_for, forget_for
from accel_trainer.core.errors import UserError


@app.command()
def allow(
    packages: Annotated[
        list[str] | None, typer.Argument(help="Packages of yours, such as my_lab; none: list them.", show_default=False)
    ] = None,
    queue: QueueOption = DEFAULT_QUEUE,
    remove: Annotated[bool, typer.Option("--remove", help="Allow these no more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let jobs of a queue import models from packages of yours, as --allow-imports does for one command.

    It is remembered for you, by the path of the queue; nobody else who works on the same queue allows it with this.
    """
    store = existing_queue(queue)
    if remove and not packages:
        raise UserError("--remove: name the packages")
    change = forget_for if remove else allow_for
    found = change(store.folder, packages) if packages else allowed_for(store.folder)
    if as_json:
        echo_text(json.dumps(found))
        return
    echo(f"jobs of {queue} may import {', '.join(found) or 'nothing of yours'}")
