"""The descriptor of the lightgbm runtime. Does not import its framework."""
