"""Every reduction in an SGLang source: from flag to guard to consumer."""
