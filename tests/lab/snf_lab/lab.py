"""The lab as other code uses it: the demo, the cluster tests, the benchmarks.

    lab = Lab.open()
    lab.ensure_up(nodes=2, release="bookworm")
    done = lab.node(1).run(["gnt-node", "list", "--no-headers"], timeout_s=30)
    lab.node(1).write("/root/key.pub", b"ssh-ed25519 ...")
    lab.crash(2); lab.boot(2)
    lab.down()

A method that changes the lab holds the lab's lock while it runs; reading and running inside nodes needs none.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from snf_lab import apt, ceph, cluster, fabric, host_packages, packages, roots, sweep, volumes
from snf_lab.node import Node, standard_binds
from snf_lab.progress import Progress
from snf_lab.state import MAX_NODES, RELEASES, TREE, LabConfig, State
from snf_lab.ties import on_each
from synnefo_light.errors import EnvironmentFault, Error, UserError
from synnefo_light.log import logger
from synnefo_light.run import Runner, run

__all__ = ["Lab", "Node", "NodeStatus"]

CEPH_SIZE = 64 << 30  # a sparse file


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    number: int
    name: str
    state: str  # "on", "off"
    release: str
    ganeti: str  # version of the installed package, "" when off
    instances: tuple[cluster.Instance, ...]


class Lab:
    """One lab and its state directory. Making the object does nothing."""

    def __init__(self, state: State, progress: Progress, runner: Runner = run) -> None:
        self.state = state
        self.progress = progress
        self._run = runner
        self._holding = False

    @classmethod
    def open(cls, progress: Progress | None = None) -> Lab:
        """The lab of this machine: /var/lib/synnefo-light-lab, or what SNF_LAB_STATE names."""
        state = State.from_environment()
        return cls(state, progress or Progress(durations=state.cache / "durations.json"))

    # --- looking

    @property
    def config(self) -> LabConfig | None:
        """What the lab was asked to be; None when there is no lab."""
        return self.state.read_config()

    @property
    def nodes(self) -> tuple[Node, ...]:
        config = self.config
        return tuple(self._node(n) for n in range(1, config.nodes + 1)) if config else ()

    @property
    def master(self) -> Node:
        """The node on which to give Ganeti commands: the first."""
        return self.node(1)

    def node(self, number: int) -> Node:
        """Raises UserError when the lab has no such node."""
        config = self.config
        if config is None:
            raise UserError("there is no lab; make one with ./lab up")
        if not 1 <= number <= config.nodes:
            raise UserError(f"node {number} is not in the lab, which has {config.nodes}; ./lab up --nodes N adds nodes")
        return self._node(number)

    def status(self) -> list[NodeStatus]:
        """What each node is doing; a node that is off, and a Ganeti that does not answer, are shown as such."""
        config = self.config
        if config is None:
            return []
        nodes = self.nodes
        on = [node for node in nodes if node.find_pid() is not None]
        instances: list[cluster.Instance] = []
        if on:
            with contextlib.suppress(Error):
                instances = cluster.instances(on[0])
        return [
            NodeStatus(
                number=node.number,
                name=node.name,
                state="on" if node in on else "off",
                release=config.release,
                ganeti=self._ganeti_version(node) if node in on else "",
                instances=tuple(i for i in instances if i.node == node.name),
            )
            for node in nodes
        ]

    # --- changing

    def ensure_up(
        self, *, nodes: int = 1, release: str = "bookworm", dev: bool = False, storage: str = "directory"
    ) -> None:
        """A running lab of at least `nodes` nodes, with our packages as the tree has them and a verified cluster.

        What is there already is kept and finished. Raises UserError when a lab of another release is in the way.
        """
        with self.locked():
            self.install_on_host()
            self.state.make_folders()
            settings = apt.read_settings(self._run)
            config = self._settle(LabConfig(release=release, nodes=nodes, dev=dev, storage=storage))
            config = self._ensure_root(config, settings)
            root = self.state.cache / "roots" / config.root
            ours = packages.ensure_repo(self.state, root, settings, self.progress, self._run)
            self._erase_half_made()
            self._boot(self.nodes, config)
            self._install(self.nodes, config, ours)
            self._ensure_store(config)
            self._ensure_ceph(self.nodes, config)
            self._ensure_cluster(config, ours)

    def boot(self, number: int) -> None:
        """Switch a node on again; one that is on stays as it is."""
        node = self.node(number)
        with self.locked(), self.progress.step(f"boot node {number}", log=node.console_log):
            config = self._required_config()
            fabric.Fabric(self.state.netns, self._run).make_switch()
            self._make_volumes(config)
            node.boot(config, standard_binds(self.state, config))
            packages.bind_tree(node, dev=config.dev)
            self._ensure_ceph([node], config)
            if cluster.has_ganeti_state(node):
                cluster.start_daemons([n for n in self.nodes if n.find_pid() is not None], master=self.master)

    def crash(self, number: int) -> None:
        """Cut a node's power; its disk stays. A node that is off stays off."""
        node = self.node(number)
        with self.locked(), self.progress.step(f"cut the power of node {number}"):
            node.cut()

    def down(self, *, purge_cache: bool = False) -> None:
        """Remove the lab from this machine, all but the cache. Works on whatever is there; repeating it is harmless."""
        if not self.state.path.exists():
            return
        with self.locked():
            with self.progress.step("take the lab down"):
                _stop_logging()
                sweep.sweep(self.state, self._run)
            if purge_cache:
                with self.progress.step("remove the cache"):
                    sweep.purge_cache(self.state)

    def install_on_host(self) -> None:
        """Install on the host what the lab needs and what is missing. A second call does nothing."""
        self.state.log.mkdir(parents=True, exist_ok=True)
        _start_logging(self.state.log / "commands.log")
        wanted = host_packages.wanted(TREE)
        log = self.state.log / "host-packages.log"
        host_packages.ensure_installed(wanted, log=log, progress=self.progress, runner=self._run)

    def build_packages(self) -> list[Path]:
        """Our .debs for the tree as it is, built if need be."""
        with self.locked():
            self.install_on_host()
            self.state.make_folders()
            built = packages.ensure_built(self.state, apt.read_settings(self._run), self.progress, self._run)
        return sorted(built.glob("*.deb"))

    def helper_image(self) -> Path:
        """The folder with the helper VM's image of the tree as it is now, built if the cache has none."""
        files = packages.read_tree(self._run)
        found = packages.ensure_helper(self.state, files, apt.read_settings(self._run), self.progress, self._run)
        if found is None:
            raise EnvironmentFault("the tree has no recipe of the helper VM's image")
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lab alone. May be nested."""
        if self._holding:
            yield
            return
        with self.state.locked():
            self._holding = True
            try:
                yield
            finally:
                self._holding = False

    # --- parts of ensure_up

    def _settle(self, wanted: LabConfig) -> LabConfig:
        """What the lab will be, given what it is; written before anything is made of it."""
        there = self.config
        if there is not None:
            if there.release != wanted.release:
                raise UserError(
                    f"the lab here runs {there.release}, not {wanted.release}; run ./lab down first, "
                    "or set SNF_LAB_STATE to another directory for a second lab"
                )
            if wanted.dev and not there.dev:
                raise UserError("the lab here was made without --dev; run ./lab down first")
            storage = wanted.storage if there.storage == "directory" else there.storage
            wanted = replace(there, nodes=max(there.nodes, wanted.nodes), storage=storage)
        self.state.write_config(wanted)
        return wanted

    def _ensure_root(self, config: LabConfig, settings: apt.AptSettings) -> LabConfig:
        """A lab stays on the root that it was made on, also when the recipe has changed since."""
        if config.root and (self.state.cache / "roots" / config.root).is_dir():
            return config
        root = roots.ensure_root(self.state, RELEASES[config.release], settings, self.progress, self._run)
        config = replace(config, root=root.name)
        self.state.write_config(config)
        return config

    def _boot(self, nodes: Sequence[Node], config: LabConfig) -> None:
        fabric.Fabric(self.state.netns, self._run).make_switch()
        self._make_volumes(config)
        binds = standard_binds(self.state, config)
        off = [node for node in nodes if node.find_pid() is None]
        if off:
            with self.progress.step(f"boot {_counted(off)}"):
                on_each(off, lambda node: node.boot(config, binds))

    def _install(self, nodes: Sequence[Node], config: LabConfig, ours: packages.OurPackages | None) -> None:
        if ours is not None:
            with self.progress.step(f"install our packages on {_counted(nodes)}"):
                on_each(nodes, lambda node: packages.install(node, ours, dev=config.dev))

    def _make_volumes(self, config: LabConfig) -> None:
        if config.storage == "directory":
            said = volumes.make_folder(self.state, self._run)
            if said:
                self.progress.say(f"   {said}")

    def _ensure_store(self, config: LabConfig) -> None:
        if config.storage == "directory" and self.master.exists("/usr/sbin/snf-store"):
            self.master.run(["snf-store", "init"], timeout_s=60)

    @property
    def ceph(self) -> ceph.Ceph:
        """The lab's Ceph: its daemons live beside the switch, so that cutting a node's power leaves it alone."""
        return ceph.Ceph(self.state.ceph, enter=fabric.inside(self.state.netns / "switch"), runner=self._run)

    def _ensure_ceph(self, nodes: Sequence[Node], config: LabConfig) -> None:
        if config.storage != "rados":
            return
        log = self.state.log / "host-packages.log"
        host_packages.ensure_installed(ceph.DAEMONS, log=log, progress=self.progress, runner=self._run)
        cluster = self.ceph
        if len(cluster.pids()) < len(ceph.DAEMON_NAMES):
            with self.progress.step("start a Ceph"):
                shape = ceph.Shape(folder=cluster.folder, fsid=ceph.new_fsid(), address=fabric.SWITCH_IP)
                cluster.start(replace(shape, objectstore="bluestore", size=CEPH_SIZE))
        # Ganeti 3.1 takes addresses of RBD apart, and up to 3.1.0~rc2 knows none with a user in it.
        user = ceph.CLIENT if config.release == "bookworm" else "admin"
        with self.progress.step(f"make the Ceph known to {_counted(nodes)}"):
            on_each(nodes, lambda node: ceph.introduce(node, cluster, user=user))

    def _ensure_cluster(self, config: LabConfig, ours: packages.OurPackages | None) -> None:
        master, nodes, step = self.master, self.nodes, self.progress.step
        joined = [node for node in nodes if cluster.has_ganeti_state(node)]
        if self._cluster_made.exists():
            with step("start Ganeti's daemons"):
                cluster.start_daemons(joined, master=master)
        else:
            with step("try whether a kernel boots under KVM"):
                accel = cluster.read_accel(master)
            self.progress.say(f"   instances run under {accel.name.upper()}: {accel.reason}")
            with step("make the Ganeti cluster"):
                self._cluster_begun.touch()
                cluster.make(master, accel, max_nodes=MAX_NODES)
                self._cluster_made.touch()
        known = cluster.members(master)
        strangers = [node for node in nodes if node.name not in known]
        if half := [node for node in strangers if node in joined]:
            with step(f"make {_counted(half)} anew: joining the cluster was cut short"):
                on_each(half, lambda node: node.erase())
            self._boot(half, config)
            self._install(half, config, ours)
        for node in strangers:
            with step(f"add node {node.number} to the cluster"):
                cluster.add_node(master, node)
        self._trust_host_keys(nodes)
        with step("verify the cluster"):
            cluster.verify(master)

    @property
    def _cluster_made(self) -> Path:
        """Written when the cluster has been made to its end."""
        return self.state.run / "cluster-made"

    @property
    def _cluster_begun(self) -> Path:
        """Written when its making begins."""
        return self.state.run / "cluster-begun"

    def _erase_half_made(self) -> None:
        """Ganeti does not take up a `gnt-cluster init` that died; a node made anew costs seconds."""
        if self._cluster_made.exists() or not self._cluster_begun.exists():
            return
        with self.progress.step(f"make {_counted(self.nodes)} anew: the cluster was not finished"):
            on_each(self.nodes, lambda node: node.erase())
            self._cluster_begun.unlink()

    def _trust_host_keys(self, nodes: Sequence[Node]) -> None:
        """So that plain `ssh node2` works from every node: Ganeti has a known_hosts of its own."""
        lines = []
        for node in nodes:
            for key in node.run(["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]).text.splitlines():
                lines.append(f"{node.name},node{node.number},{node.management_ip} {' '.join(key.split()[:2])}\n")
        for node in nodes:
            node.write("/etc/ssh/ssh_known_hosts", "".join(lines).encode())

    def _node(self, number: int) -> Node:
        return Node(self.state, number, self._run)

    def _required_config(self) -> LabConfig:
        config = self.config
        if config is None or not config.root:
            raise EnvironmentFault("the lab was not made to its end; run ./lab up")
        return config

    @staticmethod
    def _ganeti_version(node: Node) -> str:
        return node.run(["dpkg-query", "--show", "--showformat=${Version}", "ganeti"]).text


def _counted(nodes: Sequence[Node]) -> str:
    return f"node {nodes[0].number}" if len(nodes) == 1 else f"{len(nodes)} nodes"


def _start_logging(file: Path) -> None:
    """Every command that the lab runs is in one file, to be repeated by hand."""
    if any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        return
    handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


def _stop_logging() -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
