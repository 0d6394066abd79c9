"""Prediction of a volume, tile by tile."""
