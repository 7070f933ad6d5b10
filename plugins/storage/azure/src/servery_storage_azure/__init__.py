"""Artifacts of Azure Storage: blobs and file shares."""
