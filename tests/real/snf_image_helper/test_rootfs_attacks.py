"""Trees made to lead a writer out of the image (threat A7). Each trap has its control: a plain open() is caught by it.

"Outside" is a folder beside the image's root with one file in it; after each attempt it must be as it was.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from snf_image_helper.image import FilesystemKind, ImageError, Kind, RootPath
from snf_image_helper.mounting import MountStack
from snf_image_helper.rootfs import READ_LIMIT, RootFs

TREE = Path(__file__).resolve().parents[3]
SECRET = b"outside\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    root: Path  # the image's root
    outside: Path  # a file that is not in it

    def untouched(self) -> bool:
        return self.outside.read_bytes() == SECRET and os.listdir(self.outside.parent) == [self.outside.name]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root, outside = tmp_path / "root", tmp_path / "outside" / "file"
    for folder in ("etc", "dev", "proc", "run", "tmp", "usr"):
        (root / folder).mkdir(parents=True)
    outside.parent.mkdir()
    outside.write_bytes(SECRET)
    return Place(root=root, outside=outside)


@pytest.fixture
def files(place: Place) -> Iterator[RootFs]:
    with RootFs(str(place.root)) as rootfs:
        yield rootfs


Trap = Callable[[Place], None]
PATH = RootPath("etc/target")


def link(target: str) -> Trap:
    def make(place: Place) -> None:
        (place.root / "etc/target").symlink_to(target.format(outside=place.outside, folder=place.outside.parent))

    return make


def chain(place: Place) -> None:
    (place.root / "etc/target").symlink_to("one")
    (place.root / "etc/one").symlink_to("../usr/two")
    (place.root / "usr/two").symlink_to(f"../../outside/{place.outside.name}")


def linked_parent(place: Place) -> None:
    (place.root / "etc").rmdir()
    (place.root / "etc").symlink_to(place.outside.parent)
    place.outside.rename(place.outside.with_name("target"))


def dotdot_parent(place: Place) -> None:
    (place.root / "etc").rmdir()
    (place.root / "etc").symlink_to("../outside")
    place.outside.rename(place.outside.with_name("target"))


def magic(place: Place) -> None:
    """A link of /proc: an open descriptor of ours that leads to the file outside."""
    fd = os.open(place.outside, os.O_RDWR)
    (place.root / "etc/target").symlink_to(f"/proc/self/fd/{fd}")


ESCAPES = {
    "absolute": link("{outside}"),
    "dotdot": link("../../outside/file"),
    "many-dotdots": link("../" * 40 + "{outside}"),
    "root-of-proc": link("/proc/self/root{outside}"),
    "cwd-of-proc": link("/proc/self/cwd/../../../../../../../../{outside}"),
    "chain": chain,
    "linked-parent": linked_parent,
    "dotdot-parent": dotdot_parent,
    "open-descriptor": magic,
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_plain_open_is_led_outside(place: Place, name: str) -> None:
    """The control: each of these traps works on a program that just opens the path."""
    ESCAPES[name](place)
    assert (place.root / "etc/target").read_bytes() == SECRET


@pytest.mark.parametrize("name", ESCAPES)
def test_reading_does_not_leave_the_image(place: Place, files: RootFs, name: str) -> None:
    ESCAPES[name](place)
    try:
        assert files.read(PATH) is None
    except ImageError as e:
        assert "/etc/target of the image" in str(e)


@pytest.mark.parametrize("name", ESCAPES)
def test_writing_does_not_leave_the_image(place: Place, files: RootFs, name: str) -> None:
    ESCAPES[name](place)
    before = sorted(os.listdir(place.outside.parent))
    try:
        files.write(PATH, b"written")
        assert files.read(PATH) == b"written"
    except ImageError as e:
        assert "of the image" in str(e)
    assert sorted(os.listdir(place.outside.parent)) == before
    assert all(f.read_bytes() == SECRET for f in place.outside.parent.iterdir())


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("act", ["make_folder", "symlink", "remove"])
def test_nothing_else_leaves_the_image_either(place: Place, files: RootFs, name: str, act: str) -> None:
    ESCAPES[name](place)
    inside = PATH / "inner" if name.endswith("parent") else PATH
    before = sorted(os.listdir(place.outside.parent))
    try:
        if act == "make_folder":
            files.make_folder(inside, mode=0o755, owner=(0, 0))
        elif act == "symlink":
            files.symlink(inside, "elsewhere")
        else:
            files.remove(inside)
    except ImageError as e:
        assert "of the image" in str(e)
    assert sorted(os.listdir(place.outside.parent)) == before
    assert all(f.read_bytes() == SECRET for f in place.outside.parent.iterdir())


def test_a_link_inside_the_image_is_followed(place: Place, files: RootFs) -> None:
    (place.root / "etc/target").symlink_to("/etc/real")
    (place.root / "etc/real").write_bytes(b"old")
    assert files.read(PATH) == b"old"
    files.write(PATH, b"new")
    assert (place.root / "etc/real").read_bytes() == b"new"
    assert (place.root / "etc/target").is_symlink()


def test_dotdots_stop_at_the_images_root(place: Place, files: RootFs) -> None:
    (place.root / "etc/target").symlink_to("../../../../../usr/real")
    (place.root / "usr/real").write_bytes(b"old")
    files.write(PATH, b"new")
    assert (place.root / "usr/real").read_bytes() == b"new"


def test_a_link_to_nothing_is_replaced_by_the_file(place: Place, files: RootFs) -> None:
    (place.root / "etc/target").symlink_to("/usr/nothing")
    assert files.read(PATH) is None and files.entry(PATH) is None
    files.write(PATH, b"new")
    assert not (place.root / "etc/target").is_symlink()
    assert (place.root / "etc/target").read_bytes() == b"new"


@pytest.mark.parametrize("folder", ["run", "tmp", "dev", "proc"])
def test_a_link_to_where_nothing_outlives_a_boot_is_refused(place: Place, files: RootFs, folder: str) -> None:
    (place.root / "etc/target").symlink_to(f"/{folder}")
    with pytest.raises(ImageError, match=f"leads to /{folder}"):
        files.write(PATH / "file", b"lost")
    with pytest.raises(ImageError, match=f"leads to /{folder}"):
        files.make_folder(PATH / "folder", mode=0o755, owner=(0, 0))
    assert os.listdir(place.root / folder) == []
    files.write(RootPath("tmp/asked-for"), b"kept")  # by its own name it is what was asked for


@pytest.mark.parametrize("path", ["../outside/file", "a/../../b", "etc/..", "\0"])
def test_a_path_with_dotdot_or_nul_is_not_a_path(path: str) -> None:
    with pytest.raises(ImageError, match="cannot name"):
        RootPath(path)


# --- what is not a regular file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def char_device(path: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))


def block_device(path: Path) -> None:
    os.mknod(path, 0o600 | 0o060000, os.makedev(7, 200))


def unix_socket(path: Path) -> None:
    # The path is too long for bind(2) when given whole.
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def folder(path: Path) -> None:
    path.mkdir()


KINDS = {
    "a fifo": fifo,
    "a character device": char_device,
    "a block device": block_device,
    "a socket": unix_socket,
    "a folder": folder,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through_link", [False, True])
def test_what_is_not_a_file_is_refused_at_once_by_its_name(
    place: Place, files: RootFs, kind: str, through_link: bool
) -> None:
    KINDS[kind](place.root / ("usr/odd" if through_link else "etc/target"))
    if through_link:
        (place.root / "etc/target").symlink_to("/usr/odd")
    acts: list[Callable[[], object]] = [lambda: files.read(PATH), lambda: files.write(PATH, b"x")]
    for act in acts:
        with pytest.raises(ImageError, match=f"/etc/target of the image is {kind}"):
            act()
    entry = files.entry(PATH)
    assert entry is not None and entry.kind is (Kind.FOLDER if kind == "a folder" else Kind.OTHER)


def test_a_plain_open_of_a_fifo_hangs(place: Place) -> None:
    """The control for the one above."""
    fifo(place.root / "etc/target")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", f"open({str(place.root / 'etc/target')!r})"], timeout=1, check=False)


@pytest.mark.parametrize("length", [1, 2, 41])
def test_a_circle_of_links_ends(place: Place, files: RootFs, length: int) -> None:
    for n in range(length):
        (place.root / f"etc/l{n}").symlink_to(f"l{(n + 1) % length}")
    (place.root / "etc/target").symlink_to("l0")
    acts: list[Callable[[], object]] = [lambda: files.read(PATH), lambda: files.write(PATH, b"x")]
    acts.append(lambda: files.entry(PATH))
    for act in acts:
        with pytest.raises(ImageError, match="chain of links"):
            act()


@pytest.mark.parametrize("target", ["/", "..", ".", "/usr/..", "../..", "/usr/"])
def test_a_link_to_a_folder_by_an_odd_name_is_a_folder(place: Place, files: RootFs, target: str) -> None:
    (place.root / "etc/target").symlink_to(target)
    with pytest.raises(ImageError, match="is a folder"):
        files.read(PATH)
    with pytest.raises(ImageError, match="is a folder"):
        files.write(PATH, b"x")
    assert place.untouched()


def test_a_huge_file_is_not_read(place: Place, files: RootFs) -> None:
    with open(place.root / "etc/target", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError, match=f"over {READ_LIMIT} bytes"):
        files.read(PATH)


def test_a_huge_folder_is_not_listed(place: Place, files: RootFs) -> None:
    for n in range(10_001):
        (place.root / f"usr/{n}").touch()
    with pytest.raises(ImageError, match="over 10000 entries"):
        files.names(RootPath("usr"))


# --- what stays


def test_a_replaced_file_keeps_owner_mode_and_attributes(place: Place, files: RootFs) -> None:
    path = place.root / "etc/target"
    path.write_bytes(b"old")
    os.chown(path, 123, 456)
    path.chmod(0o4640)
    os.setxattr(path, "user.label", b"kept")
    files.write(PATH, b"new")
    shown = subprocess.run(["stat", "-c", "%u %g %a", path], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["123", "456", "4640"]
    assert os.getxattr(path, "user.label") == b"kept"
    assert os.listdir(path.parent) == ["target"], "no temporary name stays"


def test_a_new_file_is_roots_and_0644_whatever_the_umask(place: Place, files: RootFs) -> None:
    old = os.umask(0o077)
    try:
        files.write(PATH, b"new")
        files.make_folder(RootPath("etc/folder"), mode=0o755, owner=(5, 6))
    finally:
        os.umask(old)
    shown = subprocess.run(
        ["stat", "-c", "%u %g %a", place.root / "etc/target", place.root / "etc/folder"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.splitlines() == ["0 0 644", "5 6 755"]


def test_a_hard_link_to_outside_is_not_written_through(place: Place, files: RootFs) -> None:
    os.link(place.outside, place.root / "etc/target")
    files.write(PATH, b"new")
    assert place.untouched()


def test_a_second_name_in_a_missing_folder_is_an_error_and_not_a_crash(files: RootFs) -> None:
    assert files.read(RootPath("no/such/folder")) is None
    assert files.names(RootPath("no/such/folder")) == ()
    files.remove(RootPath("no/such/folder"))
    with pytest.raises(ImageError, match="folder that does not exist"):
        files.write(RootPath("no/such/folder"), b"x")


def test_names_that_are_not_utf8_work(place: Place, files: RootFs) -> None:
    name = os.fsdecode(b"etc/\xff\xfe")
    files.write(RootPath(name), b"x")
    assert os.listdir(os.fsencode(place.root / "etc")) == [b"\xff\xfe"]
    assert files.read(RootPath(name)) == b"x"


MOUNTS = """
    import subprocess, sys
    sys.path[:0] = {path!r}
    from snf_image_helper.image import ImageError, RootPath
    from snf_image_helper.rootfs import RootFs

    subprocess.run(["mount", "--bind", {outside!r}, {root!r} + "/etc"], check=True)
    assert open({root!r} + "/etc/file", "rb").read() == b"outside\\n"  # the control
    with RootFs({root!r}) as files:
        for act in (lambda: files.read(RootPath("etc/file")), lambda: files.write(RootPath("etc/file"), b"x")):
            try:
                act()
            except ImageError as e:
                print(e)
            else:
                raise SystemExit("it followed a bind mount")
