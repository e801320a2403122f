"""The engine `directory`: volumes are files on a file system that can share extents."""
