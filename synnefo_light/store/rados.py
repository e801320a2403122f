"""The store's backend on RADOS objects: one namespace of one pool.

    KIND/KEY          a block, page or root as it is; a record behind a header:  "SNFR" u16 version, 16 random bytes
      xattr `snf`     when it was created or last made young (ns since 1970, u64), its size (u64)
    index/KIND/XX     omap of shard XX: key -> token (16 hex digits of time, 16 random ones)
    damaged/...       what `set_aside` moved out of the way

An acknowledged write is durable, and one operation on one object is atomic. So a swap of a record is *compare the
header, write whole* in one operation; a comparison begins at the non-zero magic because on an absent object one with
NULs would hold. Creation is *create exclusively, write, mark* in one. To make young, or to retire, is guarded by the
object's version: whichever comes first makes the other start again, and what is absent is never brought back.

RADOS lists a pool only as a whole, so each shard has an index. An entry is written *before* its object, and removed
after it under comparison of its token. A crash leaves an entry without an object (`sweep_leftovers` drops it), never
an object that the collector cannot see. One shard's index is one object: Ceph warns of one with over 200,000 keys,
which is 200 TiB of blocks in a store.

The time of an object is the clock of the client that wrote it; Ceph itself wants clocks that agree, and the grace is
hours. The bindings of Debian 12 pass no time of their own, so RADOS's own times are of no use.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NoReturn

from synnefo_light import ceph
from synnefo_light.errors import UserError
from synnefo_light.store.backend import (
    IMMUTABLE,
    LIMIT,
    Found,
    Instant,
    Kind,
    Loaded,
    Space,
    Stray,
    Trace,
    Version,
    check_key,
)
from synnefo_light.store.errors import Absent, Conflict, Corrupt, FormatRefused, StoreFault
from synnefo_light.store.formats import Format, encode_format
from synnefo_light.store.rados_objects import Objects
from synnefo_light.store.store import FORMAT_KEY, no_trace

MARK = "snf"
_MARK = struct.Struct(">QQ")
_MAGIC = b"SNFR\x00\x01"
_STAMP = 16
_HEADER = len(_MAGIC) + _STAMP
#: Requests on their way at once, in a batch or a listing. A batch holds as many blocks in memory.
WIDTH = 8
ATTEMPTS = 20
#: Index objects of each kind.
SHARDS = {Kind.BLOCK: 256, Kind.PAGE: 64, Kind.ROOT: 64, Kind.NAME: 16, Kind.PIN: 16, Kind.STORE: 1}


class RadosBackend:
    """See `backend.Backend` for what each method promises. One object may be used by several threads."""

    def __init__(self, cluster: ceph.Cluster, *, pool: str, namespace: str, trace: Trace = no_trace) -> None:
        self.fresh_s = 0.0
        self.trace = trace
        self._objects = Objects(cluster, pool=pool, namespace=namespace)
        self.place = self._objects.place

    def now(self) -> Instant:
        return Instant(time.time())

    # --- immutable objects

    def create(self, kind: Kind, key: str, data: bytes) -> None:
        name = _name(kind, key)
        _check_size(kind, data)
        for _ in range(ATTEMPTS):
            try:
                self.touch(kind, key)
                return
            except Absent:
                self._enter_index(kind, key)
                if self._objects.create(name, data, self._mark(len(data))):
                    self.trace("create.2 created")
                    return
        self._unsettled(name)

    def batch(self) -> RadosBatch:
        return RadosBatch(self)

    def read(self, kind: Kind, key: str) -> bytes:
        return self._read(kind, key, LIMIT[kind]) if kind in IMMUTABLE else self.load(kind, key).data

    def stat(self, kind: Kind, key: str) -> Found:
        return self._look(kind, key)[0]

    def touch(self, kind: Kind, key: str) -> None:
        name = _name(kind, key)
        for _ in range(ATTEMPTS):
            found, version = self._look(kind, key)
            if self.now() - found.touched < self.fresh_s:
                return
            if self._objects.set_attribute(name, MARK, self._mark(found.size)[MARK], version=version):
                self.trace("touch.1 marked")
                return
        self._unsettled(name)

    def keys(self, kind: Kind) -> Iterator[str]:
        """What the index has and no object is left out, which costs a look at each."""
        with ThreadPoolExecutor(WIDTH) as threads:
            for shard in range(SHARDS[kind]):
                for page in self._objects.entries(_shard(kind, shard)):
                    for found in threads.map(lambda entry: self._find(kind, entry[0]), page):
                        if found is not None:
                            yield found.key

    def retire(self, kind: Kind, key: str, *, untouched_since: Instant) -> bool:
        name, token = _name(kind, key), self._token(kind, key)
        try:
            found, version = self._look(kind, key)
        except Absent:
            return False
        if found.touched >= untouched_since or not self._objects.remove(name, version=version):
            return False
        self.trace("retire.1 removed")
        self._leave_index(kind, key, token)
        return True

    def set_aside(self, kind: Kind, key: str, *, is_good: Callable[[bytes], bool] = lambda _: False) -> str | None:
        name, token = _name(kind, key), self._token(kind, key)
        for _ in range(ATTEMPTS):
            data, version = self._objects.read_versioned(name, LIMIT[kind] + _HEADER)
            if is_good(data):
                return None
            kept = f"damaged/{name}.{time.time_ns()}"
            self._objects.create(kept, data, {})
            self.trace("set aside.1 copied")
            if self._objects.remove(name, version=version):
                self.trace("set aside.2 removed")
                self._leave_index(kind, key, token)
                return f"{self.place} object {kept}"
            # Stored anew meanwhile, made young, or gone.
            self._objects.remove(kept)
        self._unsettled(name)

    # --- records

    def load(self, kind: Kind, key: str) -> Loaded:
        whole = self._read(kind, key, LIMIT[kind] + _HEADER)
        if len(whole) < _HEADER or not whole.startswith(_MAGIC):
            raise Corrupt(f"{kind.value} {key}", "does not begin as a record of the store does")
        return Loaded(data=whole[_HEADER:], version=Version(whole[len(_MAGIC) : _HEADER].hex()))

    def replace(self, kind: Kind, key: str, data: bytes, *, expected: Version | None) -> Version:
        name = _name(kind, key)
        _check_size(kind, data)
        stamp = secrets.token_bytes(_STAMP)
        whole, mark = _MAGIC + stamp + data, self._mark(len(data))
        if expected is None:
            self._enter_index(kind, key)
            if not self._objects.create(name, whole, mark):
                raise Conflict(f"{name} is there already")
        elif not self._objects.swap(name, whole, mark, beginning=_header(expected)):
            raise Conflict(f"{name} was changed or removed by somebody else")
        self.trace("replace.1 written")
        return Version(stamp.hex())

    def delete(self, kind: Kind, key: str, *, expected: Version) -> None:
        name, token = _name(kind, key), self._token(kind, key)
        if not self._objects.remove(name, beginning=_header(expected)):
            self._look(kind, key)  # raises Absent
            raise Conflict(f"{name} was changed by somebody else")
        self.trace("delete.1 removed")
        self._leave_index(kind, key, token)

    # --- the whole

    def space(self) -> Space:
        """Of the whole cluster; zero and zero in one without a manager daemon, which does the counting."""
        total, free = self._objects.space()
        return Space(total=total, free=free)

    def strays(self) -> Iterator[Stray]:
        for name in self._objects.names():
            why = self._why_stray(name)
            if why:
                yield Stray(place=f"{self.place} object {name}", why=why)

    def sweep_leftovers(self, *, untouched_since: Instant) -> int:
        """Entries of the index without an object, of creators and removers that died before that instant."""
        gone = 0
        for kind in Kind:
            for shard in range(SHARDS[kind]):
                for page in self._objects.entries(_shard(kind, shard)):
                    for key, token in page:
                        if _token_time(token) < untouched_since and self._find(kind, key) is None:
                            gone += self._leave_index(kind, key, token)
        return gone

    # --- parts

    def _mark(self, size: int) -> dict[str, bytes]:
        return {MARK: _MARK.pack(int(self.now() * 1e9), size)}

    def _look(self, kind: Kind, key: str) -> tuple[Found, int]:
        """What the mark says, and the object's version. Raises Absent, and Corrupt when the mark is not ours."""
        raw, version = self._objects.read_attribute(_name(kind, key), MARK)
        if len(raw) != _MARK.size:
            raise Corrupt(f"{kind.value} {key}", "has a mark that is not the store's")
        touched, size = _MARK.unpack(raw)
        return Found(key=key, size=size, touched=Instant(touched / 1e9)), version

    def _find(self, kind: Kind, key: str) -> Found | None:
        try:
            return self._look(kind, key)[0]
        except Absent:
            return None

    def _read(self, kind: Kind, key: str, limit: int) -> bytes:
        data = self._objects.read(_name(kind, key), limit + 1)
        if len(data) > limit:
            raise Corrupt(f"{kind.value} {key}", f"is larger than {LIMIT[kind]} bytes")
        return data

    def _token(self, kind: Kind, key: str) -> str:
        """The token of a key in the index, "" when it is not there."""
        return self._objects.read_entry(_index(kind, key), key)

    def _enter_index(self, kind: Kind, key: str) -> None:
        token = f"{time.time_ns():016x}{secrets.token_hex(8)}"
        self._objects.set_entry(_index(kind, key), key, token)
        self.trace("create.1 in the index")

    def _leave_index(self, kind: Kind, key: str, token: str) -> int:
        """Drop the entry, unless a creator has written it anew: 1 if it went."""
        gone = bool(token) and self._objects.remove_entry(_index(kind, key), key, value=token)
        self.trace("retire.2 out of the index")
        return int(gone)

    def _why_stray(self, name: str) -> str:
        """Why an object is a stray; "" when it is none."""
        folder, _, key = name.partition("/")
        if folder == "damaged":
            return "was damaged and set aside; remove it when nobody needs it any more"
        if folder == "index":
            return ""
        try:
            kind = Kind(folder)
            check_key(kind, key)
        except (ValueError, UserError):
            return "has a name that no operation of the store gives"
        return "" if self._token(kind, key) else "is not in the index, so the collector does not see it"

    def _unsettled(self, name: str) -> NoReturn:
        raise StoreFault(f"{self.place}: {name} was changed by others {ATTEMPTS} times in a row")


