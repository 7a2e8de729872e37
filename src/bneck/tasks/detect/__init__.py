"""Detection: boxes with classes, SSDLite (section 6.3), scored by COCO's mAP."""
