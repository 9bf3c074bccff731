"""Pictures: which files hold them, and their pixels."""