"""


def test_a_mount_below_the_root_is_not_entered(place: Place) -> None:
    """In a mount namespace of its own, so that this host sees no mount."""
    program = textwrap.dedent(MOUNTS).format(
        path=[str(TREE), str(TREE / "snf-image-helper")], outside=str(place.outside.parent), root=str(place.root)
    )
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "/usr/bin/python3", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("leads out of the file system") == 2
    assert place.untouched()


CROSSING = """
    import os, subprocess, sys
    sys.path[:0] = {path!r}
    from snf_image_helper.image import ImageError, RootPath
    from snf_image_helper.rootfs import RootFs

    root = {root!r}
    for name in ("boot", "other", "mnt"):
        os.mkdir(f"{{root}}/{{name}}")
    os.symlink("/boot", f"{{root}}/link")
    os.symlink("/../../../../boot/../other", f"{{root}}/around")
    for name in ("boot", "other"):
        subprocess.run(["mount", "-t", "tmpfs", name, f"{{root}}/{{name}}"], check=True)
        os.mkdir(f"{{root}}/{{name}}/sub")
    with RootFs(root) as files:
        files.cross_into(f"{{root}}/boot")
        files.write(RootPath("boot/sub/file"), b"into the mount")
        assert open(f"{{root}}/boot/sub/file", "rb").read() == b"into the mount"
        assert files.read(RootPath("link/sub/file")) == b"into the mount"
        assert files.names(RootPath("link")) == ("sub",)
        files.write(RootPath("mnt/file"), b"back in the root")
        for path in ("other/sub/file", "around/sub/file", "boot/../other/sub/file"):
            try:
                files.write(RootPath(path.replace("boot/../", "")), b"x")
            except ImageError as e:
                print(e)
            else:
                raise SystemExit("it went into a mount that nobody had named")
