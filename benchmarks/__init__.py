"""Measurements of modpose on the machine at hand: a step, time to a bound, memory."""
