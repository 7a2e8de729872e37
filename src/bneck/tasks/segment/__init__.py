"""Segmentation: a class for every pixel, R-ASPP and LR-ASPP (section 6.4), scored by mIOU."""
