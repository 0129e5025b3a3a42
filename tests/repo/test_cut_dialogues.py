"""The script of docs/conversations.md makes rows trainable that begin with an answer or end with a question."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vlmill.pipeline.sources import SOURCES

PAGE = Path(__file__).parents[2] / "docs" / "conversations.md"
ASK, SAY, PROMPT = ({"role": role, "content": f"Of {role}."} for role in ("user", "assistant", "system"))
ROWS = {
    "sound": [ASK, SAY],
    "begins with an answer": [SAY, ASK, SAY],
    "the same behind a prompt": [PROMPT, SAY, ASK, SAY],
    "ends with a question": [PROMPT, ASK, SAY, ASK],
    "both": [SAY, ASK, SAY, ASK],
    "nothing else": [SAY, ASK],
}


def test_what_is_out_of_order_is_lost_until_it_is_cut(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dialogues.jsonl").write_text("\n".join(json.dumps({"messages": said}) for said in ROWS.values()))
    source = SOURCES["chat"]()
    failed = [
        [(str(why), detail) for why, detail in row.failed] for row in source.rows(Path("dialogues.jsonl"), range(6))
    ]
    assert failed == [
        [],
        [("bad_row", "message 0 is out of order: assistant after nothing")],
        [("bad_row", "message 1 is out of order: assistant after system")],
        [("bad_row", "the last question has no answer")],
        *[[("bad_row", "message 0 is out of order: assistant after nothing")]] * 2,
    ]
    (script,) = re.findall(r"```python\n(# cut_dialogues\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(script, "cut_dialogues.py", "exec"), {})
    rows = list(source.rows(Path("cut.jsonl"), range(5)))
    assert not any(row.failed for row in rows)
    roles = [[node.role for node in row.pages[0].nodes] for row in rows]
    pair = ["user", "assistant"]
    assert roles == [pair, pair, ["system", *pair], ["system", *pair], pair]
