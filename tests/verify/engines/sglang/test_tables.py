"""The command line of one server."""

import json

from verify.engines.sglang.serving import tables


def test_the_backend_is_what_the_configuration_says(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"tiny_attention": "triton"}))
    words = tables.command_line("mixed", str(tmp_path), ["--tp-size", "2"])
    assert "--attention-backend=triton" in words
    assert words[-2:] == ["--tp-size", "2"], "what a launch adds comes last and may override"
    config.write_text("{}")
    assert "--attention-backend=torch_native" in tables.command_line("mixed", str(tmp_path), [])
