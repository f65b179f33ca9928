"""For `serve --patch`: decode of SGLang's Triton attention sees a whole sliding window.

The backend's window is the model's less one, to which prefill adds the token itself; decode takes
that many keys, the token's own among them, and so one too few (sglang #32087).
"""

from sglang.srt.layers.attention.triton_backend import TritonAttnBackend

prepare = TritonAttnBackend.init_forward_metadata


def prepared(self, forward_batch):
    """With a window that counts the token itself, where that is what is counted."""
    kept = self.sliding_window_size
    if kept and kept > 0 and forward_batch.forward_mode.is_decode_or_idle():
        self.sliding_window_size = kept + 1
    prepare(self, forward_batch)
    self.sliding_window_size = kept


TritonAttnBackend.init_forward_metadata = prepared
