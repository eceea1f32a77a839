"""Alarms: what looks wrong about data or a result is said at once, in one or two sentences."""

from modpose.evaluate.alarms.alarm import Alarm, stored_alarms
from modpose.evaluate.alarms.find import data_alarms, find_alarms

__all__ = ["Alarm", "data_alarms", "find_alarms", "stored_alarms"]
