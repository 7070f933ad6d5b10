"""The descriptor of the mlflow runtime. Does not import its framework."""
