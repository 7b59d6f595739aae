"""Hugging Face's Trainer: its defaults but for what would be other work (gradient clipping, a schedule of the rate)."""

from typing import Any

import torch
import torch.nn.functional as F
from common import Work
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer, TrainingArguments


class WithLoss(nn.Module):
    """What this Trainer wants of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(images)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class WholeValidation(Trainer):
    """dataloader_drop_last would leave out validation images too."""

    def get_eval_dataloader(self, *_: Any) -> DataLoader[Any]:
        batches = DataLoader(self.eval_dataset, self.args.eval_batch_size, collate_fn=self.data_collator)
        return self.accelerator.prepare(batches)


def collate(examples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    images, labels = zip(*examples, strict=True)
    return {"images": torch.stack(images), "labels": torch.stack(labels)}


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


def main() -> None:
    work = Work.read()
    model = WithLoss(work.model())
    train, val = work.data_sets()
    how = TrainingArguments(
        output_dir=str(work.folder / "trainer"),
        num_train_epochs=work.num_epochs,
        per_device_train_batch_size=work.batch_size,
        per_device_eval_batch_size=work.batch_size,
        dataloader_drop_last=True,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to="none",
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = WholeValidation(
        model,
        how,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=val,
        compute_metrics=accuracy,
        optimizers=(work.optimizer(model), None),
    )
    trainer.train()


if __name__ == "__main__":
    main()
