"""Which backend serves this request. Pure: standard library and `pricing` only; time and chance are arguments."""
