"""Points: laser scans and other clouds, and what is read of them."""
