"""A validation under several projects' protocols, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from config.schema import EvaluationConfig
from modules.evaluation.evaluator import EvaluationResult
from modules.evaluation.variants import headline
from modules.reports.tables import Table, measured


def protocols_table(results: Mapping[str, EvaluationResult], settings: EvaluationConfig) -> Table:
    """One row a protocol, beside the mean over classes, which is the standard."""
    header = ["protocol", "AP", "AP_50", "AP over classes", "ranked by", "confidence ≥", "NMS", "source"]
    rows = []
    for name, result in results.items():
        protocol = settings.protocols[name]
        ap, ap_50 = (measured(value) for value in headline(result, protocol))
        thresholds = f"{protocol.confidence_threshold:g}", f"{protocol.nms_threshold:g}"
        ranked_by = f"{protocol.score}{', classes ignored' if protocol.class_agnostic else ''}"
        rows.append([name, ap, ap_50, measured(result.metrics["AP"]), ranked_by, *thresholds, protocol.source])
    return Table("The same network under other protocols", header, rows)
