"""The architectures of the papers, one file each, their registry, and the model file."""
