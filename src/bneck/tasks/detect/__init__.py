"""Detection: SSDLite round a network, its boxes, loss and score; torch in `module` and `loss` alone."""
