"""Serves TensorFlow SavedModels and Keras models."""
