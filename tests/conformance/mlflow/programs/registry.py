"""The registry: log and register, aliases, loading by each way to say a version, copying, stages, tags, search."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LinearRegression

OLD = mlflow.__version__.startswith("2.")
mlflow.set_experiment("registry")
client = mlflow.MlflowClient()
X = pd.DataFrame({"a": np.arange(10.0), "b": np.arange(10.0) ** 2})
y = X["a"] * 2 + 1


class Plus(mlflow.pyfunc.PythonModel):
    def __init__(self, what: float) -> None:
        self.what = what

    def predict(self, context, model_input, params=None):
        return model_input["a"] + self.what


def logged(model: object, flavor: object, **more: object) -> object:
    name = {"artifact_path": "model"} if OLD else {"name": "model"}
    return flavor.log_model(**{**name, **more}, registered_model_name="line", pip_requirements=[])


model = LinearRegression().fit(X, y)
for _ in range(2):
    with mlflow.start_run() as run:
        signature = mlflow.models.infer_signature(X, y)
        logged(model, mlflow.sklearn, sk_model=model, signature=signature, input_example=X.head(2))
with mlflow.start_run() as custom:
    logged(Plus(5), mlflow.pyfunc, python_model=Plus(5.0))

client.set_registered_model_alias("line", "champion", 2)
client.set_registered_model_alias("line", "challenger", "3")
assert client.get_model_version_by_alias("line", "champion").run_id == run.info.run_id
for uri in ("models:/line/1", "models:/line@champion", f"runs:/{run.info.run_id}/model"):
    assert np.allclose(mlflow.sklearn.load_model(uri).predict(X), y), uri
loaded = mlflow.pyfunc.load_model("models:/line@challenger")
assert loaded.predict(X).tolist() == (X["a"] + 5).tolist()
assert loaded.unwrap_python_model().what == 5.0
assert mlflow.models.get_model_info("models:/line@champion").signature.inputs.input_names() == ["a", "b"]
assert mlflow.pyfunc.load_model("models:/line/2").input_example is not None or OLD

copy = client.copy_model_version("models:/line@champion", "line-prod")
assert (copy.name, str(copy.version)) == ("line-prod", "1"), copy
assert np.allclose(mlflow.pyfunc.load_model("models:/line-prod/1").predict(X), y)
client.update_registered_model("line", description="a line")
client.set_model_version_tag("line", "1", "checked", "yes")
client.update_model_version("line", "1", description="the first")
assert [str(one.version) for one in client.search_model_versions("name = 'line'")] == ["1", "3", "2"], "last changed"
assert [one.version for one in client.search_model_versions(f"run_id = '{custom.info.run_id}'")]
assert [one.name for one in client.search_registered_models("name LIKE 'line%'")] == ["line", "line-prod"]
client.transition_model_version_stage("line", "1", "Staging")
assert np.allclose(mlflow.pyfunc.load_model("models:/line/Staging").predict(X), y)
client.delete_registered_model_alias("line", "challenger")
refusal = None
try:
    client.get_model_version_by_alias("line", "challenger")
except MlflowException as error:
    refusal = error.error_code
assert refusal == "INVALID_PARAMETER_VALUE", "an alias that was deleted is found"
client.rename_registered_model("line-prod", "line-live")
client.delete_model_version("line-live", "1")
client.delete_registered_model("line-live")
assert {one.name for one in client.search_registered_models()} == {"line"}
registered = mlflow.register_model(f"runs:/{run.info.run_id}/model", "line", tags={"by": "hand"})
assert str(registered.version) == "4", registered
print(json.dumps({"run": run.info.run_id, "source": client.get_model_version("line", "1").source}))
