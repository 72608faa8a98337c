"""Operators through which no cotangent flows: steps, predicates, integers, random numbers."""

from mollikit_onnx.registry import constant_by_law

# Piecewise constant.
constant_by_law("Ceil", "Floor", "Hardmax", "MelWeightMatrix", "Round", "Sign")
constant_by_law("Binarizer", domain="ai.onnx.ml")
# Results that are not real numbers.
constant_by_law(
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or"
)
constant_by_law("ArgMax", "ArgMin", "NonZero", "Shape", "Size", "Xor")
constant_by_law("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")
constant_by_law("ImageDecoder", "NonMaxSuppression", "TfIdfVectorizer")
constant_by_law("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit")
constant_by_law("BlackmanWindow", "HammingWindow", "HannWindow")
# Values that depend on the shape or type of the input alone.
constant_by_law("ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike")
