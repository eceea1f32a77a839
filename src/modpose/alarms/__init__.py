"""Alarms: what looks wrong about data or a result is said at once, in one or two sentences."""

from modpose.alarms.images import data_alarms
from modpose.run.alarm import Alarm, stored_alarms

__all__ = ["Alarm", "data_alarms", "stored_alarms"]
