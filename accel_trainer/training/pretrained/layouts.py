"""Names that weights have in files, and those that the models have here: older ones, and those of other code."""

import re
from collections.abc import Iterator

AREA = r"^(V1|V2|V4|IT)\."
# (pattern, replacement): which of them is meant shows in what the model has.
RENAMED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # torchvision's DenseNets as they are published, and its vision transformers before 0.13
        (r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2"),
        (r"(encoder_layer_\d+\.mlp)\.linear_1\.", r"\1.0."),
        (r"(encoder_layer_\d+\.mlp)\.linear_2\.", r"\1.3."),
        # CORnet-Z by its authors
        (AREA + r"conv\.", r"\1.0."),
        # CORnet-R and -RT
        (AREA + r"conv_input\.", r"\1.input.0."),
        (AREA + r"norm_input\.", r"\1.input.1."),
        (AREA + r"conv1\.", r"\1.recurrent.0."),
        (AREA + r"norm1\.", r"\1.recurrent.1."),
        # CORnet-S
        (r"^V1\.conv1\.", "V1.0."),
        (r"^V1\.norm1\.", "V1.1."),
        (r"^V1\.conv2\.", "V1.4."),
        (r"^V1\.norm2\.", "V1.5."),
        (AREA + r"conv_input\.", r"\1.input."),
        (AREA + r"skip\.(weight)$", r"\1.skip.0.\2"),
        (AREA + r"norm_skip\.", r"\1.skip.1."),
        (AREA + r"conv1\.", r"\1.expand."),
        (AREA + r"conv2\.", r"\1.spatial."),
        (AREA + r"conv3\.", r"\1.reduce."),
        (AREA + r"norm1_(\d+)\.", r"\1.expand_norms.\2."),
        (AREA + r"norm2_(\d+)\.", r"\1.spatial_norms.\2."),
        (AREA + r"norm3_(\d+)\.", r"\1.reduce_norms.\2."),
        # the decoders of all of them, and CORnet-S taken into its variants
        (r"^decoder\.linear\.", "decoder.heads.0.0."),
        (r"^decoder\.linear\.", "decoder.linear_0_0."),
    )
)


def other_names(name: str) -> Iterator[str]:
    """What a tensor of this name in a file may be called in a model."""
    for pattern, replacement in RENAMED:
        if pattern.search(name):
            yield pattern.sub(replacement, name)
