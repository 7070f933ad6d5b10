"""Serves Triton model repositories."""
