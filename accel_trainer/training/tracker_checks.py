"""Whether the trackers of a job can be used here, and whether Weights & Biases is to be online."""

import os
import re
from collections.abc import Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from accel_trainer.config import Job
from accel_trainer.core.child_environment import child_environment
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.text import did_you_mean, first_line
from accel_trainer.training.wandb_settings import refuse_settings_of_others


def check_trackers(job: Job) -> None:
    """Refuse a tracker that Accelerate does not know, that is not installed, or whose settings in the environment it
    would not take. Raises UserError."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    installed = {str(name) for name in get_available_trackers()}
    problems = []
    for name in job.trackers:
        if name not in known:
            hint = f"Accelerate knows {', '.join(known)}"
            problems.append(Problem(f"no tracker {name!r}{did_you_mean(name, known)}", key="trackers", hint=hint))
        elif name not in installed:
            hint = f"pip install {name}, or remove it from the job"
            problems.append(Problem(f"{name!r} is not installed", key="trackers", hint=hint))
    if problems:
        raise UserError(*problems)
    if "wandb" in job.trackers:
        refuse_settings_of_others()
        # Of what a training gets; a key is left out, which a message might quote.
        passing = child_environment().items()
        variables = {name: value for name, value in passing if name.startswith("WANDB_") and name != "WANDB_API_KEY"}
        if variables:  # without any there is nothing to be wrong, and wandb takes a second to import
            _check_wandb_variables(variables)
        if wandb_mode_given(job) not in ("offline", "disabled", "dryrun"):
            _check_wandb_key(os.environ.get("WANDB_API_KEY", ""))


def _check_wandb_variables(variables: Mapping[str, str]) -> None:
    """Raises UserError for what wandb would not take, in its own words."""
    import wandb

    hint = "correct or unset it, or remove wandb from `trackers`"
    try:
        wandb.Settings().update_from_env_vars(dict(variables))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"WANDB_{str(first['loc'][0]).removeprefix('run_').upper()}"
        raise UserError(f"the variable {name} of the environment: {first['msg']}", hint=hint) from error
    except wandb.Error as error:
        names = ", ".join(sorted(variables))
        raise UserError(f"the environment's settings of wandb ({names}): {first_line(error)}", hint=hint) from error


def _check_wandb_key(key: str) -> None:
    """Raises UserError, in wandb's own words, for a key that cannot be one. What is in the key is never said."""
    if not key or re.fullmatch(r"(\w+-)?\w{40,}", key, re.ASCII):  # as nearly all: wandb need not be imported
        return
    try:
        from wandb.sdk.lib.wbauth.validation import check_api_key
    except ImportError:  # of another version: it says so when it is started
        return
    if (reason := check_api_key(key)) is not None:
        hint = "correct or unset it, or remove wandb from `trackers`"
        raise UserError(f"the variable WANDB_API_KEY of the environment: {reason.rstrip('.')}", hint=hint)


def wandb_mode_given(job: Job) -> str | None:
    """What the job or WANDB_MODE says."""
    return job.wandb.mode or os.environ.get("WANDB_MODE") or None


def wandb_mode(job: Job) -> str:
    """As the job or WANDB_MODE says; else online where somebody is logged in, and offline where not."""
    if (mode := wandb_mode_given(job)) is not None:
        return mode
    return "online" if os.environ.get("WANDB_API_KEY") or _key_is_stored() else "offline"


def _key_is_stored() -> bool:
    """Whether `wandb login` has left a key for the server in use; the key itself is not looked at."""
    import wandb

    settings = wandb.setup().settings
    if settings.api_key:
        return True
    server = urlsplit(settings.base_url).netloc
    # A login to the hosted service counts under its older name too.
    is_hosted = settings.base_url == wandb.Settings.model_fields["base_url"].default
    try:
        known = netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser()).hosts
    except (OSError, NetrcParseError, RuntimeError):  # the last where there is no home folder
        return False
    return server in known or (is_hosted and "api.wandb.ai" in known)
