"""What is known of samples without any training, a file a kind: tensors in, tensors out."""
