"""The shapes that are known by name: the first that a record matches is taken. docs/guide/data.md shows one of each.

Columns are found without regard to case. Beside a target, or instead of it, its plural (`targets`, `summaries`, see
PLURALS) may hold every right answer. Anything else is named by `--source` and `--target`.
"""

from __future__ import annotations

from edge_client.data.shapes.chat import ChatShape
from edge_client.data.shapes.columns import ColumnsShape, pair
from edge_client.data.shapes.message_tree import MessageTreeShape
from edge_client.data.shapes.shape import Fields, Shape
from edge_client.data.shapes.squad import SquadShape
from edge_client.data.shapes.transcript import TranscriptShape
from edge_client.data.shapes.translation import LanguagesShape, TranslationShape

PAIRS = (
    ("text", "summary"),
    ("document", "summary"),  # XSum
    ("article", "highlights"),  # CNN/DailyMail
    ("article", "summary"),
    ("article", "abstract"),  # arXiv, PubMed
    ("dialogue", "summary"),  # SAMSum, DialogSum
    ("dialog", "summary"),
    ("conversation", "summary"),
    ("transcript", "summary"),
    ("report", "summary"),  # GovReport
    ("email_body", "subject_line"),  # AESLC
    ("question", "answer"),
    ("query", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("input", "output"),
    ("inputs", "targets"),  # FLAN, P3
    ("input", "target"),
    ("text", "target"),
    ("source_text", "target_text"),
    ("input_text", "target_text"),
    ("src", "tgt"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "output"),
    ("prompt", "chosen"),  # preferences; what was rejected is not learnt from
    ("text", "label"),
    ("sentence", "label"),
)
"""(source, target) of records with two texts, in order of preference, as data sets that people have name them."""

KNOWN: tuple[Shape, ...] = (
    pair("source", "target"),  # ours
    ChatShape(),
    MessageTreeShape(),
    SquadShape(),
    TranslationShape(),
    ColumnsShape("alpaca", ("instruction", "input"), "output", optional=("input",)),
    ColumnsShape("dolly", ("instruction", "context"), "response", optional=("context",)),
    ColumnsShape("question with context", ("question", "context"), "answer", may_be_empty=("context",)),
    ColumnsShape("ticket", ("subject", "body"), "answer", optional=("subject",)),
    *(pair(source, target) for source, target in PAIRS),
    LanguagesShape(),
    TranscriptShape(),
)


def find_shape(fields: Fields) -> Shape | None:
    """The shape of a record; None where it is none of these."""
    return next((shape for shape in KNOWN if shape.matches(fields)), None)
