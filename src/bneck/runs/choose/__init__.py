"""The choice among published networks: which of them suits a device, and which one some images."""
