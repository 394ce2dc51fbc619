"""What an import has to bring: runs of all kinds in active and deleted experiments, models, versions, aliases."""

from __future__ import annotations

import math
import sys

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

mlflow.set_tracking_uri(sys.argv[1])
name = {"artifact_path": "model"} if mlflow.__version__.startswith("2.") else {"name": "model"}
client = mlflow.MlflowClient()
mlflow.set_experiment("flights")
mlflow.set_experiment_tag("team", "ops")
X = pd.DataFrame({"a": np.arange(10.0), "b": np.arange(10.0) ** 2})
y = X["a"] * 2 + 1
for number in range(2):
    with mlflow.start_run(run_name=f"r{number}", tags={"n": str(number)}):
        mlflow.log_params({"depth": number, "lr": 0.1 * number})
        for step in range(40):
            odd = (math.nan, math.inf, -math.inf, 1e-308)[step % 4]
            mlflow.log_metrics({"loss": 1 / (step + 1 + number), "odd": odd}, step=step)
        mlflow.log_metric("early", 3, step=-1, timestamp=5)
        mlflow.log_input(mlflow.data.from_pandas(X, name="rows"), context="training")
        mlflow.log_text("hello ü", "notes/a ü.txt")
        mlflow.log_dict({"a": 1}, "b.json")
        model = LinearRegression().fit(X, y)
        mlflow.sklearn.log_model(model, **name, registered_model_name="line", pip_requirements=[])
client.set_registered_model_alias("line", "champion", 2)
client.set_registered_model_tag("line", "k", "v")
client.update_registered_model("line", description="a line")
client.set_model_version_tag("line", "1", "checked", "yes")
client.update_model_version("line", "1", description="first")
client.transition_model_version_stage("line", "1", "Staging")
client.delete_run(client.create_run("0", run_name="gone").info.run_id)
old = mlflow.create_experiment("old")
failed = client.create_run(old, run_name="in a deleted experiment")
client.log_metric(failed.info.run_id, "m", 1)
client.set_terminated(failed.info.run_id, "FAILED")
mlflow.delete_experiment(old)
client.create_run("0", run_name="going on")
