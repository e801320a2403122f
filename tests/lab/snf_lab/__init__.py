"""A real Ganeti cluster in namespaces of this machine, made and unmade by one command.

    ./lab ── cli ── commands/NAME ── lab.Lab ──┬─ host_packages   what the host needs
                                               ├─ roots           a cached Debian per release
                                               ├─ packages        our .debs, with all that they depend on
                                               ├─ fabric          network namespaces, bridges, cables
                                               ├─ node, nspawn    one Debian that boots its own systemd
                                               ├─ cluster         Ganeti on the nodes
                                               └─ sweep           what is ours on the host, and its removal

Everything lies below one state directory: `cache/` is kept, `run/` is one running lab. Mounts, namespaces and cgroups
are found again by where they lie, not by a list that a dead process might have left unwritten.
"""
