"""What learning from few labels is made of: losses, sampling, augmentation, stages."""
