"""Image sets, pre-processing, batches, and the processes that share them."""
