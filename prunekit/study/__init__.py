"""Studies: the same recipe as dense training, tickets and controls, over seeds, and what that decides."""

from __future__ import annotations
