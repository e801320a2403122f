"""`snf-image doctor` on a node in a folder: one thing wrong at a time."""

from __future__ import annotations

import hashlib
import json

from tests.real.snf_image_host.node import Fake


def examined(node: Fake) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """The exit code, and by check what was found: state, and text with its remedy."""
    done = node.command("doctor", "--json")
    findings = json.loads(done.stdout)
    by_check: dict[str, list[tuple[str, str]]] = {}
    for found in findings:
        assert set(found) == {"check", "state", "text", "remedy"}
        assert bool(found["remedy"]) or found["state"] == "ok", "what is wrong has a remedy"
        by_check.setdefault(found["check"], []).append((found["state"], f"{found['text']}; {found['remedy']}"))
    return done.returncode, by_check


def states(found: list[tuple[str, str]]) -> set[str]:
    return {state for state, _ in found}


def prepare(node: Fake, **settings: object) -> None:
    """All as it should be, as far as this machine lets it."""
    for name in ("log", "staging"):
        (node.folder / name).mkdir(mode=0o750, exist_ok=True)
    node.configure(staging_dir=str(node.folder / "staging"), qemu="true", **settings)
    described = json.loads((node.folder / "helper" / "helper.json").read_text())
    for name, entry in described["files"].items():
        entry["sha256"] = hashlib.sha256((node.folder / "helper" / name).read_bytes()).hexdigest()
    (node.folder / "helper" / "helper.json").write_text(json.dumps(described))


def test_a_node_as_it_should_be_has_no_failure(node: Fake) -> None:
    prepare(node)
    code, found = examined(node)
    assert code == 0
    for check in ("user", "helper", "qemu", "accelerator", "variants"):
        assert states(found[check]) == {"ok"}, found[check]
    shown = node.command("doctor")
    assert shown.returncode == 0 and shown.stdout.startswith("ok    user")


def test_a_byte_that_changed_in_the_helper_is_found(node: Fake) -> None:
    prepare(node)
    path = node.folder / "helper" / "root.squashfs"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    code, found = examined(node)
    assert code == 3 and states(found["helper"]) == {"fail"} and "SHA-256" in found["helper"][0][1]


def test_a_missing_helper_is_one_finding_and_the_rest_is_examined(node: Fake) -> None:
    prepare(node)
    (node.folder / "helper" / "helper.json").unlink()
    code, found = examined(node)
    assert code == 3 and states(found["helper"]) == {"fail"} and "install the package" in found["helper"][0][1]
    assert states(found["qemu"]) == {"ok"}


def test_folders_that_others_may_write_to_and_keys_that_are_missing_fail(node: Fake) -> None:
    prepare(node, signature_required=True)
    node.images.chmod(0o777)
    code, found = examined(node)
    assert code == 3
    assert any(state == "fail" and "image_dir" in text for state, text in found["folders"])
    assert states(found["signatures"]) == {"fail"}


def test_no_qemu_and_an_absent_user_are_told(node: Fake) -> None:
    prepare(node)
    node.configure(qemu="qemu-of-nobody", user="nobody-at-all", progress_monitor="/nonexistent")
    code, found = examined(node)
    assert code == 3 and states(found["qemu"]) == {"fail"}
    assert any(state == "warn" and "nobody-at-all" in text for state, text in found["programs"])
    assert states(found["monitor"]) == {"warn"}
