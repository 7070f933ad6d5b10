"""Payload events as Parquet, KServe's 14 columns. The one module that imports pyarrow, of the extra ``parquet``."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from servery_sdk.payloads import PayloadEvent, SinkTarget

from servery_agent.payloads.tables import COLUMNS, row

_SCHEMA = pa.schema(
    [pa.field(name, pa.bool_() if name == "tlsSkipVerify" else pa.string(), nullable=False) for name in COLUMNS]
)


def as_parquet(events: Sequence[PayloadEvent], target: SinkTarget) -> bytes:
    """Return a file of one row group."""
    rows = [dict(zip(COLUMNS, row(event, target), strict=True)) for event in events]
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), written, compression="zstd")
    return written.getvalue()
