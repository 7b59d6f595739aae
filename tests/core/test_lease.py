import os

import pytest

from accel_trainer.core.lease import BEAT_S, STALE_S, Owner, boot_id, is_stale, this_host

HERE_AND_DEAD = Owner(this_host(), f"{boot_id()}-999999999-1-abcd")


def test_an_owner_is_stale_after_ten_minutes_of_silence_not_before() -> None:
    assert (BEAT_S, STALE_S) == (30.0, 600.0)
    assert not is_stale(599.9)
    assert is_stale(600.0)


@pytest.mark.parametrize("silence_s", [0.0, 1e9])
def test_a_lease_on_this_machine_ends_with_its_process_whatever_the_silence(silence_s: float) -> None:
    assert HERE_AND_DEAD.has_expired(silence_s)
    assert not Owner.new().has_expired(silence_s)


def test_a_lease_on_another_machine_ends_with_its_silence() -> None:
    elsewhere = Owner("another-host", f"{boot_id()}-{os.getpid()}-1-abcd")
    assert not elsewhere.has_expired(599.9)
    assert elsewhere.has_expired(600.0)
