import errno

from icl.app import outside_reason


def test_what_a_disk_or_its_permissions_refuse_is_one_line() -> None:
    assert outside_reason(OSError(errno.ENOSPC, "x", "/run")) == "/run: No space left on device"
    assert outside_reason(PermissionError(errno.EACCES, "x", "/run")) == "/run: Permission denied"


def test_the_cause_of_an_error_counts() -> None:
    error = RuntimeError("save failed")
    error.__cause__ = ValueError("RESOURCE_EXHAUSTED: ... No space left on device [os_error_code='28']")
    assert (outside_reason(error) or "").startswith("No space left on device: ")


def test_a_bug_is_none_of_these() -> None:
    assert outside_reason(ValueError("shapes differ")) is None
    assert outside_reason(OSError(errno.EBADF, "x")) is None
