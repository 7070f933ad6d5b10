"""KServe's annotation for metrics of a whole pod on one page, read and written."""

from __future__ import annotations

import pytest
from servery_dialect_kserve.plugin import KServeDialect
from servery_sdk.model import Catalog

MERGED = "serving.kserve.io/enable-metric-aggregation"
DIALECT = KServeDialect()


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False), (None, False)])
def test_annotation_merges_metrics(value: str | None, *, expected: bool) -> None:
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris", "namespace": "demo", "annotations": {MERGED: value} if value else {}},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/m"}}},
    }
    assert DIALECT.parse(manifest, Catalog()).predictor.merges_metrics is expected
