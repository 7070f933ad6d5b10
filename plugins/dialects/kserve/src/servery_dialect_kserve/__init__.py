"""KServe's InferenceService, ServingRuntime and ClusterServingRuntime."""
