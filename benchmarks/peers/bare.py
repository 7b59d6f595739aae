"""The loop that one writes with nothing but PyTorch."""

import torch
import torch.nn.functional as F
from common import Batches, Work


@torch.no_grad()
def evaluate(model: torch.nn.Module, batches: Batches) -> tuple[float, float]:
    """Mean loss, and accuracy."""
    model.eval()
    loss, hits, count = torch.zeros(()), torch.zeros(()), 0
    for images, labels in batches:
        logits = model(images)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        hits += (logits.argmax(1) == labels).sum()
        count += len(labels)
    return float(loss) / count, float(hits) / count


def main() -> None:
    work = Work.read()
    model = work.model()
    optimizer = work.optimizer(model)
    train, val = work.loaders()
    for epoch in range(work.num_epochs):
        model.train()
        losses = torch.zeros(())
        for images, labels in train:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.detach()
        print(epoch, float(losses) / len(train), *evaluate(model, val))
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, work.checkpoint)


if __name__ == "__main__":
    main()
