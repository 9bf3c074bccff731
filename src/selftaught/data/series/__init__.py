"""Series of numbers: recordings of sensors, measurements over time."""
