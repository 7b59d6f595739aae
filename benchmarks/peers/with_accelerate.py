"""The same loop with Accelerate, as its documentation writes it."""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from common import Batches, Work


@torch.no_grad()
def evaluate(model: torch.nn.Module, batches: Batches, accelerator: Accelerator) -> tuple[float, float]:
    """Mean loss, and accuracy."""
    model.eval()
    loss, hits, count = torch.zeros(()), torch.zeros(()), 0
    for images, labels in batches:
        logits, labels = accelerator.gather_for_metrics((model(images), labels))
        loss += F.cross_entropy(logits, labels, reduction="sum")
        hits += (logits.argmax(1) == labels).sum()
        count += len(labels)
    return float(loss) / count, float(hits) / count


def main() -> None:
    work = Work.read()
    accelerator = Accelerator()
    model = work.model()
    model, optimizer, train, val = accelerator.prepare(model, work.optimizer(model), *work.loaders())
    for epoch in range(work.num_epochs):
        model.train()
        losses = torch.zeros(())
        for images, labels in train:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            losses += loss.detach()
        accelerator.print(epoch, float(losses) / len(train), *evaluate(model, val, accelerator))
        state = {"model": accelerator.unwrap_model(model).state_dict(), "optimizer": optimizer.state_dict()}
        accelerator.save(state, work.checkpoint)
    accelerator.end_training()


if __name__ == "__main__":
    main()
