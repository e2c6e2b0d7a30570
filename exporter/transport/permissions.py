"""Which permission each call needs. Pure.

The cloud has two grammars of policies, which do not mix: identity policies (version 5.0) name
`gaussdbformysql:` actions, roles and custom policies (version 1.1) `gaussdb:` ones.
"""

from typing import NamedTuple


class Permission(NamedTuple):
    """The action of an identity policy, and those of a custom policy."""

    identity: str
    custom: tuple[str, ...]

    def __str__(self) -> str:
        """In both grammars, for people."""
        custom = " and ".join(self.custom)
        return f"{self.identity} in an identity policy, or {custom} in a custom policy"


_BOTH = ("gaussdb:backup:list", "gaussdb:instance:list")
LIST_BACKUPS = Permission("gaussdbformysql:backup:list", _BOTH)
LIST_INSTANCES = Permission("gaussdbformysql:instance:list", ("gaussdb:instance:list",))
SHOW_RESTORE_TIME = Permission("gaussdbformysql:backup:getRestoreTime", _BOTH)

_PERMISSIONS = {
    "list_backups": LIST_BACKUPS,
    "list_full_backups": LIST_BACKUPS,
    "list_instances": LIST_INSTANCES,
    "show_restore_time": SHOW_RESTORE_TIME,
}
# What may be switched off where it is forbidden, or where a cloud has no such call.
_SETTINGS = {"show_restore_time": "restore_window", "list_full_backups": "full_backups"}
_OF_AN_INSTANCE = {"list_backups", "show_restore_time"}


def forbidden_hint(operation: str) -> str:
    """What to do about a call that is forbidden."""
    hint = f"grant the user {_PERMISSIONS.get(operation, LIST_BACKUPS)}, in this project"
    if operation in _SETTINGS:
        hint += f" (or set {_SETTINGS[operation]}: false)"
    if operation in _OF_AN_INSTANCE:
        hint += "; an instance that does not exist may be answered so too"
    return hint


def missing_hint(operation: str) -> str:
    """What to do where there is no such call; empty where every cloud has it."""
    if operation not in _SETTINGS:
        return ""
    return f"this cloud does not have the call: set {_SETTINGS[operation]}: false in the project"
