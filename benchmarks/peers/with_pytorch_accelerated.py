"""pytorch-accelerated, with its default callbacks, and a checkpoint after every epoch."""

from common import Work
from pytorch_accelerated import Trainer
from pytorch_accelerated.callbacks import TrainerCallback
from pytorch_accelerated.trainer import DEFAULT_CALLBACKS
from torch import nn


class Save(TrainerCallback):
    def __init__(self, work: Work) -> None:
        self.work = work

    def on_training_run_epoch_end(self, trainer: Trainer, **kwargs: object) -> None:
        trainer.save_checkpoint(self.work.checkpoint)


def main() -> None:
    work = Work.read()
    model = work.model()
    trainer = Trainer(model, nn.CrossEntropyLoss(), work.optimizer(model), (*DEFAULT_CALLBACKS, Save(work)))
    train, val = work.data_sets()
    trainer.train(
        train_dataset=train,
        eval_dataset=val,
        num_epochs=work.num_epochs,
        per_device_batch_size=work.batch_size,
        train_dataloader_kwargs={"num_workers": 0, "drop_last": True},
        eval_dataloader_kwargs={"num_workers": 0},
    )


if __name__ == "__main__":
    main()
