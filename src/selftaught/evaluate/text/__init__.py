"""What is known of texts without any training."""
