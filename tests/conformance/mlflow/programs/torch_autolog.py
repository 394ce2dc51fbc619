"""Autologging of PyTorch by Lightning, with checkpoints, and the model logged as such."""

from __future__ import annotations

import json
import tempfile

import lightning
import mlflow
import torch

mlflow.set_experiment("autolog-torch")
torch.manual_seed(1)
torch.set_num_threads(1)


class Line(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.log("val_loss", torch.nn.functional.mse_loss(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


rows = torch.randn(64, 3)
data = torch.utils.data.TensorDataset(rows, rows.sum(1, keepdim=True))
loader = torch.utils.data.DataLoader(data, batch_size=16)
mlflow.pytorch.autolog(log_every_n_epoch=1, checkpoint_monitor="val_loss")
with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as run:
    model = Line()
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", default_root_dir=folder, enable_progress_bar=False, logger=False
    )
    trainer.fit(model, loader, loader)
found = mlflow.get_run(run.info.run_id)
assert found.data.params["epochs"] == "4", found.data.params
history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train_loss")
assert len(history) >= 4 and history[-1].value < history[0].value, history
loaded = mlflow.pytorch.load_model(f"runs:/{run.info.run_id}/model")
assert torch.allclose(loaded(rows), model(rows))
files = [one.path for one in mlflow.artifacts.list_artifacts(run_id=run.info.run_id)]
print(json.dumps({"run": run.info.run_id, "files": files, "metrics": sorted(found.data.metrics)}))
