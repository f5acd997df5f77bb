"""What a net is for: the accuracy gate of a classifier."""
