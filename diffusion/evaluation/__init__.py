"""What a checkpoint is worth: measures of samples against data."""
