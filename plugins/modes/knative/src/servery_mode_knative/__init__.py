"""The Knative mode: one Knative Service per component."""
