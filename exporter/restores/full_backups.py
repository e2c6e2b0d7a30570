"""What an instance's full backups come to. Pure."""

from collections.abc import Iterable
from math import inf

from exporter.models import FULL_BACKUP_TYPES, BackupState, FullBackup, FullBackups


def summarise(rows: Iterable[FullBackup], *, at: float) -> FullBackups:
    """The numbers of one instance's rows, each id once."""
    backups = sorted({row.id: row for row in rows}.values(), key=_by_end)
    usable = [backup for backup in backups if backup.state is BackupState.USABLE]
    ended = [backup for backup in backups if backup.state is not BackupState.RUNNING]
    return FullBackups(
        at,
        tuple(backups),
        usable={
            kind: sum(backup.backup_type == kind for backup in usable) for kind in FULL_BACKUP_TYPES
        },
        latest={backup.backup_type: backup for backup in usable},
        oldest_end=usable[0].end if usable else None,
        latest_failed=ended[-1].state is BackupState.FAILED if ended else None,
    )


def _by_end(backup: FullBackup) -> tuple[float, bool, str]:
    """Of two that end together the failed one is the later: it is the one to look at."""
    return backup.end or inf, backup.state is BackupState.FAILED, backup.id
