"""Requests that wait for a busy predictor go to it as one, and each gets its own part of the answer."""
