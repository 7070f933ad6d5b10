"""Serves transformers, with OpenAI's API."""
