"""The raw mode: a Deployment, a Service, an autoscaler and a route per component."""
