"""Settings of the whole process that others' code changes when it is imported, or while it builds a model: they are put
back, and named once. How a job is computed, logged and stopped is the job's choice and the launch's."""

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

from accel_trainer.core.child_environment import FAMILIES, OWN, THREAD_COUNTS, WAIT_VARIABLES
from accel_trainer.core.text import listed

log = logging.getLogger(__name__)
OURS = "accel_trainer"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a process sees, and how its threads wait; beside what the launch sets aside.
DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_SDP = ("flash", "mem_efficient", "math", "cudnn")
_REDUCED = [f"allow_{kind}_reduced_precision_reduction" for kind in ("fp16", "bf16")] + ["allow_fp16_accumulation"]


@dataclass(frozen=True)
class Setting:
    """name: for people. read may raise RuntimeError, where torch's setting was made in its other way."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]

    def value(self) -> Any:
        """None where it cannot be read."""
        with suppress(RuntimeError, OSError):
            return self.read()
        return None


@contextmanager
def settings_kept(who: str) -> Iterator[None]:
    """Afterwards the settings are as before. who: whose code runs here, for the log."""
    before = [(setting, setting.value()) for setting in _settings()]
    try:
        yield
    finally:
        changed = [(setting, value) for setting, value in before if setting.value() != value]
        for setting, value in changed:
            if value is not None and setting.value() != value:  # not put back with one before it
                setting.write(value)
        if changed:
            _say(who, listed(dict.fromkeys(setting.name for setting, _ in changed)))


@cache
def _say(who: str, names: str) -> None:
    log.info("%s has changed settings of the process, which are put back (the job says how to train): %s", who, names)


@cache
def _settings() -> tuple[Setting, ...]:
    """In the order in which they are put back."""
    return (*_precision(), *_kernels(), *_torch(), *_python())


def _precision() -> Iterator[Setting]:
    """The older of torch's two ways first: it puts back most of the newer one."""
    tf32 = "the precision of float32"
    yield Setting(tf32, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
    yield _attribute(torch.backends.cudnn, "allow_tf32", tf32)
    for place in (torch.backends.cuda.matmul, *_parts(torch.backends.cudnn), *_parts(torch.backends.mkldnn)):
        if hasattr(place, "fp32_precision"):
            yield _attribute(place, "fp32_precision", tf32)
    for name in _REDUCED:
        if hasattr(torch.backends.cuda.matmul, name):
            yield _attribute(torch.backends.cuda.matmul, name, "the precision of sums in half precision")


def _parts(backend: Any) -> list[Any]:
    return [getattr(backend, part) for part in ("conv", "rnn", "matmul") if hasattr(backend, part)]


def _kernels() -> Iterator[Setting]:
    for name in ("enabled", "benchmark", "deterministic"):
        yield _attribute(torch.backends.cudnn, name, f"cudnn.{name}")
    yield Setting("deterministic algorithms", _deterministic, lambda value: _set_deterministic(*value))
    memory: Any = torch.utils.deterministic
    yield _attribute(memory, "fill_uninitialized_memory", "deterministic algorithms")
    for kind in _SDP:
        names = f"{kind}_sdp_enabled", f"enable_{kind}_sdp"
        read, write = (getattr(torch.backends.cuda, name, None) for name in names)
        if read is not None and write is not None:
            yield Setting("kernels of attention", read, write)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(is_on: bool, warns: bool) -> None:
    torch.use_deterministic_algorithms(is_on, warn_only=warns)


def _torch() -> Iterator[Setting]:
    yield Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads)
    yield Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype)
    yield Setting("torch's default device", torch.get_default_device, _set_default_device)
    yield Setting("whether gradients are computed", torch.is_grad_enabled, torch.set_grad_enabled)
    yield Setting("anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly)


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None)
    if torch.get_default_device() != device:
        torch.set_default_device(device)


def _python() -> Iterator[Setting]:
    for name in ("stdout", "stderr", "excepthook"):
        yield _attribute(sys, name, f"sys.{name}")
    yield Setting("logging", _disabled_loggers, _set_disabled_loggers)
    yield Setting("warnings that are errors", _error_filters, _set_error_filters)
    yield Setting("environment variables", _variables, _set_variables)
    yield Setting("the working folder", os.getcwd, os.chdir)
    yield Setting("garbage collection", gc.isenabled, lambda is_on: gc.enable() if is_on else gc.disable())
    for number in STOP_SIGNALS:
        yield Setting("handlers of signals", partial(signal.getsignal, number), partial(_set_handler, number))


def _attribute(place: Any, name: str, what: str) -> Setting:
    return Setting(what, lambda: getattr(place, name), lambda value: setattr(place, name, value))


def _set_handler(number: signal.Signals, handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


def _disabled_loggers() -> tuple[int, dict[str, bool]]:
    """`logging.disable`, and which of our loggers are off, as they are after `logging.config.dictConfig`."""
    loggers = {name: logging.getLogger(name) for name in logging.root.manager.loggerDict if _is_ours(name)}
    return logging.root.manager.disable, {name: logger.disabled for name, logger in loggers.items() if logger.disabled}


def _is_ours(name: str) -> bool:
    return name == OURS or name.startswith(f"{OURS}.")


def _set_disabled_loggers(before: tuple[int, Mapping[str, bool]]) -> None:
    level, disabled = before
    logging.disable(level)
    for name in filter(_is_ours, list(logging.root.manager.loggerDict)):
        logging.getLogger(name).disabled = name in disabled


def _error_filters() -> list[Any]:
    return [found for found in warnings.filters if found[0] == "error"]


def _set_error_filters(before: list[Any]) -> None:
    """Without those that are new; what else is ignored or shown stays."""
    kept = [found for found in warnings.filters if found[0] != "error" or found in before]
    warnings.resetwarnings()
    warnings.filters.extend(kept)  # type: ignore[attr-defined]


def _variables() -> dict[str, str]:
    """Those that say how a training is done. Where caches and tokens are, is everybody's own."""
    families = (*FAMILIES, THREAD_COUNTS, OWN)
    named = (*WAIT_VARIABLES, *DEVICE_VARIABLES)
    return {k: v for k, v in os.environ.items() if k in named or any(k in family for family in families)}


def _set_variables(before: Mapping[str, str]) -> None:
    for name in _variables().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
