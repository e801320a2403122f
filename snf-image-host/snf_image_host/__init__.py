"""The OS definition's host half: it copies an untrusted image unread and has the rest done in a throw-away VM."""
