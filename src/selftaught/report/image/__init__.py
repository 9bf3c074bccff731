"""What a page shows of images."""
