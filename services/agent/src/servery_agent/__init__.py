"""The sidecar that stands in front of a predictor."""
