"""What a check found, and what to do about it."""

from dataclasses import dataclass

OK, NOTE, BROKEN = "ok", "note", "BROKEN"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    state: str  # OK; NOTE: works, but know this; BROKEN: mend it
    name: str
    found: str
    to_do: str = ""
