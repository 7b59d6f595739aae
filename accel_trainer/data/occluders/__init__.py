"""What stands in front of images: forms, masks, and how masks are made."""
