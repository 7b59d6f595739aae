"""Weights & Biases: whether somebody is logged in, and whether the server answers. Keys are never looked at."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from accel_trainer.doctor.findings import Finding, ok, problem, warning
from accel_trainer.doctor.probe import Probe, ProbeFailed
from accel_trainer.doctor.server_probe import URL_VARIABLE

WANDB_LIMIT_S, SERVER_LIMIT_S = 30.0, 5.0


def ask_wandb(probe: Probe) -> Mapping[str, Any]:
    """What `wandb_probe` tells: {"mode", "server"}, or {"error", "fix"}."""
    try:
        return probe.answer(WANDB_LIMIT_S)
    except ProbeFailed:  # for a reason that may quote a setting
        return {"error": "wandb does not start", "fix": "look at `python -m accel_trainer.doctor.wandb_probe`"}


def login(told: Mapping[str, Any]) -> Finding:
    if "error" in told:
        return problem(told["error"], f'{told["fix"]}, or give jobs "trackers": []')
    if os.environ.get("WANDB_MODE"):
        return ok(f"{told['mode']}, as WANDB_MODE says")
    if told["mode"] != "online":
        return warning(
            "nobody is logged in: runs are kept in their folders",
            "wandb login; or, if that is what you want, set WANDB_MODE=offline",
        )
    where = "WANDB_API_KEY" if os.environ.get("WANDB_API_KEY") else "the key that `wandb login` has left"
    return ok(f"online, with {where}")


def server(told: Mapping[str, Any]) -> Finding:
    """Any answer counts; without one, a training goes on offline."""
    if told.get("mode") != "online":
        return ok("not asked: runs are not sent to one")
    url = urlsplit(told["server"])
    host = url.hostname or "?"  # without the name and password that may stand before it
    place = host if url.port is None else f"{host}:{url.port}"
    environment = {**os.environ, URL_VARIABLE: f"{url.scheme}://{place}{url.path}"}
    try:
        with Probe("accel_trainer.doctor.server_probe", environment) as probe:
            error = probe.answer(SERVER_LIMIT_S)["error"]
    except ProbeFailed as failure:
        error = str(failure)
    if error is not None:
        return warning(
            f"{place} does not answer: {error}", "see the network and https_proxy; until then runs are kept offline"
        )
    return ok(f"{place} answers")
