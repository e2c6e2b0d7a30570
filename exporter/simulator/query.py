"""Query parameters, read as strictly as the documentation does."""

import calendar
import re
import time
from collections.abc import Mapping
from math import inf

from exporter.simulator.faults import RefusalError
from exporter.simulator.knobs import Knobs
from exporter.simulator.listing import Window

_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)([+-])(\d\d)(\d\d)")


def parse_moment(text: str) -> int | None:
    """Seconds since the epoch of `yyyy-mm-ddThh:mm:ss+0800`; None for anything else."""
    parsed = _MOMENT.fullmatch(text)
    if parsed is None or not text.isascii():
        return None
    *parts, sign, hours, minutes = parsed.groups()
    year, month, day, hour, minute, second = map(int, parts)
    try:
        time.strptime("-".join(parts), "%Y-%m-%d-%H-%M-%S")
    except ValueError:
        return None
    offset = (int(hours) * 60 + int(minutes)) * 60
    local = calendar.timegm((year, month, day, hour, minute, second))
    return local - offset if sign == "+" else local + offset


class Query:
    """The parameters of one request; what does not fit is refused by its name."""

    def __init__(self, values: Mapping[str, str], knobs: Knobs) -> None:
        self._values = values
        self._form = knobs.parameter_error_form

    def refusal(self, name: str, problem: str) -> RefusalError:
        code = "DBS.200001" if self._form == "service" else "APIGW.0201"
        text = f"Parameter error: {name}={self._values.get(name)!r} {problem}."
        return RefusalError(400, self._form, code, text)

    def whole_number(self, name: str, default: int) -> int:
        text = self._values.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal()):
            raise self.refusal(name, "is not a whole number from 0")
        return int(text)

    def flag(self, name: str) -> bool:
        text = self._values.get(name, "false")
        if text not in ("true", "false"):
            raise self.refusal(name, "is neither true nor false")
        return text == "true"

    def window(self, *, end_may_lack: bool = False) -> Window:
        names = [name for name in ("begin_time", "end_time") if name in self._values]
        if not names:
            return Window()
        if names == ["begin_time"] and end_may_lack:
            begin = parse_moment(self._values["begin_time"])
            if begin is None:
                raise self.refusal("begin_time", "is not of the form yyyy-mm-ddThh:mm:ss+0800")
            return Window(begin)
        if len(names) == 1:
            raise self.refusal(names[0], "needs the other time too")
        begin, end = (parse_moment(self._values[name]) for name in names)
        if begin is None:
            raise self.refusal("begin_time", "is not of the form yyyy-mm-ddThh:mm:ss+0800")
        if end is None:
            raise self.refusal("end_time", "is not of the form yyyy-mm-ddThh:mm:ss+0800")
        if end <= begin:
            raise self.refusal("end_time", "is not later than begin_time")
        return Window(begin, end)

    def milliseconds(self) -> tuple[float, float]:
        """Between which moments, in seconds: those of `date`, of `start_time` and `end_time`."""
        date = self._values.get("date")
        if date is not None:
            midnight = parse_moment(f"{date}T00:00:00+0000")
            if midnight is None:
                raise self.refusal("date", "is not of the form yyyy-mm-dd")
            return float(midnight), float(midnight + 86_400)
        names = [name for name in ("start_time", "end_time") if name in self._values]
        if not names:
            return -inf, inf
        if len(names) == 1:
            raise self.refusal(names[0], "needs the other time too")
        start, end = (self.whole_number(name, 0) / 1000 for name in names)
        if end <= start:
            raise self.refusal("end_time", "is not later than start_time")
        return start, end

    def tags(self) -> dict[str, str]:
        pairs = [part for part in self._values.get("tags", "").split(",") if part]
        if any("=" not in pair for pair in pairs):
            raise self.refusal("tags", "is not of the form key=value,key=value")
        return dict(pair.split("=", 1) for pair in pairs)
