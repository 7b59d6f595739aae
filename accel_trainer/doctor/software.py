"""Software: Python, packages, torch, `accelerate launch`, and Weights & Biases."""

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from accel_trainer.core.errors import UserError
from accel_trainer.core.event_loop import run_async
from accel_trainer.core.processes import Program
from accel_trainer.core.text import printable
from accel_trainer.doctor.findings import MORE_OF_IT, Finding, Probe, ProbeFailed, ProbeNotStarted, ok, problem, warning
from accel_trainer.launch.accelerate_config import AccelerateConfig, ConfigFile, Origin, read_config, users_default
from accel_trainer.launch.command import LaunchOptions, plan_launch
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.trial import ANY_JOB, LaunchFailed, try_launch

DISTRIBUTION = "accel-train"
# Packages whose versions are printed.
MAIN_PACKAGES = ("torch", "torchvision", "accelerate", "datasets", "wandb")
TORCH_LIMIT_S = 120.0


def python() -> Finding:
    """The version of Python, and whether it is in a virtual environment."""
    version = f"{platform.python_version()}, {sys.executable}"
    if sys.prefix == sys.base_prefix:
        return ok(f"{version}, not in a virtual environment")
    return ok(version)


def packages(requirements: Iterable[str] | None = None) -> Finding:
    """Whether the required packages are installed in the required versions; extras only where they are installed.

    requirements: as in pyproject.toml; by default those of this distribution.
    """
    from packaging.requirements import Requirement

    try:
        required = list(
            map(Requirement, requirements if requirements is not None else metadata.requires(DISTRIBUTION) or [])
        )
    except metadata.PackageNotFoundError:
        return warning(f"{DISTRIBUTION} is not installed, so its requirements are unknown", "pip install -e .")
    wrong, versions = [], {}
    for requirement in required:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            if not any(requirement.marker.evaluate({"extra": extra}) for extra in ("tensorboard", "timm")):
                continue
            is_needed = False
        else:
            is_needed = True
        try:
            versions[requirement.name] = version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong += [f"{requirement.name} is not installed"] if is_needed else []
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, {requirement.specifier} is needed")
    if wrong:
        return problem("; ".join(wrong), f"pip install --upgrade {DISTRIBUTION}, or the packages named here")
    return ok(", ".join(f"{name} {versions[name]}" for name in MAIN_PACKAGES if name in versions))


def torch_import(probe: Probe) -> Finding:
    """Whether torch, torchvision and Accelerate's launcher can be imported: mismatched versions cannot.

    probe: of `workers/probe_torch`.
    """
    try:
        report = probe.answer(TORCH_LIMIT_S)
    except ProbeNotStarted as error:
        return problem(str(error), MORE_OF_IT)
    except ProbeFailed as error:
        return problem(
            f"torch, torchvision or accelerate cannot be imported: {error}",
            "install torch and torchvision together, from one source: https://pytorch.org/get-started/locally",
        )
    built = f"CUDA {report['cuda']}" if report["cuda"] else f"ROCm {report['hip']}" if report["hip"] else "the CPU only"
    return ok(f"imported, with torchvision and accelerate; built for {built}")


def image_loading(report: Mapping[str, Any]) -> Finding:
    """Whether images are loaded by the compiled kernel, which also decodes only what is needed of JPEGs.

    report: of `workers/probe_torch`.
    """
    if report["kernel"] is not None:
        fix = f"install a C compiler, then {DISTRIBUTION} again; jobs train the same bits without it, slower"
        return warning(f"the compiled kernel is not used: {report['kernel']}", fix)
    if report["partial_jpegs"] is not None:
        fix = "install torchvision from pytorch.org or PyPI; jobs train the same bits without that, slower"
        return warning(f"JPEGs are decoded whole: {report['partial_jpegs']}", fix)
    return ok("by the compiled kernel; of JPEGs only what is needed is decoded")


