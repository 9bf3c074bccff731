"""Texts: lines of files, rows of tables, files of folders; and the tokens they are cut into."""
