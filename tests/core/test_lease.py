import os

import pytest

from accel_trainer.core import lease, process_space
from accel_trainer.core.lease import BEAT_S, STALE_S, Owner, is_dead_token, is_stale, this_host
from accel_trainer.core.process_space import Life, own_start, space_name

HERE_AND_DEAD = Owner(this_host(), f"{space_name()}-999999999-1-abcd")
PID, START = os.getpid(), own_start()


def test_an_owner_is_stale_after_ten_minutes_of_silence_not_before() -> None:
    assert (BEAT_S, STALE_S) == (30.0, 600.0)
    assert not is_stale(599.9)
    assert is_stale(600.0)


@pytest.mark.parametrize("silence_s", [0.0, 1e9])
def test_a_lease_on_this_machine_ends_with_its_process_whatever_the_silence(silence_s: float) -> None:
    assert HERE_AND_DEAD.has_expired(silence_s)
    assert not Owner.new().has_expired(silence_s)


def test_a_lease_on_another_machine_ends_with_its_silence() -> None:
    elsewhere = Owner("another-host", f"b0b0b0b0_a1a1a1a1_0-{os.getpid()}-1-abcd")
    assert not elsewhere.has_expired(599.9)
    assert elsewhere.has_expired(600.0)


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process is one of a machine named grey, in the space of a machine without containers."""
    monkeypatch.setenv(lease.HOST_VARIABLE, "grey")
    as_machine(monkeypatch, "m1", "b1", "0")
    return monkeypatch


def as_machine(monkeypatch: pytest.MonkeyPatch, machine: str, boot: str, space: str) -> None:
    for name, value in {"machine_id": machine, "boot_id": boot, "space_id": space}.items():
        monkeypatch.setattr(lease, name, lambda value=value: value)
        monkeypatch.setattr(process_space, name, lambda value=value: value)


@pytest.mark.parametrize(
    ("host", "token", "life"),
    [
        ("grey", "m1_b1_0-PID-START-w", Life.ALIVE),
        ("grey", "m1_b1_0-PID-LATER-w", Life.DEAD),
        ("grey", "m1_b1_0-999999999-1-w", Life.DEAD),
        # Renamed, or another host name and machine id in a container with the processes of its machine.
        ("rey", "m1_b1_0-PID-START-w", Life.ALIVE),
        ("rey", "m1_b1_0-999999999-1-w", Life.DEAD),
        ("rey", "m2_b1_0-999999999-1-w", Life.DEAD),
        # Other containers, of the same name and image too.
        ("grey", "m1_b1_2c0-999999999-1-w", Life.UNKNOWN),
        ("grey", "m1_b1_2c0-PID-START-w", Life.UNKNOWN),
        ("grey", "m1_b1_0t5-999999999-1-w", Life.UNKNOWN),
        ("grey", "m1_b1_x3f-999999999-1-w", Life.UNKNOWN),
        # Of another boot of this machine nothing lives; another machine of its image has another name, or another id.
        ("grey", "m1_b2_0-PID-START-w", Life.DEAD),
        ("grey", "m1_b2_2c0-PID-START-w", Life.DEAD),
        ("rey", "m1_b2_0-PID-START-w", Life.UNKNOWN),
        ("grey", "m2_b2_0-PID-START-w", Life.UNKNOWN),
        ("grey", "_b2_0-PID-START-w", Life.UNKNOWN),
        ("grey", "m1__x3f-999999999-1-w", Life.UNKNOWN),
        # Tokens of earlier versions.
        ("grey", "m1_b1-PID-START-w", Life.ALIVE),
        ("grey", "m1_b1-999999999-1-w", Life.DEAD),
        ("grey", "m1_b2-PID-START-w", Life.DEAD),
        ("rey", "m1_b2-PID-START-w", Life.UNKNOWN),
        ("grey", "m2_b2-PID-START-w", Life.UNKNOWN),
        ("grey", "b1-999999999-1-w", Life.DEAD),
        ("grey", "b2-PID-START-w", Life.UNKNOWN),
        ("grey", "", Life.UNKNOWN),
        ("grey", "nonsense", Life.UNKNOWN),
        # The token of a cluster's claim is of the process that has submitted it.
        ("slurm+lab", "m1_b1_0-999999999-1-w", Life.UNKNOWN),
        ("grey", "m1_b1_0-999999999-1-w-m1_b1_0-1-1-v", Life.DEAD),
    ],
)
def test_death_is_claimed_only_from_evidence(grey: pytest.MonkeyPatch, host: str, token: str, life: Life) -> None:
    for word, value in {
        "PID": PID,
        "START": START,
        "LATER": int(START) + 1,
    }.items():  # not in the names of tests
        token = token.replace(word, str(value))
    assert Owner(host, token).life() is life
    assert Owner(host, token).is_dead() == (life is Life.DEAD)
    assert Owner(host, token).has_expired(0.0) == (life is Life.DEAD)
    assert Owner(host, token).has_expired(1e9) == (life is not Life.ALIVE)


def test_in_a_container_nothing_is_known_of_processes_of_earlier_versions(grey: pytest.MonkeyPatch) -> None:
    """They may be of another container: their tokens do not say."""
    as_machine(grey, "m1", "b1", "2c0")
    assert Owner("grey", "m1_b1-999999999-1-w").life() is Life.UNKNOWN
    assert Owner("grey", "m1_b1_2c0-999999999-1-w").life() is Life.DEAD
    assert Owner("grey", "m1_b2-1-1-w").life() is Life.DEAD


def test_where_there_is_no_machine_id_another_boot_is_no_evidence(grey: pytest.MonkeyPatch) -> None:
    as_machine(grey, "", "b1", "0")
    assert Owner("grey", "_b2_0-1-1-w").life() is Life.UNKNOWN
    assert Owner("grey", "_b1_0-999999999-1-w").life() is Life.DEAD


def test_where_no_boot_id_can_be_read_nothing_is_evidence(grey: pytest.MonkeyPatch) -> None:
    as_machine(grey, "m1", "", "0")
    for token in ("m1__0-999999999-1-w", "m1_b1_0-999999999-1-w", "m1-999999999-1-w", "-999999999-1-w"):
        assert Owner("grey", token).life() is Life.UNKNOWN
        assert not is_dead_token(token)


@pytest.mark.parametrize(
    ("host", "token", "is_of_it"),
    [
        ("rey", "m2_b1_2c0-1-1-w", True),
        ("grey", "m1_b2_0-1-1-w", True),
        ("rey", "m1_b2_0-1-1-w", False),
        ("grey", "m2_b2_0-1-1-w", False),
        ("grey", "", False),
    ],
)
def test_a_machine_is_known_by_its_boot_or_by_its_id_and_name(
    grey: pytest.MonkeyPatch, host: str, token: str, is_of_it: bool
) -> None:
    assert Owner(host, token).is_of_this_machine == is_of_it


def test_a_token_without_its_host_is_dead_only_since_the_machine_was_started(grey: pytest.MonkeyPatch) -> None:
    assert is_dead_token("m1_b1_0-999999999-1-w")
    assert not is_dead_token("m1_b2_0-999999999-1-w")
    assert not is_dead_token("m1_b1_2c0-999999999-1-w")