def accelerate_default(machine: Machine) -> Finding:
    """The user's default file of `accelerate config`, which takes precedence over the detected hardware."""
    fix = "write it again with `accelerate config`, or remove it"
    path = users_default()
    if path is None:
        return ok("no default file; jobs use the detected hardware")
    try:
        launch = plan_launch(ANY_JOB, LaunchOptions(), machine)
        content = _read_default(path)
    except UserError as error:
        return problem(error.details[0].message, fix)
    found = f"{path}: {launch.num_processes} {'process' if launch.num_processes == 1 else 'processes'}"
    if content.use_cpu:
        if machine.gpus:
            return warning(f"{found} on the CPU, though there are {len(machine.gpus)} GPUs", fix)
        return ok(f"{found} on the CPU")
    if (available := _chosen_gpus(content, machine)) is None:
        return problem(f"{path}: gpu_ids: {content.gpu_ids!r}: not all of them exist", fix)
    if launch.num_processes > max(1, available) * content.num_machines:
        return problem(f"{found}, and GPUs for {available}", fix)
    return ok(f"{found}; GPUs: {available}")


def _read_default(path: Path) -> AccelerateConfig:
    return read_config(ConfigFile(path, Origin.DEFAULT))


def _chosen_gpus(content: AccelerateConfig, machine: Machine) -> int | None:
    """How many GPUs a config file gives to jobs; None if it names one that does not exist."""
    if content.gpus is None:
        return len(machine.gpus)
    return len(content.gpus) if set(content.gpus) <= {gpu.index for gpu in machine.gpus} else None


def trial_launch(machine: Machine) -> Finding:
    """A real `accelerate launch` of as many processes as a job would have, or of two on the CPU."""
    default = users_default()
    if default is not None and _read_default(default).num_machines > 1:
        return ok("not tried: the default file is for several machines")
    options = LaunchOptions() if machine.gpus or machine.has_mps else LaunchOptions(num_processes=2)
    try:
        launched = run_async(lambda: try_launch(options, machine))
    except LaunchFailed as error:
        return problem(printable(str(error)), "try `accelerate test`")
    count, between = launched.num_processes, f" by {launched.backend}" if launched.backend else ""
    return ok(f"{count} {'process' if count == 1 else 'processes'} on {launched.device}{between}")


WANDB_LIMIT_S, SERVER_LIMIT_S = 30.0, 5.0


def probe_wandb(probe: Probe) -> Mapping[str, Any]:
    """The answer of `workers/probe_wandb`: {"mode", "server"}, or {"error", "fix"}."""
    try:
        return probe.answer(WANDB_LIMIT_S)
    except ProbeNotStarted as error:
        return {"error": str(error), "fix": MORE_OF_IT}
    except ProbeFailed:  # for a reason that may quote a setting
        return {"error": "wandb does not start", "fix": f"run `python -m {Program.PROBE_WANDB}`"}


def wandb_login(report: Mapping[str, Any]) -> Finding:
    """Whether runs are sent to Weights & Biases. report: of `probe_wandb`."""
    if "error" in report:
        return problem(report["error"], f'{report["fix"]}, or give jobs "trackers": []')
    if os.environ.get("WANDB_MODE"):
        return ok(f"{report['mode']}, as WANDB_MODE says")
    if report["mode"] != "online":
        return warning(
            "not logged in: runs are logged in their folders",
            "run `wandb login`; to stay offline, set WANDB_MODE=offline",
        )
    where = "WANDB_API_KEY" if os.environ.get("WANDB_API_KEY") else "the key that `wandb login` has stored"
    return ok(f"online, with {where}")


def wandb_server(report: Mapping[str, Any]) -> Finding:
    """Whether the server of Weights & Biases responds; without it, trainings log offline. report: of `probe_wandb`."""
    if report.get("mode") != "online":
        return ok("not checked: runs are not sent to one")
    url = urlsplit(report["server"])
    host = url.hostname or "?"  # without the name and password that may stand before it
    address = host if url.port is None else f"{host}:{url.port}"
    try:
        with Probe(Program.PROBE_SERVER.command(f"{url.scheme}://{address}{url.path}")) as probe:
            error = probe.answer(SERVER_LIMIT_S)["error"]
    except ProbeFailed as failure:
        error = str(failure)
    if error is not None:
        return warning(
            f"{address} does not answer: {error}",
            "check the network and https_proxy; until then runs are logged offline",
        )
    return ok(f"{address} answers")
