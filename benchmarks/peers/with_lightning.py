"""Lightning, with its defaults: a progress bar, its own logger every 50 steps, a checkpoint after every epoch."""

import lightning
import torch
import torch.nn.functional as F
from common import Work


class Module(lightning.LightningModule):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work, self.model = work, work.model()

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], number: int) -> None:
        images, labels = batch
        logits = self.model(images)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.work.optimizer(self.model)


def main() -> None:
    work = Work.read()
    trainer = lightning.Trainer(
        max_epochs=work.num_epochs,
        accelerator="cpu",
        devices=1,
        default_root_dir=work.folder,
        num_sanity_val_steps=0,  # more validation than the others do
    )
    trainer.fit(Module(work), *work.loaders())


if __name__ == "__main__":
    main()
