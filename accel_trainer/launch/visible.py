"""Which GPUs CUDA_VISIBLE_DEVICES shows, as CUDA reads it."""

import re
from collections.abc import Sequence

from accel_trainer.launch.nvidia import Gpu

VISIBLE_VARIABLE, ORDER_VARIABLE = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
OF_THE_BUS = "PCI_BUS_ID"
# With these a GPU is hidden on purpose: as people write it, and as Slurm does where a job has asked for none.
_NONE = re.compile(r"\s*(|-\d.*|none|void|nodevfiles)\s*", re.IGNORECASE)


def hides_all(visible: str) -> bool:
    """Whether a value of CUDA_VISIBLE_DEVICES is meant to show no GPU."""
    return _NONE.fullmatch(visible) is not None


def visible_gpus(gpus: Sequence[Gpu], visible: str) -> tuple[Gpu, ...]:
    """Those that a value of CUDA_VISIBLE_DEVICES shows, in its order, as CUDA reads it: numbers, or beginnings of UUIDs
    of one kind. What comes after one that is not there is not seen, and one that is there twice hides all.

    NVIDIA, CUDA Programming Guide, CUDA Environment Variables; and torch.cuda, which follows the driver.
    """
    words = [word.strip() for word in visible.split(",")]
    kind = next((kind for kind in ("GPU-", "MIG-") if words[0].startswith(kind)), "")
    found: list[Gpu] = []
    for word in words:
        gpu = _named(gpus, word, kind)
        if gpu is None:
            break
        if gpu in found:
            return ()
        found.append(gpu)
    return tuple(found)


def _named(gpus: Sequence[Gpu], word: str, kind: str) -> Gpu | None:
    if not kind:
        number = re.match(r"\+?(\d+)", word)  # CUDA reads a number as C does, and what follows it not at all
        return None if number is None else _first_of(gpus, str(int(number[1])))
    return by_uuid(gpus, word) if word.startswith(kind) else None


def _first_of(gpus: Sequence[Gpu], index: str) -> Gpu | None:
    """A GPU; of one that is divided the first MIG device, as CUDA takes it."""
    return next((gpu for gpu in gpus if gpu.index.partition(":")[0] == index), None)


def by_uuid(gpus: Sequence[Gpu], beginning: str) -> Gpu | None:
    """The only GPU or MIG device whose UUID begins so, or which an older driver names by its GPU's UUID and its
    instances, MIG-GPU-.../1/0; the first MIG device of a divided GPU whose UUID begins so. None where there is none, or
    more than one."""
    if old := re.fullmatch(r"MIG-(GPU-[\w-]+)/(\d+)/(\d+)", beginning):
        of, *instances = old.groups()
        found = [gpu for gpu in gpus if gpu.gpu_uuid == of and gpu.instances == tuple(map(int, instances))]
    else:
        found = [gpu for gpu in gpus if gpu.uuid.startswith(beginning)]
        divided = {gpu.gpu_uuid: gpu for gpu in reversed(gpus) if gpu.gpu_uuid.startswith(beginning)}
        found += [divided[uuid] for uuid in divided if uuid]
    return found[0] if len(found) == 1 else None
