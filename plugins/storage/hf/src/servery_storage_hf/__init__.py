"""Artifacts of the Hugging Face Hub."""
