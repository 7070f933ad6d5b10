"""Serves language models with vLLM."""
