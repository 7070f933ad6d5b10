"""Models in OCI registries."""
