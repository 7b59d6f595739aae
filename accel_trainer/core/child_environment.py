"""The environment of everything that is launched: made, not inherited.

Credentials, proxies, paths, devices, NCCL and most of what tunes threads pass. What would say how to train, which
process one is among others, or which run a tracker continues comes from the job and the launch only: it is set aside,
and named once. docs/environment.md has the table.
"""

import os
import re
import site
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from accel_trainer.core.launched import (
    PROCESSES_VARIABLE,
    SET_ASIDE_VARIABLE,
    TOKEN_VARIABLE,
    gone_through,
    is_launched,
    keep_gone_through,
)

# What helps a training computes on one core, whichever library does it: OpenBLAS is NumPy's.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Whoever sets one of these has said how threads of libgomp wait. KMP_BLOCKTIME, which a launch sets to 1 ms, is of
# Intel's library.
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
# With it cuBLAS adds up in one order. Older torch reads it when CUDA is first used: a training would set it too late.
WORKSPACE_VARIABLE, WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
# Modules of the current folder hide no others; the order of a set is the same in every attempt.
PYTHON_MADE = {"PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
# Where a library is, and which: containers have such names of every kind.
PLACES = r"\w+_(VERSION|ROOT|HOME|PREFIX|PATH|DIR|LIBRARY|LIB)"


@dataclass(frozen=True)
class Family:
    """Variables that are set aside, as regular expressions of whole names: those that match `names`, less `passing`."""

    what: str
    names: str
    passing: str = "$"

    def __contains__(self, name: str) -> bool:
        return bool(re.fullmatch(self.names, name)) and not re.fullmatch(self.passing, name)


# How a training is done, by the lights of Accelerate.
ACCELERATE = Family(
    "how Accelerate trains",
    r"ACCELERATE_\w+|FSDP_\w+|DEEPSPEED_\w+|MEGATRON_LM_\w+|PARALLELISM_CONFIG_\w+|FORK_LAUNCHED"
    r"|XLA_(USE|DOWNCAST)_BF16|USE_TORCH_XLA|PJRT_DEVICE",
)
# Which process one is, of how many, and where they meet: torchrun, MPI in all its forms, Slurm's and others' launchers.
LAUNCHER = Family(
    "ranks and rendezvous of a launcher",
    r"((LOCAL|GROUP|ROLE|NODE|CROSS)_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT|IP|HOST)|LOCAL_SIZE|INIT_METHOD|RDZV_\w+"
    r"|TORCHELASTIC_\w+|TORCH_ELASTIC_\w+|PET_\w+|TORCHCOMM_\w+|TORCH_(DISABLE_)?SHARE_RDZV_TCP_STORE"
    r"|TORCH_DIST_INIT_BARRIER|TORCH_DISTRIBUTED_USE_TORCHCOMMS|NCCL_COMM_ID|LOGLEVEL|PYTHON_EXEC"
    r"|(PMI|PMI2|PMIX|PRTE|OMPI|ORTE|OPAL|MV2|MVP|MPICH|I_MPI|CCL|HYDRA|HYDI|MPIEXEC|MPIRUN|ALPS|PALS|JSM|HOROVOD)_\w+"
    r"|MPI_(LOCALRANKID|LOCALNRANKS|RANK|SIZE|WORLD_\w+)|FLUX_(TASK|JOB)_(RANK|LOCAL_ID|SIZE|NNODES)|BLUEFOG_\w+",
    passing=rf"{PLACES}|CCL_CONFIGURATION\w*|OMPI_(ALLOW_RUN_AS_ROOT\w*|MCA_\w+)|PMIX_MCA_\w+",
)
# Other kernels, another precision, another order of adding up.
NUMERICS = Family(
    "numerics of torch and its libraries",
    r"NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_\w+|CUBLAS(LT)?_\w+|DISABLE_ADDMM_CUDA_LT|USE_EXPERIMENTAL_CUDNN_V8_API|USE_EIGEN_FOR_BLAS"
    r"|CUDNN_(ERRATA_JSON_FILE|CONV_WSCAP\w*|FRONTEND_ATTN\w+|DETERMINISTIC|BENCHMARK|RESCALE_THRESHOLD)"
    r"|TORCH_(BLAS|LINALG)_PREFER_\w+|TORCH_(CUDNN|CUBLASLT|MKLDNN|ROCM|NATIVE|PYTHON_NATIVE|JIT|COMPILE|COMPILER"
    r"|DYNAMO|FORCE)_\w+|TORCH_DISABLE_NATIVE_JIT|TORCH_LINEAR_FLATTEN_3D|TORCH(DYNAMO|INDUCTOR|EXPORT)_\w+"
    r"|TRITON_(INTERPRET|F32_DEFAULT|DEFAULT_FP_FUSION|KERNEL_OVERRIDE|OVERRIDE_ARCH)|AOT_?INDUCTOR_\w+"
    r"|PTXAS_OPTIONS|DISABLE_PTXAS_OPT|ENABLE_PERSISTENT_TMA_MATMUL|CUTLASS_EPILOGUE_FUSION"
    r"|PYTORCH_(JIT|TENSOREXPR|NVFUSER|TUNABLEOP|MIOPEN|FUSION|TEST|DISABLE|DDP|SUM|SKIP|REORDER|SINK)\w*"
    r"|PYTORCH_MPS_(FAST_MATH|PREFER_METAL)|MIOPEN_(FIND|DEBUG|CONVOLUTION|GEMM)_\w+"
    r"|(HIPBLAS|HIPBLASLT|ROCBLAS|TENSILE|HIPSPARSELT|ROCSOLVER|HIPSOLVER)_\w+"
    r"|ATEN_CPU_CAPABILITY|(DNNL|ONEDNN|MKLDNN)_\w+|FBGEMM_(ENABLE|FORCE|NO)_\w+|NPY_(ENABLE|DISABLE)_CPU_FEATURES"
    r"|MKL_(CBWR\w*|ENABLE_INSTRUCTIONS|DEBUG_CPU_TYPE|DISABLE_FAST_MM|DYNAMIC|DOMAIN_NUM_THREADS|SERVICE_FORCE_INTEL)"
    r"|OPENBLAS_CORETYPE|BLIS_ARCH_TYPE|OMP_(DYNAMIC|THREAD_LIMIT|NESTED|MAX_ACTIVE_LEVELS|SCHEDULE)"
    r"|KMP_((FORCE|DETERMINISTIC)_REDUCTION|DYNAMIC_MODE|ALL_THREADS|DEVICE_THREAD_LIMIT|TEAMS_THREAD_LIMIT)"
    r"|TIMM_(FUSED_ATTN|REENTRANT_CKPT|FOREACH_CHUNK_SIZE|USE_\w+)",
    passing=rf"{PLACES}|\w+_(LOG\w*|VERBOSE\w*|DEBUG_INFO\w*)|CUBLAS(LT)?_LOG\w*"
    r"|(ROCBLAS|HIPBLASLT)_(LAYER|TENSILE_LIBPATH)"
    r"|TORCHINDUCTOR_(COMPILE_THREADS|WORKER_\w+|REDIS_\w+|\w+_LOGGING_FILE)",
)
# Which run of a tracker it is, and what that is called.
TRACKER = Family(
    "identity of a tracker's run",
    r"WANDB_(RUN_\w+|RESUME\w*|FORK_FROM|SWEEP_\w+|SERVICE\w*|NAME|NOTES|DESCRIPTION|TAGS|GROUP\w*|JOB_\w+|DISABLED"
    r"|LAUNCH\w*|CONFIG|CONFIG_PATHS|PROGRAM\w*|COMMAND|ARGS|ALLOW_VAL_CHANGE|REINIT|RELOGIN|SYNC_TENSORBOARD|STRICT"
    r"|AGENT_\w+|INITED|FORCE|STOP_FN|START_TIME"
    r"|X?_(PRIMARY|LABEL|RUNQUEUE_ITEM_ID|UPDATE_FINISH_STATE|START_TIME|SYNC\w*|FILES_DIR|CLI_ONLY_MODE|STATS_PID))"
    r"|MLFLOW_(RUN_ID|RUN_NAME|NESTED_RUN|EXPERIMENT_ID|TAGS|PARENT_RUN_ID)|COMET_(EXPERIMENT_KEY|START_\w+)"
    r"|CLEARML_(TASK\w*|PROC_MASTER_ID)|NEPTUNE_((CUSTOM_)?RUN_ID|EXPERIMENT_\w+)|DVC_EXP_NAME|DVCLIVE_RESUME"
    r"|SWANLAB_(RUN_ID|RESUME|EXP_NAME|EXPERIMENT_\w+)|TRACKIO_(RUN|RESUME)\w*",
)
# Switches of Python that change what a program does, or what it prints.
PYTHON = Family(
    "switches of Python",
    r"PYTHON(INSPECT|STARTUP|OPTIMIZE|WARNINGS|HASHSEED|PROFILEIMPORTTIME|BREAKPOINT|DEBUG|VERBOSE|DUMPREFS"
    r"|DUMPREFSFILE|TRACEMALLOC|ASYNCIODEBUG|DEVMODE|MALLOCSTATS|INTMAXSTRDIGITS|IOENCODING|NODEBUGRANGES|PERFSUPPORT"
    r"|CASEOK|THREADDEBUG|OLDPARSER)"
    r"|PYTHON_(PERF_JIT_SUPPORT|PRESITE|CPU_COUNT|CONTEXT_AWARE_WARNINGS|THREAD_INHERIT_CONTEXT|JIT|GIL)",
)
FAMILIES = (ACCELERATE, LAUNCHER, NUMERICS, TRACKER, PYTHON)
# Threads of a training on the CPU: the launch has decided how many.
THREAD_COUNTS = Family("number of threads", r"(OMP|MKL)_NUM_THREADS")
# What a job's allocation tells its own processes, and what stands for options of Slurm's commands: a submission from
# inside an allocation is none of that one's. What sbatch is given by default for whose account and where, stays.
SLURM = Family(
    "of Slurm's commands and of the allocation one is in",
    r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SCANCEL|SCONTROL|SINFO|SACCT)_\w+",
    passing=r"SLURM_(CONF|CONF_SERVER|CLUSTERS|JWT)|SBATCH_(ACCOUNT|CLUSTERS|CONSTRAINT|PARTITION|QOS|RESERVATION"
    r"|TIMELIMIT|WCKEY|MEM_PER_\w+|CPUS_PER_GPU|GRES\w*|EXCLUSIVE)",
)
# What a launch of this program tells its processes: left over of another one, it is none of this one's.
OWN = Family("of another launch of this program", r"ACCEL_TRAIN_(TOKEN|PROCESSES|ON_GPU|CORES|DRIVER)")
# What a process keeps that was launched: what its launcher has told it.
OF_THE_LAUNCH = re.compile(rf"{LAUNCHER.names}|ACCELERATE_(USE_CPU|CPU_AFFINITY)")
# What has git look at another repository, or at another state of it, than the folder's; hooks and aliases leave it.
GIT = Family("of git's repository", r"GIT_\w+", passing=r"GIT_(CONFIG|TRACE|CEILING|DISCOVERY|EXEC)\w*")
# What passes, and may change numbers all the same: it is recorded with its value.
RECORDED = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|VECLIB|NUMEXPR|NCCL|RCCL|CUDA|HIP|ROCR|HSA|MIOPEN|TORCH|PYTORCH|TORCHINDUCTOR|TRITON"
    r"|HIPBLAS|HIPBLASLT|ROCBLAS|TENSILE|HIPSPARSELT|ROCSOLVER|HIPSOLVER|CUBLAS|CUBLASLT|CUDNN|GLOO|XLA)_\w+"
    r"|LD_PRELOAD|GLIBC_TUNABLES|PYTHONHASHSEED|ZE_AFFINITY_MASK"
)
SECRET = re.compile(r"\w*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)\w*")


