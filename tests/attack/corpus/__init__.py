"""Hostile images, each made by a function that is given a seed or nothing: no bytes of them are kept anywhere."""
