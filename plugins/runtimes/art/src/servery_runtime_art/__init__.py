"""Explains by adversarial examples: what a predictor answers to inputs like the given one."""
