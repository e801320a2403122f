"""The ExtStorage providers `archipelago` and `rados`, and the command snf-store."""
