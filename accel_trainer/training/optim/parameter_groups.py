"""Which parameters are trained, with which scale of the learning rate, and with weight decay or without."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed

# Batch and instance norms derive from the first.
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(job: Job, model: nn.Module) -> list[dict[str, Any]]:
    """Groups for a torch optimizer of the parameters that require a gradient, from the input layer to the output layer.

    One group in the model's order, unless the job asks for more. With `layer_decay` each layer has its own, whose
    "lr_scale" is its fraction of the learning rate: 1 for the output layer. Without `decay_norm_and_bias`, parameters
    without decay follow in a group of their own, with "weight_decay" 0. Raises UserError.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        key = "finetune_args.freeze_modules" if job.finetune else "architecture"
        raise UserError(f"{key}: {job.architecture} has no parameter left to train; leave some of them free")
    decayed = set(trained) if job.decay_norm_and_bias else _matrices(model)
    groups = []
    for names, scale in _layers_and_scales(job, model):
        for in_group, decay in ((decayed, {}), (trained.keys() - decayed, {"weight_decay": 0.0})):
            if parameters := [trained[name] for name in names if name in trained and name in in_group]:
                groups.append({"params": parameters, **scale, **decay})
    return groups


def _layers_and_scales(job: Job, model: nn.Module) -> list[tuple[list[str], dict[str, float]]]:
    if job.layer_decay is None:
        return [([name for name, _ in model.named_parameters()], {})]
    found = layers(model)
    if len(found) < 2:
        raise UserError(f"layer_decay: {job.architecture} has no more than one layer with weights; remove layer_decay")
    return [(names, {"lr_scale": job.layer_decay ** (len(found) - n)}) for n, names in enumerate(found, start=1)]


def layers(model: nn.Module) -> list[list[str]]:
    """The names of a model's parameters, layer by layer from input to output, whatever the model.

    The layers are the children of the model, in the order in which they were registered. One that holds more than
    half of all parameters is taken apart into its own children, again and again: the blocks of a transformer are a
    layer each, so are the stages of a ResNet but for the last, which is two. What has no matrix (norms, activations)
    belongs to the layer before it. What lies directly on a module that was taken apart (class tokens, position
    embeddings) belongs to the first layer. Every parameter is in one layer; one that is shared, where it is first.
    For the learning rates of BEiT (Bao et al., ICLR 2022), whose layers are written down for each model.
    """
    names = [name for name, _ in model.named_parameters()]
    matrices = _matrices(model)
    parts = [f"{part}." for part in _parts(model)]
    first = [name for name in names if not name.startswith(tuple(parts))]
    found: list[list[str]] = []
    for part in parts:
        inside = [name for name in names if name.startswith(part)]
        if not matrices.isdisjoint(inside):
            found.append(inside)
        else:
            (found[-1] if found else first).extend(inside)
    if not found:
        return [first] if first else []
    return [first + found[0], *found[1:]]


def _parts(model: nn.Module) -> list[str]:
    """The names of the modules that are taken as they are, in order of registration."""
    half = _size(model) / 2

    def inside(module: nn.Module, prefix: str) -> list[str]:
        parts = []
        for name, child in module.named_children():
            is_large = _size(child) > half and any(True for _ in child.children())
            parts += inside(child, f"{prefix}{name}.") if is_large else [f"{prefix}{name}"]
        return parts

    return inside(model, "")


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _matrices(model: nn.Module) -> set[str]:
    """The names of all parameters but vectors, scalars (biases, most norms) and those of norms of any shape."""
    of_norms = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters()}
    return {name for name, p in model.named_parameters() if p.ndim > 1 and id(p) not in of_norms}


# -- freezing ------------------------------------------------------------------------------------------------
def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Take the named modules out of the training; they are to be kept in eval mode. Raises UserError."""
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    frozen = []
    for name in names:
        if name in parameters:
            module = name.rpartition(".")[0]
            whole = f"freeze its module {module!r}" if module else "it belongs to no module but the whole model"
            raise UserError(f"finetune_args.freeze_modules: {name!r} is a parameter, not a module; {whole}")
        if not name or name not in modules:
            near = did_you_mean(name, [known for known in modules if known])
            children = listed((child for child, _ in model.named_children()), 30)
            raise UserError(
                f"finetune_args.freeze_modules: {type(model).__name__} has no module {name!r}{near or ';'} "
                f"its own are {children}, those inside are named as in 'layer1.0'"
            )
        frozen.append(modules[name].requires_grad_(False))
    if names and not trainable_parameters(model):
        raise UserError("finetune_args.freeze_modules: everything is frozen, nothing is left to train; leave one out")
    return frozen


def freeze_modules_of(job: Job, model: nn.Module) -> None:
    """Freeze what the job says. Raises UserError."""
    freeze(model, job.frozen_modules)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def train_mode(model: nn.Module, frozen: Iterable[str]) -> None:
    """Training mode, but for frozen modules: their BatchNorm statistics and dropout stay as in evaluation."""
    model.train()
    for name in frozen:
        model.get_submodule(name).eval()
