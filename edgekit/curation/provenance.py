"""Where a row comes from, beside what it says: the reader of rows leaves it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from edgekit.curation.teacher import Reply, TeacherOptions
from edgekit_runtime.prompts.chat import Message


def provenance(
    command: str, options: TeacherOptions, asked: Sequence[Message], reply: Reply, **more: Any
) -> dict[str, Any]:
    """What is known of a row.

    Args:
        command: that made it.
        options: the teacher.
        asked: what the teacher was asked, of which the digest is kept.
        reply: what it said.
        more: seeds and variation, say.
    """
    text = json.dumps(list(asked), sort_keys=True, ensure_ascii=False)
    return {
        "by": f"edgekit data {command} {version('edgekit')}",
        "teacher": options.model,
        "endpoint": options.shown,
        "prompt": hashlib.sha256(text.encode()).hexdigest(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "tokens": reply.tokens,
        **more,
    }
