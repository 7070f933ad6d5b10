"""The Ray mode: RayServices, and RayClusters for models on several machines."""
