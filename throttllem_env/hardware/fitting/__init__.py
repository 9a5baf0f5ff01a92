"""Fits the shipped hardware profiles to calibration figures; needs the extra `fit`."""
