"""Every reduction in a source: from flag to guard to consumer."""
