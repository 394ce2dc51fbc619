#!/usr/bin/env bash
# Run MLflow's own tests against a Modelyard server of this checkout, each test in a project of its own.
#
#   tools/mlflow_conformance.sh MLFLOW_CHECKOUT [rest|store|all|FILE] [pytest arguments]
#
# Nothing of MLflow is kept in this repository. Needed are
#   MLFLOW_CHECKOUT        its tests/ and pyproject.toml, at the commit that HARNESS names (late April 2026, 3.11.2.dev0)
#   MLFLOW_CONFORMANCE     the harness (run.sh and its pytest plugin); by default ../shared/conformance/mlflow
#   PYTHON                 an interpreter with mlflow==3.12.0 pytest pytest-timeout pytest-asyncio pytest-cov
# and for a part only of the tests
#   MLFLOW_CONFORMANCE_BASELINE   such as $MLFLOW_CONFORMANCE/tests-core.json
# The report (which test, which endpoints, what failed and how) is written to MLFLOW_CONFORMANCE_REPORT, that of the tests
# that look at the server's disk beside it.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
checkout=$(cd "${1:?usage: tools/mlflow_conformance.sh MLFLOW_CHECKOUT [rest|store|all|FILE] [pytest arguments]}" && pwd)
tier=${2:-all}
shift; shift || true
harness=${MLFLOW_CONFORMANCE:-$root/../shared/conformance/mlflow}
[ -x "$harness/run.sh" ] || { echo "no harness at $harness: set MLFLOW_CONFORMANCE" >&2; exit 2; }
home=$(mktemp -d "${TMPDIR:-/tmp}/modelyard-conformance.XXXXXX")
export PYTHON=${PYTHON:-python3}
case $PYTHON in /*) ;; */*) PYTHON=$PWD/$PYTHON ;; esac
export MLFLOW_CONFORMANCE_REPORT=${MLFLOW_CONFORMANCE_REPORT:-$PWD/mlflow-conformance.json}

# Its tests only: a folder mlflow/ beside them would be taken for the package that is installed. The server works in it,
# since a test that gives a relative place for artifacts expects it there.
mkdir "$home/checkout"
cp -r "$checkout/tests" "$checkout/pyproject.toml" "$home/checkout"

# Two tests look for what they uploaded in the server's folder of artifacts. They run after the others and in the
# default project, which is the one that such a folder shows.
artifacts=tests/tracking/test_mlflow_artifacts.py
on_disk=("$artifacts::test_mlflow_artifacts_rest_apis" "$artifacts::test_log_artifact")
export MLFLOW_CONFORMANCE_ARTIFACTS=$home/artifacts
export MODELYARD_HOME=$home/yard MODELYARD_ANONYMOUS_ROLE=admin MODELYARD_ARTIFACT_FOLDER=$MLFLOW_CONFORMANCE_ARTIFACTS
modelyard=$(realpath "${MODELYARD:-$root/.venv/bin/modelyard}")
(cd "$home/checkout" && exec "$modelyard" up --port 0) >"$home/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$home"' EXIT
for _ in $(seq 300); do
  url=$(sed -n 's/.*modelyard is up at \(http[^,]*\),.*/\1/p' "$home/log")
  [ -n "$url" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$home/log" >&2; exit 1; }
  sleep 0.2
done
[ -n "$url" ] || { echo "the server did not come up:" >&2; cat "$home/log" >&2; exit 1; }
status=0
"$harness/run.sh" "$url/p/{uid}" "$home/checkout" "$tier" "--deselect=${on_disk[0]}" "$@" || status=$?
echo "report: $MLFLOW_CONFORMANCE_REPORT"
case $tier in
  rest | all | "$artifacts")
    export MLFLOW_CONFORMANCE_REPORT=${MLFLOW_CONFORMANCE_REPORT%.json}-on-disk.json
    "$harness/run.sh" "$url" "$home/checkout" "${on_disk[*]}" "$@" || { last=$?; [ $last = 5 ] || status=$last; }
    echo "report: $MLFLOW_CONFORMANCE_REPORT" ;;
esac
exit "$status"
