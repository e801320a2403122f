"""Who may write a volume: decided here, without acting.

    create, failover, start    open(exclusive)                         holders {A}
    live migration A to B      A open(shared)     {A} shared           B open(shared)  {A, B} shared
                               A close            {B} shared           B open(exclusive)  {B}
    stop                       detach             {}                   Ganeti calls no close then
    failover, A dead           nothing ran on A   {A}                  B open(exclusive): fence A, then {B}

A node that asks for all while others have it is right: Ganeti closes the others first where it can reach them. Whoever
is left is dead or cut off, so the volume is taken to a new inode (the fence), and what the other still writes goes to
the one that nobody reads. If a process here has the volume open already (the source of a migration that failed), moving
it would cut off the guest that is to go on. Then the others just lose it, and a fence is owed: they are written down
until an exclusive open at which no process here has the volume, and that one fences, or until they close it themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from snf_extstorage.volume import SHARED_LIMIT, InUse


@dataclass(frozen=True, slots=True)
class Writers:
    nodes: tuple[str, ...] = ()
    exclusive: bool = False
    owed: tuple[str, ...] = ()  # have lost it without a close and without a fence


@dataclass(frozen=True, slots=True)
class Opening:
    writers: Writers
    fence: bool


def plan_open(now: Writers, node: str, *, exclusive: bool, used_here: bool, volume: str) -> Opening:
    """`used_here`: a process of this node has the volume open; asked for when `is_contested`. Raises InUse."""
    others = tuple(n for n in now.nodes if n != node)
    if used_here and node in now.owed:
        raise InUse(
            f"{node} is to open volume {volume}, which was taken from it, but a process here still has it open; "
            f"stop that process first"
        )
    owed = tuple(n for n in now.owed if n != node)
    if exclusive:
        if others and used_here and node not in now.nodes:
            raise InUse(
                f"{node} is to take volume {volume} from {others[0]}, but a process here has it open already; "
                f"stop that process first"
            )
        lost = tuple(sorted({*others, *owed}))
        return Opening(Writers((node,), True, lost if used_here else ()), bool(lost) and not used_here)
    if others and now.exclusive:
        raise InUse(f"{node} asks to share volume {volume}, but {others[0]} has it for itself; close it there first")
    if len(others) >= SHARED_LIMIT:
        raise InUse(f"{node} asks to share volume {volume}, but {' and '.join(others)} do so already")
    return Opening(Writers(tuple(sorted({*others, node})), False, owed), False)


def is_contested(now: Writers, node: str) -> bool:
    """Whether it matters to `plan_open` who uses the volume here: others have it, or have lost it."""
    return bool(now.owed) or any(n != node for n in now.nodes)


def plan_close(now: Writers, node: str) -> Writers:
    rest = tuple(n for n in now.nodes if n != node)
    return Writers(rest, now.exclusive and bool(rest), tuple(n for n in now.owed if n != node))
