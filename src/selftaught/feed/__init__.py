"""From a dataset to batches: which sample comes when, its views, the processes that make them."""
