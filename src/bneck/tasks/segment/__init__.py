"""Segmentation: R-ASPP and LR-ASPP round a network, its loss and score."""