class RadosBatch:
    """Creations side by side, begun when there are more than `WIDTH`: no more blocks than twice that are in memory.

    With an exception, what was begun is left for the collector: nothing refers to it.
    """

    def __init__(self, backend: RadosBackend) -> None:
        self._backend = backend
        self._threads = ThreadPoolExecutor(WIDTH)
        self._waiting: list[tuple[Kind, str, bytes]] = []
        self._begun: list[Future[None]] = []

    def create(self, kind: Kind, key: str, data: bytes) -> None:
        check_key(kind, key)
        _check_size(kind, data)
        self._waiting.append((kind, key, data))
        if len(self._waiting) > WIDTH:
            begun = self._begun
            self._begin()
            _raise_first(begun)

    def flush(self) -> None:
        before = self._begun
        self._begin()
        _raise_first([*before, *self._begun])
        self._begun = []

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._begun = [self._threads.submit(self._backend.create, *one) for one in waiting]

    def __enter__(self) -> RadosBatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._threads.shutdown(cancel_futures=True)


def make_rados(
    cluster: ceph.Cluster, form: Format, *, pool: str, namespace: str, trace: Trace = no_trace
) -> RadosBackend:
    """Make a store in a namespace; the record `FORMAT` is the commit point.

    Raises FormatRefused when there is a store already, or anything that is not a store's.
    """
    backend = RadosBackend(cluster, pool=pool, namespace=namespace, trace=trace)
    for stray in backend.strays():
        raise FormatRefused(f"{stray.place} is not a store's; a store is made in an empty namespace")
    try:
        backend.replace(Kind.STORE, FORMAT_KEY, encode_format(form), expected=None)
    except Conflict:
        raise FormatRefused(f"{backend.place} is a store already") from None
    return backend


def _raise_first(futures: list[Future[None]]) -> None:
    """Wait for all of them; then raise the first error, if any."""
    errors = [error for one in futures if (error := one.exception()) is not None]
    if errors:
        raise errors[0]


def _check_size(kind: Kind, data: bytes) -> None:
    if len(data) > LIMIT[kind]:
        raise ValueError(f"{len(data)} bytes are too many for {kind.value}, which have at most {LIMIT[kind]}")


def _name(kind: Kind, key: str) -> str:
    check_key(kind, key)
    return f"{kind.value}/{key}"


def _header(version: Version) -> bytes:
    return _MAGIC + bytes.fromhex(version)


def _index(kind: Kind, key: str) -> str:
    """The object with the key's entry: by the first byte of the hash that names it, or of the hash of its name."""
    first = int(key[:2], 16) if kind in IMMUTABLE else hashlib.sha256(key.encode()).digest()[0]
    return _shard(kind, first % SHARDS[kind])


def _shard(kind: Kind, shard: int) -> str:
    return f"index/{kind.value}/{shard:02x}"


def _token_time(token: str) -> float:
    """Seconds since 1970; of what is no token: long ago."""
    try:
        return int(token[:16], 16) / 1e9
    except ValueError:
        return 0.0
