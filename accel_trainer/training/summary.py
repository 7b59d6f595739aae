"""A model in a few lines, for the beginning of a log."""

from torch import nn

MAX_LINES = 24


def model_summary(model: nn.Module, num_classes: int, image_size: int) -> str:
    """Its parts with their types and numbers of parameters, and the sum; at most MAX_LINES parts."""
    parts = [(name, type(part).__name__, count_parameters(part)) for name, part in model.named_children()]
    shown = parts[:MAX_LINES]
    width = max((len(name) for name, _, _ in shown), default=4)
    kind_width = max((len(kind) for _, kind, _ in shown), default=4)
    lines = [f"{type(model).__name__}: {image_size}x{image_size} pixels to {num_classes} classes"]
    lines += [f"  {name:<{width}}  {kind:<{kind_width}}  {count:>13,}" for name, kind, count in shown]
    if len(parts) > len(shown):
        lines.append(f"  ... and {len(parts) - len(shown)} more")
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lines.append(f"  {count_parameters(model):,} parameters, {trainable:,} of them trained")
    return "\n".join(lines)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
