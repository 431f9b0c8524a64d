"""Judges of stored responses: keyword lists, local models, models behind an HTTP API."""

from sweeper.judges.base import (
    METRICS,
    QUESTIONS,
    Judge,
    Judgement,
    Question,
    Sample,
    abstention,
    judge_name,
)
from sweeper.judges.keyword import KeywordJudge, find_keyword_list
from sweeper.judges.rejudged import MIN_COVERAGE, RejudgedRecords, overlay
from sweeper.judges.rescore import SuiteCount, rescore
from sweeper.judges.store import Scored, read_scored

__all__ = [
    "METRICS",
    "MIN_COVERAGE",
    "QUESTIONS",
    "Judge",
    "Judgement",
    "KeywordJudge",
    "Question",
    "RejudgedRecords",
    "Sample",
    "Scored",
    "SuiteCount",
    "abstention",
    "find_keyword_list",
    "judge_name",
    "overlay",
    "read_scored",
    "rescore",
]
