"""A dataset's contract, consumers and anomalies, as a page shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from modelyard.types import contracts, data, profiles
from modelyard.ui.views import dataset_trust

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
CONTRACT = contracts.ContractVersion(
    dataset="flights",
    number=2,
    contract=contracts.Contract(
        owner="ops@airline.example",
        description="One row a flight, as scheduled.",
        columns=[
            contracts.ContractColumn(name="id", type="string", nullable=False, description="Carrier, number and day"),
            contracts.ContractColumn(name="distance", type="double"),
            contracts.ContractColumn(name="carrier", type="string", nullable=False),
        ],
        max_age_s=26 * 3600,
        checks=[data.Range(column="distance", min=0), data.NotNull(column="id", severity="warn")],
    ),
    set_at=NOW - timedelta(days=3),
    set_by="anna",
)
CONSUMERS = [
    contracts.Consumer(
        consumer="feature-view:origin_delays",
        columns=[contracts.ConsumedColumn(name="distance", type="double")],
        origin="lineage",
        at=NOW - timedelta(hours=4),
    ),
    contracts.Consumer(
        consumer="team:ops",
        columns=[contracts.ConsumedColumn(name=f"column_{n}") for n in range(14)],
        origin="declared",
        owner="ben",
        at=NOW - timedelta(days=2),
    ),
    contracts.Consumer(consumer="model:delay", columns=[], origin="lineage"),
]
BROKEN = contracts.Break(
    consumer="feature-view:origin_delays", column="distance", problem="column 'distance' is float, not double"
)
FRESHNESS = profiles.FreshnessState(
    last_at=NOW - timedelta(hours=30),
    due_at=NOW - timedelta(hours=4),
    overdue=True,
    reason="its contract promises a version every 26 hours",
)
TRUST = dataset_trust.Trust(
    contract=CONTRACT,
    earlier=(CONTRACT,),
    freshness=FRESHNESS,
    promises=tuple(
        dataset_trust.Promise(
            column=one,
            present=one.type,
            problem=BROKEN.problem if one.name == "distance" else "",
            needed_by=("feature-view:origin_delays", "model:delay@3") if one.name == "distance" else (),
        )
        for one in CONTRACT.contract.columns
    ),
    unpromised=("tailnum",),
    consumers=tuple(
        dataset_trust.Reliance(consumer=one, breaks=(BROKEN,) if one.consumer == BROKEN.consumer else ())
        for one in CONSUMERS
    ),
    columns=("id", "distance", "carrier", "tailnum"),
    dropped="distance",
    would_break=(BROKEN, contracts.Break(consumer="contract:flights", column="distance", problem="it is missing")),
    affected=("model:delay",),
)
WRITES = [
    profiles.WriteVolume(
        version=number,
        at=NOW - timedelta(days=30 - number),
        rows=900 + 37 * (number % 5) if number != 20 else 120,
        expected_low=700.0 if number > 6 else None,
        expected_high=1_300.0 if number > 6 else None,
    )
    for number in range(1, 21)
]
UNUSUAL = dataset_trust.Unusual(
    anomalies=(
        profiles.FoundAnomaly(
            id="a2",
            dataset="flights",
            version=20,
            anomaly=profiles.Anomaly(
                kind="volume",
                reason="120 rows are unusually few: the 19 writes before it had 974 in the middle, and 700 to 1,300 "
                "would be usual",
                observed=120.0,
                expected_low=700.0,
                expected_high=1_300.0,
            ),
            found_at=NOW - timedelta(hours=2),
        ),
        profiles.FoundAnomaly(
            id="a1",
            dataset="flights",
            version=None,
            anomaly=profiles.Anomaly(kind="freshness", reason="no version for 3 days: versions usually come 1 day"),
            found_at=NOW - timedelta(days=9),
            ended_at=NOW - timedelta(days=8),
        ),
    ),
    volumes=dataset_trust.volume_chart(WRITES),
    freshness=FRESHNESS,
)
