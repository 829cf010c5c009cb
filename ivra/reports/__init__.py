"""What a reader sees: explained rows in a terminal, as an HTML page, as JSON.

Plain data in, text out: nothing here knows torch, a model or a batch.
"""
