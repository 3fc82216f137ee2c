"""Files in exactly the structure in which well-known data sets are stored, with invented texts: each loads as it is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from edge_client.errors import DataError
from tests.fakes.data_files import examples, read, write_jsonl


def test_samsum(tmp_path: Path) -> None:
    """train.json: one array of dialogues with \\r\\n between turns."""
    path = tmp_path / "train.json"
    record = {"id": "13818513", "summary": "Ann bakes.", "dialogue": "Ann: I bake.\r\nBob: Good!"}
    path.write_text(json.dumps([record] * 3))

    assert examples(path) == [("Ann: I bake.\r\nBob: Good!", "Ann bakes.")] * 3
    assert read(path).findings.ignored_columns == ("id",)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_dialogsum(suffix: str, tmp_path: Path) -> None:
    """train.csv and dialogsum.train.jsonl: id or fname, dialogue over several lines, summary, topic."""
    path = tmp_path / f"dialogsum.train.{suffix}"
    dialogue = '#Person1#: Hi, "you".\n#Person2#: Hello.'
    if suffix == "csv":
        quoted = dialogue.replace('"', '""')
        path.write_text(f'id,dialogue,summary,topic\ntrain_0,"{quoted}",They greet.,greeting\n' * 1)
    else:
        write_jsonl(path, [{"fname": "train_0", "dialogue": dialogue, "summary": "They greet.", "topic": "greeting"}])

    assert examples(path) == [(dialogue, "They greet.")]
    assert "topic" in read(path).findings.ignored_columns


def test_dialogsums_test_part_names_what_to_add(tmp_path: Path) -> None:
    """Three summaries: one command line reads one of them, another all."""
    record = {"fname": "t0", "dialogue": "#A#: Hi\n#B#: Hello", "summary1": "They greet.", "topic1": "greeting"}
    path = write_jsonl(tmp_path / "dialogsum.test.jsonl", [record | {"summary2": "A greeting.", "summary3": "Hi."}])

    with pytest.raises(DataError) as caught:
        read(path)

    assert "--source dialogue --target summary1" in caught.value.hint
    data = read(path, source="dialogue", targets=["summary1", "summary2", "summary3"])
    assert data.first[0].targets == ("They greet.", "A greeting.", "Hi.")


def test_aeslc(tmp_path: Path) -> None:
    """Emails with their subjects; of one with further subjects that people wrote, these are named as ignored."""
    path = tmp_path / "aeslc.csv"
    path.write_text('email_body,subject_line\n"Phillip,\n\nPlease send the file, thanks.",Send the file\n')

    assert examples(path) == [("Phillip,\n\nPlease send the file, thanks.", "Send the file")]


def test_raw_mail_names_what_is_missing(tmp_path: Path) -> None:
    """emails.csv of the Enron corpus holds whole messages: with one column of text there is nothing to write."""
    path = tmp_path / "emails.csv"
    path.write_text('"file","message"\n"allen-p/1.","Message-ID: <1>\nSubject: x\n\nHere is our forecast"\n')

    with pytest.raises(DataError, match="its columns are file, message") as caught:
        read(path)

    assert "message alone holds text" in caught.value.hint


def test_files_with_marked_parts(tmp_path: Path) -> None:
    """AESLC's .subject files: a body, its subject, in the test part what people wrote besides; CNN's .story files."""
    mail, story = tmp_path / "mail", tmp_path / "cnn"
    mail.mkdir()
    story.mkdir()
    (mail / "a.subject").write_text("Please send\nthe file.\n\n@subject\nThe file\n")
    (mail / "b.subject").write_text("Lunch?\n\n@subject\nLunch\n\n@ann0\nLunch today\n\n@ann1\nAbout lunch\n")
    (story / "c.story").write_text("It rained.\n\nA lot.\n\n@highlight\n\nRain\n\n@highlight\n\nmuch of it\n")

    data = read(mail)

    assert {(example.source, example.targets) for example in data.first} == {
        ("Please send\nthe file.", ("The file",)),
        ("Lunch?", ("Lunch", "Lunch today", "About lunch")),
    }
    assert [(example.source, example.target) for example in read(story).first] == [
        ("It rained.\n\nA lot.", "Rain\nmuch of it")
    ]


def test_support_tickets(tmp_path: Path) -> None:
    """Names of their own: refused with the two longest columns, as a command line that reads them."""
    path = tmp_path / "customer_support_tickets.csv"
    path.write_text(
        "Ticket ID,Customer Name,Customer Email,Product Purchased,Ticket Subject,Ticket Description,Ticket Status,"
        "Resolution,Satisfaction\n"
        '1,Ann,ann@example.org,Camera,Battery,"The battery dies, after an hour. Please help me with it.",Closed,'
        '"Replaced the battery, sent a new charger to her.",4.0\n'
        '2,Bob,bob@example.org,Camera,Setup,"I cannot set it up, whatever I try. What is to be done?",Open,,\n'
    )

    with pytest.raises(DataError, match="Ticket Description") as caught:
        read(path)
    assert "--source 'Ticket Description' --target Resolution" in caught.value.hint

    data = read(path, source=r"{Ticket Subject}\n{Ticket Description}", targets=["Resolution"])
    assert data.first[0].source.startswith("Battery\nThe battery dies,")
    assert data.first_skipped == f"{path}:3: target is empty"
    assert "Customer Name" in data.findings.ignored_columns


def test_dolly(tmp_path: Path) -> None:
    """databricks-dolly-15k.jsonl: the context, where there is one, is read too."""
    records = [
        {"instruction": "Who won?", "context": "Ada won.", "response": "Ada", "category": "closed_qa"},
        {"instruction": "Name a tree", "context": "", "response": "Oak", "category": "open_qa"},
    ]
    path = write_jsonl(tmp_path / "databricks-dolly-15k.jsonl", records)

    assert examples(path) == [("Who won?\nAda won.", "Ada"), ("Name a tree", "Oak")]


def test_alpaca(tmp_path: Path) -> None:
    """alpaca_data.json: one pretty array."""
    path = tmp_path / "alpaca_data.json"
    path.write_text(
        json.dumps([{"instruction": "Shorten.", "input": "A long one", "output": "One"}] * 2, indent=4),
        encoding="utf-8",
    )

    assert examples(path) == [("Shorten.\nA long one", "One")] * 2


def test_openassistant(tmp_path: Path) -> None:
    """2023-04-12_oasst_ready.trees.jsonl.gz: trees, compressed."""
    reply = {"message_id": "2", "parent_id": "1", "text": "Sure.", "role": "assistant", "replies": [], "rank": 0}
    prompt = {"message_id": "1", "text": "Help?", "role": "prompter", "lang": "en", "replies": [reply]}
    tree = {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": prompt}
    path = tmp_path / "ready.trees.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps(tree) + "\n").encode() * 2))

    assert {example.source for example in read(path).train} == {"user: Help?"}
    assert read(path).n_examples == 2


def test_sharegpt(tmp_path: Path) -> None:
    """An array of conversations with ids."""
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
    path = tmp_path / "ShareGPT_V3.json"
    path.write_text(json.dumps([{"id": "a", "conversations": turns}, {"id": "b", "conversations": []}]))

    data = read(path)

    assert [(example.source, example.target) for example in data.first] == [("user: Hi", "Hello.")]
    assert data.n_skipped == 1


def test_glaive_function_calling(tmp_path: Path) -> None:
    """glaive-function-calling-v2.json: an array of transcripts, its arguments in single quotes."""
    chat = (
        "USER: Weather in Oslo?\n\n\nASSISTANT: <functioncall> "
        '{"name": "get_weather", "arguments": \'{"city": "Oslo"}\'} <|endoftext|>\n\n\n'
        'FUNCTION RESPONSE: {"c": 4}\n\n\nASSISTANT: 4 degrees. <|endoftext|>\n\n\n'
    )
    system = 'SYSTEM: You have functions:\n{"name": "get_weather"}'
    path = tmp_path / "glaive-function-calling-v2.json"
    path.write_text(json.dumps([{"system": system, "chat": chat}] * 2, indent=2))

    (first, call), (second, reply), *_ = examples(path)

    assert first == 'system: You have functions:\n{"name": "get_weather"}\nuser: Weather in Oslo?'
    assert call == 'call: get_weather {"city": "Oslo"}'
    assert second == f'{first}\n{call}\nresult: {{"c": 4}}'
    assert reply == "4 degrees."


def test_self_instruct_seed_tasks(tmp_path: Path) -> None:
    """seed_tasks.jsonl: input and output lie in a list beside the instruction, which the flags reach into; of a task
    with several of them none is taken for the others."""
    task = {"id": "seed_task_0", "name": "antonyms", "instruction": "How do they relate?", "is_classification": False}
    one, other = (
        {"input": "Night : Day", "output": "They are opposites."},
        {"input": "Up : Down", "output": "The same."},
    )
    path = write_jsonl(tmp_path / "seed_tasks.jsonl", [task | {"instances": [one]}, task | {"instances": [one, other]}])

    with pytest.raises(DataError) as caught:
        read(path)
    assert "--source instruction --target instances.output" in caught.value.hint

    data = read(path, source=r"{instruction}\n{instances.input}", targets=["instances.output"])
    assert [(e.source, e.target) for e in data.first] == [("How do they relate?\nNight : Day", "They are opposites.")]
    assert data.n_skipped == 1 and "an object with input, output" in data.first_skipped


def test_a_table_of_figures_is_not_sold_as_text(tmp_path: Path) -> None:
    """Tickets without a word: what is suggested are labels, never dates, numbers or ids."""
    path = tmp_path / "customer_support_tickets.csv"
    row = "TKT-000001,2024-10-29 22:00:00,Account Access,261.3160766843023,Resolved,2024-10-28/2024-11-03"
    path.write_text(f"ticket_id,created_date,category,first_response_minutes,status,week\n{row}\n")

    with pytest.raises(DataError) as caught:
        read(path)

    assert "--source category --target status" in caught.value.hint
