"""Card and bill of materials: complete, honest about what is not known, and no way in for markup of others."""

from __future__ import annotations

import msgspec
import pytest

from modelyard.kernel.auth import Scope
from modelyard.planes.registry.card import bill_of_materials, model_card
from modelyard.types.registry import LatencyReport, Policy

from .conftest import LIGHTGBM, MLMODEL, House, scored


def test_the_card_says_what_is_known_and_what_is_not(house: House, ann: Scope, bob: Scope) -> None:
    house.version(ann)
    bare = model_card(house.registry.record(ann, "delay", 1))
    assert "| data | unknown |" in bare
    assert "*Nothing is on record.*" in bare
    house.registry.models.set_policy(ann, "delay", Policy(signature=True))
    house.registry.evidence.evaluate(ann, "delay", 1, [scored(0.5)], dataset="dataset:held_out@3")
    report = LatencyReport(p50_ms=1.0, p95_ms=2.5, requests=100, measured_on="laptop")
    house.registry.evidence.record_latency(ann, "delay", 1, report)
    house.registry.approve(bob, "delay", 1, "read it")
    house.registry.promote(ann, "delay", 1, "champion", "first")
    full = model_card(house.registry.record(ann, "delay", "champion"))
    for word in ("dataset:held_out@3", "| auc | 0.", "carrier", "2.50", "read it", "became champion", "distance"):
        assert word in full, word


def test_text_of_others_stays_text(house: House, ann: Scope) -> None:
    house.registry.models.create(ann, "delay", description="<script>x</script> [a](javascript:x) | b")
    house.version(ann)
    card = model_card(house.registry.record(ann, "delay", 1))
    assert "<script" not in card
    assert "[a]" not in card.replace("\\[a\\]", "")


def test_the_bill_lists_files_data_and_measures(house: House, ann: Scope) -> None:
    made = house.version(ann)
    house.registry.evidence.evaluate(ann, "delay", 1, [scored(0.5)])
    bill = bill_of_materials(house.registry.record(ann, "delay", 1))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    component = bill["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["hashes"] == [{"alg": "SHA-256", "content": made.digest}]
    assert {one["name"] for one in bill["components"]} == {"MLmodel", "model.txt"}
    metrics = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {one["type"] for one in metrics} >= {"auc", "log_loss"}
    references = {one["bom-ref"] for one in bill["components"]}
    assert set(bill["dependencies"][0]["dependsOn"]) == references
    assert bill == bill_of_materials(house.registry.record(ann, "delay", 1))


@pytest.mark.slow
def test_the_bill_is_valid_cyclonedx(house: House, ann: Scope, bob: Scope) -> None:
    """By the schema of CycloneDX itself, with all that a version can have, and with next to nothing."""
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    licensed = MLMODEL + b"metadata: {license: apache-2.0}\nsaved_input_example_info: {artifact_path: in.json}\n"
    made = house.version(ann, files={"MLmodel": licensed, "model.txt": LIGHTGBM, "in.json": b"{}", "a/b.txt": b"x"})
    with house.database.transaction(ann) as tx:
        tx.link(f"run:{made.provenance.run}", "used", "dataset:flights@3")
    full = house.registry.versions.create(ann, "delay", made.source, description="with all", run=made.provenance.run)
    house.registry.evidence.evaluate(ann, "delay", full.version, [scored(0.5)], dataset="dataset:held_out@1")
    house.registry.versions.create(ann, "delay", "s3://elsewhere/model")
    house.version(ann, files={"MLmodel": MLMODEL + b"metadata: {license: My own terms}\n", "model.txt": LIGHTGBM})
    validator = validation.JsonStrictValidator(SchemaVersion.V1_6)
    for number in range(1, 5):
        bill = bill_of_materials(house.registry.record(ann, "delay", number))
        error = validator.validate_str(msgspec.json.encode(bill).decode())
        assert error is None, f"version {number}: {error}"
    component = bill_of_materials(house.registry.record(ann, "delay", full.version))["metadata"]["component"]
    assert component["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert component["modelCard"]["modelParameters"]["datasets"] == [{"ref": "dataset:flights@3"}]
    assert validator.validate_str('{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{}]}') is not None
