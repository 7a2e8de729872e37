"""Datasets and image pipelines: from a folder of pictures to normalised batches."""