"""


def test_of_the_mounts_below_the_root_only_those_that_were_named_are_entered(place: Place) -> None:
    program = textwrap.dedent(CROSSING).format(path=[str(TREE), str(TREE / "snf-image-helper")], root=str(place.root))
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "/usr/bin/python3", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("leads out of the file system") == 3
    assert place.untouched()


def test_a_mount_point_deeper_than_a_path_can_say_is_refused_with_a_sentence(place: Place) -> None:
    (place.root / "home").symlink_to("/".join(["d" * 200] * 20))
    folder = os.open(place.root, os.O_PATH)
    for _ in range(20):
        os.mkdir("d" * 200, dir_fd=folder)
        folder, above = os.open("d" * 200, os.O_PATH, dir_fd=folder), folder
        os.close(above)
    os.symlink("d" * 200, "deeper", dir_fd=folder)
    os.mkdir("d" * 200, dir_fd=folder)
    os.close(folder)
    (place.root / "home").rename(place.root / "there")
    (place.root / "home").symlink_to("there/deeper")
    mounts = MountStack()
    mounts.root = RootFs(str(place.root))
    with mounts.root, pytest.raises(ImageError, match="/home of the image cannot be mounted over: File name too long"):
        mounts.mount_below("/dev/null", FilesystemKind.EXT4, RootPath("/home"))
