"""Params, paths, files, errors: plumbing that imports no other room."""
