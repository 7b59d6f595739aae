"""A process that asks wandb what a training would ask: whether the user is logged in, and to which server.

Messages of wandb may quote a setting, and one of those is the key: only the names of settings are passed on.
"""

import json
from typing import Any

from accel_trainer.config import Job
from accel_trainer.training.tracker_checks import wandb_mode


def probe_wandb() -> dict[str, Any]:
    """{"mode", "server"}, or {"error", "fix"} if wandb does not start."""
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
            "fix": f"correct or unset {variables}" if names else "check the variables WANDB_* and wandb's settings",
        }


if __name__ == "__main__":
    print(json.dumps(probe_wandb()))
