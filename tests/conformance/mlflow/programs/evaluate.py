"""`mlflow.evaluate` (2.x) or `mlflow.models.evaluate` (3.x): metrics, plots and tables of a model on a dataset."""

from __future__ import annotations

import json

import mlflow
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

mlflow.set_experiment("evaluate")
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
signature = mlflow.models.infer_signature(X, y)
frame = X.assign(label=y)
with mlflow.start_run() as run:
    if mlflow.__version__.startswith("2."):
        info = mlflow.sklearn.log_model(model, "model", signature=signature, pip_requirements=[])
    else:
        info = mlflow.sklearn.log_model(model, name="model", signature=signature, pip_requirements=[])
    evaluate = mlflow.evaluate if mlflow.__version__.startswith("2.") else mlflow.models.evaluate
    result = evaluate(
        info.model_uri, frame, targets="label", model_type="classifier", evaluators="default",
        evaluator_config={"log_model_explainability": False},
    )  # fmt: skip
found = mlflow.get_run(run.info.run_id)
assert found.data.metrics["accuracy_score"] == result.metrics["accuracy_score"] > 0.9, found.data.metrics
files = sorted(one.path for one in mlflow.artifacts.list_artifacts(run_id=run.info.run_id))
assert "confusion_matrix.png" in files and "roc_curve_plot.png" in files, files
print(json.dumps({"run": run.info.run_id, "files": files, "metrics": len(found.data.metrics)}))
