"""The shared library of Synnefo Light: what every room may use, standard library only.

`errors`, `run`, `files`, `config`, `log` and `units` are one door each to the machine; `ganeti` reads Ganeti's
environment; `manifest` and `events` are the contracts that cross rooms.
"""

__version__ = "0.1.0"
