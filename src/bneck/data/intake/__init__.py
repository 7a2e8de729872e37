"""What users keep their images in, found and told in one way for all tasks: names, folders, texts."""
