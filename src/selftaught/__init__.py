"""Self-supervised learning."""
