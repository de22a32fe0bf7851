"""A small image model to try captioning with: rendered parts with defects, and an encoder that was trained on them."""
