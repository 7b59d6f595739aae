"""A process that asks wandb what a training would: whether somebody is logged in, and to which server.

What wandb says of a setting may quote it, and one of them is the key: nothing of that is passed on, but for the names.
"""

import json
from typing import Any

from accel_trainer.config import Job
from accel_trainer.training.tracking import wandb_mode


def probe_wandb() -> dict[str, Any]:
    try:
        import wandb

        return {"mode": wandb_mode(Job(architecture="small_cnn")), "server": str(wandb.setup().settings.base_url)}
    except ImportError as error:
        return {"error": f"wandb cannot be imported ({type(error).__name__})", "fix": "pip install --upgrade wandb"}
    except Exception as error:
        names = [str(place["loc"][0]) for place in error.errors()] if hasattr(error, "errors") else []
        variables = " and ".join(f"WANDB_{name.upper()}" for name in names)
        return {
            "error": f"wandb does not start ({type(error).__name__}{f': {variables}' if names else ''})",
            "fix": f"correct or unset {variables}" if names else "look at the variables WANDB_* and wandb's settings",
        }


if __name__ == "__main__":
    print(json.dumps(probe_wandb()))
