"""A program of MLflow's users: the fluent API and the client, with nothing set but the environment."""

from __future__ import annotations

import json
import math
import time

import matplotlib
import mlflow
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

matplotlib.use("Agg")
client = mlflow.MlflowClient()
seen: dict[str, object] = {}

experiment = mlflow.set_experiment("fluent")
mlflow.set_experiment_tag("team", "ops")
frame = pd.DataFrame({"distance": [1.0, 2.0, 3.0], "late": [0, 1, 0]})
with mlflow.start_run(run_name="parent", tags={"kind": "outer"}, description="what it is") as parent:
    mlflow.log_params({"depth": 3, "lr": 0.1})
    mlflow.log_param("words", "ü" * 50)
    for step in range(30):
        mlflow.log_metrics({"loss": 1 / (step + 1), "odd": math.nan, "far": math.inf}, step=step)
    mlflow.log_metric("late", 5.0, step=3, timestamp=1_000, synchronous=True)
    mlflow.log_input(mlflow.data.from_pandas(frame, targets="late", name="flights"), context="training")
    mlflow.log_dict({"a": [1, 2]}, "notes/conf.json")
    mlflow.log_text("hello", "notes/hello.txt")
    mlflow.log_table({"x": [1, 2], "y": ["a", "b"]}, "table.json")
    mlflow.log_table({"x": [3], "y": ["c"]}, "table.json")
    figure, axes = plt.subplots()
    axes.plot([1, 2, 3])
    mlflow.log_figure(figure, "plots/line.png")
    mlflow.log_image(np.zeros((8, 8, 3), dtype=np.uint8), "plots/black.png")
    mlflow.log_image(np.zeros((8, 8, 3), dtype=np.uint8), key="sample", step=1)
    mlflow.flush_artifact_async_logging()
    with mlflow.start_run(nested=True, run_name="child") as child:
        mlflow.log_metric("auc", 0.7)
    time.sleep(0.01)
    with mlflow.start_run(nested=True, run_name="other") as other:
        mlflow.log_metric("auc", 0.9)

read = mlflow.get_run(parent.info.run_id)
assert read.info.status == "FINISHED" and read.data.params["depth"] == "3", read
assert read.data.metrics["loss"] == 1 / 30 and math.isnan(read.data.metrics["odd"])
assert read.inputs.dataset_inputs[0].dataset.name == "flights"
assert [one.value for one in client.get_metric_history(parent.info.run_id, "loss")] == [1 / (n + 1) for n in range(30)]
assert mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/notes/conf.json") == {"a": [1, 2]}
assert mlflow.artifacts.load_text(f"runs:/{parent.info.run_id}/notes/hello.txt") == "hello"
assert mlflow.artifacts.load_image(f"{parent.info.artifact_uri}/plots/black.png").size == (8, 8)
table = mlflow.load_table("table.json", run_ids=[parent.info.run_id])
assert table["x"].tolist() == [1, 2, 3], table
children = mlflow.search_runs(
    [experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'", order_by=["metrics.auc DESC"]
)
assert children["run_id"].tolist() == [other.info.run_id, child.info.run_id], children
assert client.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
seen["artifacts"] = sorted(one.path for one in client.list_artifacts(parent.info.run_id))

# what the client alone can do
found = client.search_experiments(filter_string="tags.team = 'ops'")
assert [one.name for one in found] == ["fluent"]
bare = client.create_run(experiment.experiment_id, run_name="bare")
client.log_batch(
    bare.info.run_id,
    metrics=[mlflow.entities.Metric("m", n, n, n) for n in range(1_000)],
    params=[mlflow.entities.Param("p", "1")],
    tags=[mlflow.entities.RunTag("t", "x")],
)
client.set_terminated(bare.info.run_id, "KILLED")
client.delete_run(bare.info.run_id)
assert client.get_run(bare.info.run_id).info.lifecycle_stage == "deleted"
client.restore_run(bare.info.run_id)
client.set_tag(bare.info.run_id, "gone", "soon")
client.delete_tag(bare.info.run_id, "gone")
assert len(client.get_metric_history(bare.info.run_id, "m")) == 1_000
pages, token = 0, None
while pages == 0 or token:
    page = client.search_runs([experiment.experiment_id], max_results=2, page_token=token)
    pages, token = pages + 1, page.token
assert pages == 2, pages
mlflow.delete_experiment(mlflow.create_experiment("short-lived"))
refusal = None
try:
    client.log_param(bare.info.run_id, "p", "2")
except mlflow.MlflowException as error:
    refusal = error.error_code
assert refusal == "INVALID_PARAMETER_VALUE", "another value of a param was taken"

# metrics of the machine, sampled in the background
mlflow.set_system_metrics_sampling_interval(1)
mlflow.set_system_metrics_samples_before_logging(1)
with mlflow.start_run(run_name="machine", log_system_metrics=True) as machine:
    time.sleep(3.5)
seen["system"] = sorted(key for key in mlflow.get_run(machine.info.run_id).data.metrics if key.startswith("system/"))

# without waiting for each call
with mlflow.start_run(run_name="async") as run:
    for step in range(200):
        mlflow.log_metric("loss", step, step=step, synchronous=False)
    mlflow.flush_async_logging()
assert len(client.get_metric_history(run.info.run_id, "loss")) == 200

seen["parent"] = parent.info.run_id
print(json.dumps(seen))
