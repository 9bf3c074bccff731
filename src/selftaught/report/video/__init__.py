"""What the page shows of clips."""
