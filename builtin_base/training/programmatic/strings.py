"""Programmatic tasks on strings and lists: copying, quoting, picking a line or a word, reversing, sorting, counting.

Each function draws one (source, target) from `Values`; the target follows from the source alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from builtin_base.training.programmatic.values import Values

_COPY_ORDERS = ("copy:", "repeat:", "say again:", "write exactly:")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def copy(values: Values) -> tuple[str, str]:
    """Repeat a string of values, some with quotes, brackets and punctuation."""
    text = _string(values, values.random.randint(1, 6))
    return f"{values.random.choice(_COPY_ORDERS)} {text}", text


def copy_sentence(values: Values) -> tuple[str, str]:
    """Repeat a sentence of running text."""
    text = " ".join(values.sentence().split()[:20])
    return f"{values.random.choice(_COPY_ORDERS)} {text}", text


def copy_quoted(values: Values) -> tuple[str, str]:
    """Repeat the one string that stands in quotes, wherever it is."""
    quoted = _string(values, values.random.randint(1, 4)).replace('"', "'")
    noise = [values.sentence().replace('"', "") for _ in range(values.random.randint(1, 6))]
    noise.insert(values.random.randint(0, len(noise)), f'{values.phrase(1, 3)} "{quoted}" {values.phrase(1, 3)}')
    return "what is quoted? " + "\n".join(noise), quoted


def copy_bracketed(values: Values) -> tuple[str, str]:
    """Repeat what stands between two markers that the order names."""
    left, right = values.random.choice([("<", ">"), ("[", "]"), ("{", "}"), ("begin", "end"), ("**", "**")])
    inner = values.phrase(1, 6)
    before, after = values.phrase(1, 20), values.phrase(1, 20)
    return f"what is between {left} and {right} ?\n{before} {left} {inner} {right} {after}", inner


def pick_line(values: Values) -> tuple[str, str]:
    """Repeat one of several lines, named by its place."""
    lines = [values.phrase(2, 6) if values.random.random() < 0.6 else values.sentence() for _ in range(_few(values, 6))]
    lines = [" ".join(line.split()[:14]) for line in lines]
    place = values.random.randrange(len(lines) + 1)
    name = "last" if place == len(lines) else _ORDINALS[place]
    return f"{name} line of:\n" + "\n".join(f"- {line}" for line in lines), lines[-1 if name == "last" else place]


def line_with(values: Values) -> tuple[str, str]:
    """Repeat the line that holds a given word."""
    lines = [" ".join(values.distinct(values.word, values.random.randint(2, 7))) for _ in range(_few(values, 8))]
    words = [word for line in lines for word in line.split()]
    single = [word for word in words if words.count(word) == 1]
    if not single:
        return copy(values)
    word = values.random.choice(single)
    return f"line with {word}:\n" + "\n".join(f"- {x}" for x in lines), next(x for x in lines if word in x.split())


def word_after(values: Values) -> tuple[str, str]:
    """Name the word that follows, or precedes, a given one."""
    words = values.distinct(values.word, values.random.randint(3, 25))
    place = values.random.randrange(1, len(words))
    if values.random.random() < 0.5:
        return f"word after {words[place - 1]}: {' '.join(words)}", words[place]
    return f"word before {words[place]}: {' '.join(words)}", words[place - 1]


def rest_after(values: Values) -> tuple[str, str]:
    """Continue a passage that was seen once, from a given place: copying from the middle of a text."""
    words = values.distinct(values.word, values.random.randint(6, 40))
    place = values.random.randrange(len(words) - 3)
    n_words = min(len(words) - place - 1, values.random.randint(2, 8))
    return f"{n_words} words after {words[place]}: {' '.join(words)}", " ".join(words[place + 1 : place + 1 + n_words])


def reverse(values: Values) -> tuple[str, str]:
    """Say words backwards."""
    words = [values.word() for _ in range(_few(values, 7))]
    return f"reverse: {' '.join(words)}", " ".join(reversed(words))


def order(values: Values) -> tuple[str, str]:
    """Sort numbers or words."""
    if values.random.random() < 0.5:
        numbers = [values.random.randint(0, 999) for _ in range(_few(values, 6))]
        return f"sort: {_spaced(numbers)}", _spaced(sorted(numbers))
    words = [values.word().lower() for _ in range(_few(values, 6))]
    return f"sort: {_spaced(words)}", _spaced(sorted(words))


def extreme(values: Values) -> tuple[str, str]:
    """Name the line with the largest or the smallest number."""
    names = values.distinct(values.slug, _few(values, 6))
    numbers = values.random.sample(range(1000), len(names))
    largest = values.random.random() < 0.5
    best = (max if largest else min)(zip(numbers, names, strict=True))[1]
    lines = "\n".join(f"{name}: {number}" for name, number in zip(names, numbers, strict=True))
    return f"{'largest' if largest else 'smallest'} of:\n{lines}", best


def count(values: Values) -> tuple[str, str]:
    """Count items of a list, or how often one occurs."""
    n = values.random.randint(1, 9)
    as_word = values.random.random() < 0.3
    if values.random.random() < 0.5:
        items = [values.phrase(1, 2) for _ in range(n)]
        return f"how many items{', in words' if as_word else ''}? {'; '.join(items)}", _number(n, as_word)
    word, *others = values.distinct(values.word, values.random.randint(2, 4))
    n = min(n, 5)
    items = [word] * n + [values.random.choice(others) for _ in range(values.random.randint(1, 8))]
    values.random.shuffle(items)
    return f"how many {word}{', in words' if as_word else ''}? {' '.join(items)}", _number(n, as_word)


def remove(values: Values) -> tuple[str, str]:
    """Repeat a list without one of its items, or with one replaced."""
    words = values.distinct(values.word, _few(values, 7))
    word = values.random.choice(words)
    if values.random.random() < 0.5:
        return f"without {word}: {_spaced(words)}", _spaced(w for w in words if w != word)
    new = values.word()
    return f"replace {word} by {new}: {_spaced(words)}", _spaced(new if w == word else w for w in words)


def _string(values: Values, n_values: int) -> str:
    """Draw a string of several values with the punctuation that real ones have."""
    parts = []
    for _ in range(n_values):
        text = values.value()
        style = values.random.randrange(14)
        if style < 7:
            parts.append(text)
        elif style < 9:
            parts.append(json.dumps(text))
        else:
            parts.append((f"'{text}'", f"({text})", f"{text},", f"{values.key()}={text}", f"{text}:")[style - 9])
    return " ".join(parts)


def _few(values: Values, most: int) -> int:
    return values.random.randint(2, most)


def _spaced(items: Iterable[object]) -> str:
    return " ".join(str(item) for item in items)


def _number(n: int, as_word: bool) -> str:
    return _NUMBERS[n] if as_word else str(n)
