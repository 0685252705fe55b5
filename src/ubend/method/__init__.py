"""The paper: arrays in, arrays out, one concept a file."""
