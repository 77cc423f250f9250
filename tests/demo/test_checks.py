"""What keeps the demo from starting is said in one line that names the way out."""

import socket

import pytest

from gateway.demo import checks
from gateway.demo.checks import NotReadyError


def meminfo(root, available_kb: int) -> None:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_kb} kB\n")


def cgroup(root, limit: str, used: int) -> None:
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    (root / "sys/fs/cgroup/memory.current").write_text(f"{used}\n")


def test_a_port_in_use_is_named_with_the_option_that_changes_it():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(NotReadyError, match=rf"port {port} cannot be used .* choose another with --admin-port"):
            checks.require_ports({"--admin-port": port})
    checks.require_ports({"--admin-port": port})


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(NotReadyError, match="from 1 to 65535"):
        checks.require_ports({"--port": port})


def test_one_port_for_two_purposes_is_refused():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(NotReadyError, match="--port and --admin-port name the same port"):
        checks.require_ports({"--port": port, "--admin-port": port})


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), 1e9])
def test_a_speed_that_no_clock_has_is_refused(speed):
    with pytest.raises(NotReadyError, match="--speed"):
        checks.require_speed(speed)
    checks.require_speed(600.0)


def test_memory_is_the_least_of_the_machine_and_its_container(tmp_path):
    meminfo(tmp_path, available_kb=8_000_000)
    assert checks.available_memory_bytes(tmp_path) == 8_192_000_000
    cgroup(tmp_path, "2000000000", 500_000_000)
    assert checks.available_memory_bytes(tmp_path) == 1_500_000_000


def test_a_container_without_a_limit_has_the_machines_memory(tmp_path):
    meminfo(tmp_path, available_kb=8_000_000)
    cgroup(tmp_path, "max", 500_000_000)
    assert checks.available_memory_bytes(tmp_path) == 8_192_000_000


def test_a_system_that_does_not_say_its_memory_is_trusted(tmp_path):
    assert checks.available_memory_bytes(tmp_path) is None
    checks.require_memory(None)


def test_too_little_memory_is_refused():
    checks.require_memory(checks.MEMORY_MIN_BYTES)
    with pytest.raises(NotReadyError, match=r"0\.5 GB of memory is available and the demo needs 1 GB"):
        checks.require_memory(500_000_000)


def test_a_missing_package_is_named_with_its_fix():
    checks.require_packages(["json"])
    with pytest.raises(NotReadyError, match=r'pip install "tokenport\[demo\]"'):
        checks.require_packages(["json", "a_package_nobody_has"])
