"""The prediction process: `python -m modelyard.endpoint --config PATH`.

Front, router and model runtimes stand together in one process, so that a split of traffic costs no extra hop. It knows
nothing of the catalog: what it serves comes from a configuration file, what it did goes to a status file and a log.
"""
