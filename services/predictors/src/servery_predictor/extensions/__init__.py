"""Triton's protocol extensions beyond inference: shared memory, statistics, traces, logs, generation, streams.

Source: Triton Inference Server, "Protocol", docs/protocol/extension_*.md.
"""
