"""Autologging of scikit-learn: one fit, one search over params, and a pipeline."""

from __future__ import annotations

import json

import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

mlflow.set_experiment("autolog-sklearn")
mlflow.sklearn.autolog(log_input_examples=True, max_tuning_runs=3)
X, y = load_iris(return_X_y=True, as_frame=True)
with mlflow.start_run() as run:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(X, y)
    score = model.score(X, y)
found = mlflow.get_run(run.info.run_id)
assert found.data.metrics["training_accuracy_score"] > 0.9, found.data.metrics
assert found.data.metrics["Pipeline_score_X"] == score, found.data.metrics
assert found.data.params["logisticregression__max_iter"] == "200"
assert found.inputs.dataset_inputs, "autologging logs what was fitted on"
loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
assert (loaded.predict(X) == model.predict(X)).all()
assert mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").metadata.signature is not None

with mlflow.start_run(run_name="search") as search:
    GridSearchCV(LogisticRegression(max_iter=200), {"C": [0.1, 1.0, 10.0]}, cv=3).fit(X, y)
children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{search.info.run_id}'")
assert len(children) == 3, children
assert "best_cv_score" in mlflow.get_run(search.info.run_id).data.metrics
print(json.dumps({"run": run.info.run_id, "files": [one.path for one in mlflow.artifacts.list_artifacts(
    run_id=run.info.run_id)]}))  # fmt: skip
