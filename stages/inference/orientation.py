"""Recognises chest films that are inverted, upside down or turned by 90 degrees."""

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.core.imaging import Grey, to_channels

# Rows and columns with less spread than this share of the film's are its margin.
MARGIN = 0.25
_SIDE, _THUMBNAIL = 48, 16
# A thumbnail's scalar product with these weights is about 1 for an upright film, 0 for
# a turned one and -1 for an inverted one. Fitted to 400 phantoms and their turns by
# ridge regression; `python -m benchmarks orientation` shows how and how well.
SCALE = 5000
CHEST = bytes.fromhex(
    "0a17c79b9bacf43c3cf4ac9b9bc7170ae22510f4d6c300313100c3d6f41025e2"
    "dd0a0b02e2c5fe1e1efec5e2020b0addddfc20051cde002f2f00de1c0520fcdd"
    "dbf211ded4c3d12a2ad1c3d4de11f2dbdcf91507efe0f24545f2e0ef0715f9dc"
    "081b3e1b04fd095a5a09fd041b3e1b081e060518dddaff5d5dffdadd1805061e"
    "0ee9b9cdeaeede5c5cdeeeeacdb9e90ef3f58ee60afafa2626fafa0ae68ef5f3"
    "e306def30403031818030304f3de06e3f812f006281820fbfb20182806f012f8"
    "db04ddf7fd310515150531fdf7dd04dbc0f6f90a06431813131843060af9f6c0"
    "c0e8e8f71e4320060620431ef7e8e8c0d00d444c685f30f6f6305f684c440dd0"
)
# A film is named if another orientation scores this much more than upright, and enough
# to be a chest at all.
LEAD, LEAST = 0.1, 0.3
_TURNS = ("", "turned by 90 degrees", "upside down", "turned by 90 degrees")


def unusual(greys: Grey) -> str:
    """Names the orientation of a film that is not upright, or ""."""
    weights = np.frombuffer(CHEST, np.int8).reshape(_THUMBNAIL, _THUMBNAIL) / SCALE
    film = thumbnail(greys)
    scores = np.array([(np.rot90(film, -turns) * weights).sum() for turns in range(4)])
    both = np.array([scores, -scores])
    if both.max() < max(LEAST, scores[0] + LEAD):
        return ""
    is_inverted, turns = divmod(int(both.argmax()), 4)
    found = filter(None, ("inverted" if is_inverted else "", _TURNS[turns]))
    return " and ".join(found)


def thumbnail(greys: Grey) -> NDArray[np.float32]:
    """A film without its margins, equalised, at 16x16, with mean 0 and variance 1."""
    size = (_SIDE, _SIDE)
    small = cv2.resize(to_channels(greys), size, interpolation=cv2.INTER_AREA)
    least = MARGIN * small.std()
    rows, columns = (np.flatnonzero(small.std(axis) > least) for axis in (1, 0))
    if len(rows) and len(columns):
        small = small[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    equal = cv2.equalizeHist(np.ascontiguousarray(small, np.uint8))
    equal = cv2.resize(equal, size, interpolation=cv2.INTER_LINEAR)
    shrunk = cv2.resize(equal, (_THUMBNAIL,) * 2, interpolation=cv2.INTER_AREA)
    shares = shrunk.astype(np.float32) - shrunk.mean()
    return np.asarray(shares / (shares.std() + 1e-6), np.float32)
