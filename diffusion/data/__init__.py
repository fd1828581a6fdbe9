"""From data sets to batches of numpy arrays."""
