"""What a program in the sandbox may not ask of the kernel, beyond what the namespaces hold.

Memory that belongs to no process, namespaces of one's own, keys that outlive the sandbox, another
processor than the one given, a look into other processes. The program is for `bwrap --seccomp`.
"""

import errno
import platform
import struct

#: The kernel's name of each architecture, and its numbers for the system calls.
_CALLS = {
    "x86_64": (0xC000003E, {
        "shmget": 29, "clone": 56, "semget": 64, "msgget": 68, "ptrace": 101, "syslog": 103,
        "mount": 165, "sched_setaffinity": 203, "mq_open": 240, "add_key": 248, "request_key": 249,
        "keyctl": 250, "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304,
        "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "memfd_create": 319,
        "bpf": 321, "userfaultfd": 323,
    }),
    "aarch64": (0xC00000B7, {
        "mount": 40, "unshare": 97, "syslog": 116, "ptrace": 117, "sched_setaffinity": 122,
        "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "add_key": 217,
        "request_key": 218, "keyctl": 219, "clone": 220, "perf_event_open": 241,
        "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271,
        "memfd_create": 279, "bpf": 280, "userfaultfd": 282,
    }),
}  # fmt: skip
#: The same numbers everywhere. Whoever meets these as unknown falls back to older calls.
_UNKNOWN = {
    "io_uring_setup": 425, "move_mount": 429, "fsopen": 430, "clone3": 435, "pidfd_getfd": 438,
    "memfd_secret": 447,
}  # fmt: skip
_NEW_NAMESPACES = 0x7E020080  # the flags of clone: CLONE_NEW…
_FOREIGN = 0x40000000  # x86_64's second set of numbers

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def known() -> bool:
    """Whether there is a program for this machine."""
    return platform.machine() in _CALLS


def program() -> bytes:
    """The filter as the kernel takes it: a list of `struct sock_filter`."""
    architecture, calls = _CALLS[platform.machine()]
    refused = [number for name, number in calls.items() if name != "clone"]
    out = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, 0, 1, _FOREIGN),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for number, error in (
        *((n, errno.EPERM) for n in refused),
        *((n, errno.ENOSYS) for n in _UNKNOWN.values()),
    ):
        out += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | error)]
    out += [
        (_EQUAL, 0, 3, calls["clone"]),
        (_LOAD, 0, 0, 16),  # its flags
        (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in out)
