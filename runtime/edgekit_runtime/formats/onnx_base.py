"""The files of an ONNX base, and the names of the inputs that exports give its graph."""

ENGINE = "onnxruntime-genai"
MODEL_FILE = "model.onnx"
MIXED_FILE = "model.mixed.onnx"  # the same weights in a graph that takes another adapter for each row of a batch
DATA_FILE = "model.onnx.data"
GENAI_CONFIG = "genai_config.json"
VOCABULARY_FILE = "vocabulary.gguf"  # tokeniser and chat template as llama.cpp reads them, and what adapters may change

# In VOCABULARY_FILE: the layers that take adapters, each as "NAME IN OUT".
KEY_LAYERS = "edgekit.onnx.layers"

LORA_A, LORA_B = ".lora_A", ".lora_B"  # behind a layer's name, model.layers.0.attn.qkv_proj
MASK, MASK_FUSED = "adapter_mask", "adapter_mask_fused"
TILE = 16  # ranks that MIXED_FILE multiplies at a time
FUSED, FUSED_PARTS = "qkv_proj", 3  # the layer that is three of the trained model's: q, k and v
LOGITS_FROM = "logits_from"
