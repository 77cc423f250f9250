"""What a token costs and what it earns.

Pure: no clock, no input or output, no async, no chance. Time is an argument everywhere, money that is written down is
an integer, and the whole package is a function from (configuration, price curves, moment) to unit prices.
"""
