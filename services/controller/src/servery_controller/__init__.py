"""Watches manifests, plans, renders, applies, reports status."""
