"""What `mlflow models serve` serves in the test beside this: a model with a signature, under an alias."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

X = pd.DataFrame({"a": np.arange(10.0), "b": np.arange(10.0) ** 2})
name = {"artifact_path": "model"} if mlflow.__version__.startswith("2.") else {"name": "model"}
with mlflow.start_run():
    mlflow.sklearn.log_model(
        LinearRegression().fit(X, X["a"] * 2 + 1), **name, registered_model_name="served", input_example=X.head(2),
        pip_requirements=["scikit-learn"],
    )  # fmt: skip
mlflow.MlflowClient().set_registered_model_alias("served", "champion", 1)
