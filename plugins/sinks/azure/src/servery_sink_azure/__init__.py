"""Payload logs in containers of Azure Blob Storage."""
