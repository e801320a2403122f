"""From the environment that Ganeti gives a hook to one event in the spool. Imports next to nothing: see README.md."""
