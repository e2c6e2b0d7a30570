"""How the cloud writes what it shows: rows, times, counts, made-up ids. Pure."""

import functools
import json
import random
import time
from math import floor

from exporter.simulator.cloud import SimulatedInstance
from exporter.simulator.full_backups import SimulatedFullBackup
from exporter.simulator.knobs import Knobs
from exporter.simulator.schedule import SimulatedBackup


def render_row(backup: SimulatedBackup, instance_id: str, knobs: Knobs, now: float) -> str:
    """One row of the listing, as JSON text."""
    end = None if backup.end is None or backup.end > now else floor(backup.end)
    return _render_row(
        backup.id,
        backup.name,
        floor(backup.begin),
        end,
        backup.size,
        backup.backup_type,
        instance_id,
        knobs.time_offset,
        knobs.time_form,
        knobs.show_empty_end_as,
    )


@functools.lru_cache(maxsize=20_000, typed=True)
def _render_row(
    id_: str,
    name: str,
    begin: int,
    end: int | None,
    size: float | None,
    backup_type: str,
    instance_id: str,
    time_offset: int,
    time_form: str,
    show_empty_end_as: str,
) -> str:
    row: dict[str, object] = {
        "id": id_,
        "name": name,
        "begin_time": render_time(begin, time_offset, time_form),
        "end_time": None if end is None else render_time(end, time_offset, time_form),
        "size": size,
        "backup_type": backup_type,
        "instance_id": instance_id,
    }
    if end is None and show_empty_end_as == "empty":
        row["end_time"] = ""
    elif end is None and show_empty_end_as == "missing":
        del row["end_time"]
    return json.dumps(row)


def render_full_row(
    full: SimulatedFullBackup, instance: SimulatedInstance, knobs: Knobs, now: float
) -> str:
    """One row of the listing of full backups, as JSON text."""
    end = full.end if not full.is_running(now) else None
    row: dict[str, object] = {
        "id": full.id,
        "name": full.name,
        "begin_time": render_time(floor(full.begin), knobs.time_offset, knobs.time_form),
        "end_time": (
            render_time(floor(end), knobs.time_offset, knobs.time_form) if end is not None else None
        ),
        "status": full.shown_status(now),
        "take_up_time": floor((end - full.begin) / 60) if end is not None else 0,
        "type": full.backup_type,
        "size": full.megabytes if end is not None else 0,
        "datastore": {"type": "gaussdb-mysql", "version": "8.0"},
        "instance_id": instance.id,
        "instance_name": instance.name,
        "backup_level": "0",
        "description": None,
        "backup_mode": full.backup_mode,
    }
    if end is None and knobs.show_empty_end_as == "empty":
        row["end_time"] = ""
    elif end is None and knobs.show_empty_end_as == "missing":
        del row["end_time"]
    return json.dumps(row)


def render_time(moment: float, offset_minutes: int, form: str) -> str:
    """`2022-07-07T12:41:14+0800`, or the other forms of `Knobs.time_form`."""
    if form == "zulu":
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    local = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment + offset_minutes * 60))
    hours, minutes = divmod(abs(offset_minutes), 60)
    colon = ":" if form == "colon" else ""
    return f"{local}{'-' if offset_minutes < 0 else '+'}{hours:02d}{colon}{minutes:02d}"


def render_utc(moment: float) -> str:
    """`2020-01-04T09:05:22.701000Z`."""
    whole = floor(moment)
    micros = int((moment - whole) * 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micros:06d}Z"


def render_total(total: int, knobs: Knobs) -> str:
    """The member `total_count` with its comma, as true as the knob wants it."""
    shown: object = {
        "true": total,
        "null": None,
        "lie": max(0, total + knobs.total_count_lie),
        "negative": -1,
        "string": str(total),
        "float": float(total),
    }.get(knobs.total_count)
    return "" if knobs.total_count == "missing" else f', "total_count": {json.dumps(shown)}'


def made_up_id(kind: str, name: str) -> str:
    return f"{random.Random(f'{kind}:{name}').getrandbits(128):032x}"
