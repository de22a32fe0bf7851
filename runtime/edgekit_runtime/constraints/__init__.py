"""What an answer has to follow: a JSON schema, a regular expression, a grammar or a choice of texts.

llguidance holds it: :mod:`compiling` makes its grammar of what is asked for, :class:`Matcher` says token by token what
may come next.  What can't be held is refused (:mod:`keywords`), never ignored.
"""

from edgekit_runtime.constraints.compiling import (
    FORMS,
    check_schema,
    compiled,
    compiled_rules,
    held_schema,
    inline_schema,
)
from edgekit_runtime.constraints.matcher import Matcher
from edgekit_runtime.constraints.tokens import Tokens

__all__ = ["FORMS", "Matcher", "Tokens", "check_schema", "compiled", "compiled_rules", "held_schema", "inline_schema"]
