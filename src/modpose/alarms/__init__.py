"""Alarms: warnings of one or two sentences about data or results that look wrong."""

from modpose.alarms.images import data_alarms
from modpose.run.alarm import Alarm, stored_alarms

__all__ = ["Alarm", "data_alarms", "stored_alarms"]