def leftovers(environment: Mapping[str, str], *families: Family) -> list[str]:
    """Those variables of an environment that are set aside, sorted; families: further ones."""
    of_launch = () if is_launched(environment) else (OWN,)
    every = (*FAMILIES, *of_launch, *families)
    return sorted(name for name in environment if any(name in family for family in every))


def child_environment(*families: Family, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process that is launched begins with; the caller adds what is the launch's own.

    families: what is set aside beside the usual; inherited: by default this process's own environment.
    """
    inherited = os.environ if inherited is None else inherited
    aside = [name for name in leftovers(inherited, *families) if inherited[name] != PYTHON_MADE.get(name)]
    made = {name: value for name, value in inherited.items() if name not in aside}
    before = inherited.get(SET_ASIDE_VARIABLE, "").split(",")
    made[SET_ASIDE_VARIABLE] = ",".join(sorted({name for name in (*before, *aside) if name and name not in SLURM}))
    made |= PYTHON_MADE
    if path := _module_path(inherited.get("PYTHONPATH", "")):
        made["PYTHONPATH"] = path
    else:
        made.pop("PYTHONPATH", None)
    return made


def tool_environment() -> dict[str, str]:
    """What a program of others begins with that is asked about this machine or folder: without what would have git
    answer of another repository than that of the folder, or anything in another language."""
    made = {name: value for name, value in child_environment().items() if name not in GIT}
    return made | {"LC_ALL": "C"}


def helper_environment() -> dict[str, str]:
    """What a process begins with that works beside a training, and must not take its cores."""
    return child_environment() | ONE_THREAD


def _module_path(text: str) -> str:
    """PYTHONPATH without its empty entries, which stand for the current folder and are left by `$PYTHONPATH:/mine`; and
    with this package, where it runs from a checkout in which nothing is installed."""
    entries = [entry for entry in text.split(os.pathsep) if entry]
    home = str(Path(__file__).parent.parent.parent)
    if home not in entries and home in map(os.path.abspath, sys.path) and not _is_installed():
        entries.append(home)
    return os.pathsep.join(entries)


@cache
def _is_installed() -> bool:
    """Whether Python finds this package by itself."""
    places = [*site.getsitepackages(), site.getusersitepackages()]
    return any(distributions(name="accel-train", path=places))


@contextmanager
def environment_restored() -> Iterator[None]:
    """Afterwards all environment variables are as before: Accelerate, torch (which sets some when it is imported) and
    trackers leave theirs behind."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def without_leftovers(*, joins_group: bool = False) -> Iterator[None]:
    """What `child_environment` sets aside is gone from this process's own environment, and there again afterwards.

    A process that was launched, or joins_group, keeps what its launcher has told it. What a library has read already,
    such as torch's choice of kernels when it was imported, stays.
    """
    with environment_restored():
        set_aside_here(has_ranks=joins_group or (is_launched() and PROCESSES_VARIABLE in os.environ))
        with gone_through():
            yield


def set_aside_here(*, has_ranks: bool) -> None:
    """Remove what `child_environment` sets aside from this process's own environment, but for what only counts when
    Python starts, and what its launcher has told it where it has_ranks."""
    aside = [name for name in leftovers(os.environ) if name not in PYTHON]
    if os.environ.get(WORKSPACE_VARIABLE) == WORKSPACE:  # as the launch has set it, and as a training would
        aside.remove(WORKSPACE_VARIABLE)
    if has_ranks:
        aside = [name for name in aside if not OF_THE_LAUNCH.fullmatch(name)]
    if not is_launched():
        os.environ.pop(SET_ASIDE_VARIABLE, None)  # of another launch
    for name in aside:
        del os.environ[name]
    os.environ.setdefault(SET_ASIDE_VARIABLE, ",".join(aside))


def begin_worker() -> None:
    """First of all in a process that trains or measures: by hand it may have been launched in any environment.

    The token of a launch that is dead stays: who stands by for it ends.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    set_aside_here(has_ranks=True)
    if token is not None:
        os.environ[TOKEN_VARIABLE] = token
    os.environ.setdefault(PROCESSES_VARIABLE, os.environ.get("WORLD_SIZE") or "1")
    keep_gone_through()


def launched_processes() -> int:
    """How many processes train together with this one, itself included, by what their launcher has said."""
    return int(os.environ.get(PROCESSES_VARIABLE) or 1)


def names_set_aside() -> list[str]:
    """What was set aside for this process."""
    return [name for name in os.environ.get(SET_ASIDE_VARIABLE, "").split(",") if name]


def numeric_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that this process was given and that may change numbers, for a record; none that could be a secret."""
    environment = os.environ if environment is None else environment
    found = {name: value for name, value in environment.items() if RECORDED.fullmatch(name)}
    return {name: found[name] for name in sorted(found) if not SECRET.fullmatch(name)}


def in_one_line(names: Iterable[str]) -> str:
    """Names for a message; of those of an allocation of Slurm, which has dozens, only how they begin and how many."""
    known, of_slurm = [], Counter[str]()
    for name in names:
        if name in SLURM:
            of_slurm[name.partition("_")[0]] += 1
        else:
            known.append(name)
    return ", ".join([*known, *(f"{beginning}_* ({number})" for beginning, number in of_slurm.items())])
