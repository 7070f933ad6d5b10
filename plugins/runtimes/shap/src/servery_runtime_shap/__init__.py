"""Explains by Shapley values: what a predictor answers to inputs like the given one."""
