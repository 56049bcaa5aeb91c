"""The routing model: tables, their codec and signature, and the choice of a record's destination.

Pure: it imports the codec libraries and the standard library, and knows no Kafka, no Redis, no clock.
"""
