"""Measures of generated images: pure functions of features, and the extractors that make features of images.

Importing this package loads no torch. `zoo.metrics.names` finds metrics and extractors by name, plugins' included;
`zoo.evaluate` puts both together and writes the receipt.
"""
