"""Volumes on RADOS: the engine `rados` (RBD images, clones of the store's images) and the provider of that name."""
