"""Views of texts: windows of tokens."""
