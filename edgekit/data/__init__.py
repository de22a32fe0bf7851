"""Data sets: files, folders and hub data sets of the kinds that trainers take, as rows; every error says where.

``source`` says what a project names, ``files`` which files that is, ``containers`` (``json_file``, ``csv_file``,
``parquet_file``) takes them apart into objects, and ``rows`` makes each of them a :class:`Row`.
"""

from edgekit.data.loading import LookedAt, data_digest, load_prompts, load_rows, look_at_rows
from edgekit.data.row import IMAGE, Row
from edgekit.data.source import DataSource

__all__ = ["IMAGE", "DataSource", "LookedAt", "Row", "data_digest", "load_prompts", "load_rows", "look_at_rows"]
