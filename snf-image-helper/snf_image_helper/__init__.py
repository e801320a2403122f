"""What runs in the throw-away VM: one untrusted disk, one manifest, no network."""
