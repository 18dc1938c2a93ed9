"""Images in, masks out, in exactly the geometry that came in."""
