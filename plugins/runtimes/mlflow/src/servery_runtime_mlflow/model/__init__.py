"""All that imports MLflow."""

import os

# Here, because MLflow looks when it is imported: else it sends home how it is used, from threads of its own.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
