"""The ports on real Kafka, Redis and Kubernetes. Only these modules import their clients."""
