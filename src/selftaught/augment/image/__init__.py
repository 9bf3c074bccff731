"""Views of images: declared, drawn, and carried out by torch or by the native engine."""
