"""The one loop that runs any architecture's training stages."""
