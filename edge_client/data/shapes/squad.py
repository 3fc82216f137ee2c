"""SQuAD as it is published: an article with paragraphs, each with questions and answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge_client.data.shapes.shape import Fields, NotTextError, TextPair, Unusable, Use
from edge_client.data.shapes.values import distinct, text_of, texts_of


class SquadShape:
    """A question and its paragraph are read, an answer is written; all answers that people gave are right."""

    name, keeps_together = "SQuAD", False

    def matches(self, fields: Fields) -> bool:
        """Whether there are paragraphs, or one with its questions."""
        return isinstance(fields.get("paragraphs"), list) or isinstance(fields.get("qas"), list)

    def use(self, fields: Fields) -> Use:
        """The column that everything is in."""
        columns = tuple(fields.column(name) for name in ("paragraphs", "context", "qas") if name in fields)
        return Use(columns, columns)

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """An example for each question that has an answer."""
        for paragraph in _objects(fields.get("paragraphs")) if "paragraphs" in fields else [fields]:
            for question in _objects(paragraph.get("qas")):
                yield _example(paragraph, question)


def _example(paragraph: Fields, question: Fields) -> TextPair | Unusable:
    try:
        parts = [text_of(question.get("question")), text_of(paragraph.get("context"))]
        answers = texts_of(question.get("answers"))
    except NotTextError as error:
        return Unusable(f"question, context or answer is {error}")
    if not all(parts):
        return Unusable("question or context is empty")
    return TextPair("\n".join(parts), distinct(answers)) if answers else Unusable("a question without an answer")


def _objects(value: object) -> Iterator[Fields]:
    """The objects in a list, as fields."""
    for element in value if isinstance(value, list) else []:
        if isinstance(element, dict):
            yield Fields(element)
