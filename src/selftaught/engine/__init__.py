"""The one training loop: from a method and a dataset to a run folder."""
