"""`kubectl hotkeys`: what the operator decided, read from its objects; it asks nothing of Kafka or Redis."""
