"""Reasons: which count as failed and which as dropped."""

from __future__ import annotations

import ast
import inspect
import pickle
import textwrap

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import Count

FAILED = {
    "bad_file",
    *("bad_row", "bad_page", "empty_row", "too_many_characters", "unsupported_media", "unsupported_content"),
    *("bad_url", "forbidden_address", "name_lookup", "connection", "timed_out", "too_many_redirects"),
    *("http_client_error", "http_server_error", "http_unexpected", "truncated_body", "too_many_bytes", "empty_body"),
    *("robots_txt", "robots_unknown", "ai_preference", "tdm_reserved"),
    *("opted_out", "not_an_image", "out_of_memory", "fetch_error", "missing_file"),
    *("undecodable", "too_many_pixels", "too_many_scans", "unrenderable", "crashed"),
    *("bad_box", "box_without_image"),
    "bad_answer",
}


def test_every_reason_says_beside_its_code_which_it_is():
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(Reason))).body
    members = {node.targets[0].id: node.value for node in definition.body if isinstance(node, ast.Assign)}
    assert set(members) == set(Reason.__members__)
    for name, value in members.items():
        assert isinstance(value, ast.Tuple), name
        assert value.elts[1].id == ("FAILED" if Reason[name].failed else "DROPPED"), name


def test_what_could_not_be_had_or_read_is_failed_and_all_else_is_dropped():
    assert {str(reason) for reason in Reason if reason.failed} == FAILED


def test_a_reason_of_a_filter_is_a_decision_in_every_process():
    reason = Reason("filter:shouting")
    assert not reason.failed
    assert pickle.loads(pickle.dumps(reason)) is reason
    assert pickle.loads(pickle.dumps(Reason.CRASHED)) is Reason.CRASHED


def test_the_counts_of_a_receipt_tell_the_two_apart():
    count = Count()
    count.lose(Reason.CRASHED)
    count.lose(Reason.NO_TEXT, 2)
    assert count.to_json() == {"in": 3, "kept": 0, "dropped": {"no_text": 2}, "failed": {"crashed": 1}}
