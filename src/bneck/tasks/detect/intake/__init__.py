"""Annotated images in the formats that tools write, found and read: COCO, VOC, YOLO."""
