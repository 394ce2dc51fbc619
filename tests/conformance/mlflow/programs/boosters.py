"""Autologging of XGBoost and LightGBM: a metric a round, the importance of features, the model."""

from __future__ import annotations

import json

import lightgbm
import mlflow
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

mlflow.set_experiment("autolog-boosters")
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X.columns = [name.replace(" ", "_") for name in X.columns]
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=1)
client = mlflow.MlflowClient()

mlflow.xgboost.autolog(model_format="json")
with mlflow.start_run(run_name="xgboost") as first:
    train, test = xgboost.DMatrix(X_train, y_train), xgboost.DMatrix(X_test, y_test)
    params = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}
    booster = xgboost.train(params, train, num_boost_round=12, evals=[(test, "test")], verbose_eval=False)
history = client.get_metric_history(first.info.run_id, "test-logloss")
assert [one.step for one in history] == list(range(12)), history
loaded = mlflow.xgboost.load_model(f"runs:/{first.info.run_id}/model")
assert abs(loaded.predict(test) - booster.predict(test)).max() == 0

mlflow.lightgbm.autolog()
with mlflow.start_run(run_name="lightgbm") as second:
    data = lightgbm.Dataset(X_train, y_train)
    params = {"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1}
    valid = lightgbm.Dataset(X_test, y_test, reference=data)
    model = lightgbm.train(params, data, num_boost_round=10, valid_sets=[valid], valid_names=["test"])
history = client.get_metric_history(second.info.run_id, "test-binary_logloss")
assert len(history) == 10, history
assert "feature_importance_gain.json" in {one.path for one in client.list_artifacts(second.info.run_id)}
assert mlflow.get_run(second.info.run_id).data.params["num_leaves"] == "7"
pyfunc = mlflow.pyfunc.load_model(f"runs:/{second.info.run_id}/model")
assert abs(pyfunc.predict(X_test) - model.predict(X_test)).max() < 1e-12
print(json.dumps({"xgboost": first.info.run_id, "lightgbm": second.info.run_id}))
